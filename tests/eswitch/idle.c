/* An application that makes rules, as many as it is told, and then sleeps: it has no loop that receives.
 *
 *     idle EAL-OPTIONS -- CONNECTIONS
 *
 * Half of the connections are IPv4's, half IPv6's. Each is translated there and back by two rules that match
 * all of it: addresses, ports and where it comes from. Connection k of a family is from the client's address
 * number k / 50,000 and port 10,000 + k % 50,000; tests/test_eswitch_traffic.py knows this, too.
 *
 * A line on standard input has it print what its ports received; the end of the input ends it.
 */

#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_flow.h>

#define PORTS_PER_ADDRESS 50000

enum { UPLINK, HOST, PORTS };

/* Both are the other's gateway, which is the switch. */
static struct rte_flow_action_set_mac gateway_mac = {{2, 0, 0, 0, 0, 0xfe}};
static struct rte_flow_action_set_mac far_mac[PORTS] = {{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 2}}};
static const uint8_t client6[16] = {0xfd, 0}, server6[16] = {0xfd, 0, 0, 1, [15] = 2};
static const uint8_t vip6[16] = {0x20, 1, 0x0d, 0xb8, [15] = 0x80};
static const rte_be32_t client4 = RTE_BE32(0x0a000002), server4 = RTE_BE32(0x0a010002);
static const rte_be32_t vip4 = RTE_BE32(0xc0000250);
static const rte_be16_t vip_port = RTE_BE16(80), server_port = RTE_BE16(9000);

static void create(uint16_t port, uint32_t group, uint32_t priority, const struct rte_flow_item *pattern,
		   const struct rte_flow_action *actions)
{
	const struct rte_flow_attr attr = {.group = group, .priority = priority, .transfer = 1};
	struct rte_flow_error error = {0};

	if (!rte_flow_create(port, &attr, pattern, actions, &error))
		rte_exit(1, "rte_flow_create: %s (errno %d)\n", error.message ? error.message : "?", rte_errno);
}

/* Group 0: multicast, which kernels send by themselves, is dropped; all else goes to group 1. */
static void create_entry(uint16_t port)
{
	const struct rte_flow_item_eth multicast = {.hdr.dst_addr.addr_bytes = {0x33, 0x33}};
	const struct rte_flow_item_eth mask = {.hdr.dst_addr.addr_bytes = {0xff, 0xff}};
	const struct rte_flow_action_jump jump = {.group = 1};
	const struct rte_flow_item end = {.type = RTE_FLOW_ITEM_TYPE_END};
	const struct rte_flow_item noise[] = {
		{.type = RTE_FLOW_ITEM_TYPE_ETH, .spec = &multicast, .mask = &mask}, end};
	const struct rte_flow_item all[] = {{.type = RTE_FLOW_ITEM_TYPE_ETH}, end};
	const struct rte_flow_action drop[] = {{.type = RTE_FLOW_ACTION_TYPE_DROP}, {RTE_FLOW_ACTION_TYPE_END}};
	const struct rte_flow_action on[] = {
		{.type = RTE_FLOW_ACTION_TYPE_JUMP, .conf = &jump}, {RTE_FLOW_ACTION_TYPE_END}};

	create(port, 0, 0, noise, drop);
	create(port, 0, 1, all, on);
}

/* One direction: the packet's network header in `ip`, what becomes of its address in `rewrite`. */
static void create_way(uint16_t from, const struct rte_flow_item *ip, struct rte_flow_action rewrite,
		       rte_be16_t source, rte_be16_t destination)
{
	uint16_t to = from == UPLINK ? HOST : UPLINK;
	const struct rte_flow_item_ethdev ingress = {.port_id = from};
	const struct rte_flow_item_tcp tcp = {.hdr = {.src_port = source, .dst_port = destination}};
	const struct rte_flow_item_tcp ports = {.hdr = {.src_port = 0xffff, .dst_port = 0xffff}};
	const struct rte_flow_item pattern[] = {
		{.type = RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT, .spec = &ingress},
		{.type = RTE_FLOW_ITEM_TYPE_ETH},
		*ip,
		{.type = RTE_FLOW_ITEM_TYPE_TCP, .spec = &tcp, .mask = &ports},
		{.type = RTE_FLOW_ITEM_TYPE_END},
	};
	const struct rte_flow_action_set_tp port = {from == UPLINK ? server_port : vip_port};
	const struct rte_flow_action_count count = {0};
	const struct rte_flow_action_ethdev egress = {.port_id = to};
	const struct rte_flow_action actions[] = {
		{RTE_FLOW_ACTION_TYPE_SET_MAC_SRC, &gateway_mac},
		{RTE_FLOW_ACTION_TYPE_SET_MAC_DST, &far_mac[to]},
		rewrite,
		{from == UPLINK ? RTE_FLOW_ACTION_TYPE_SET_TP_DST : RTE_FLOW_ACTION_TYPE_SET_TP_SRC, &port},
		{RTE_FLOW_ACTION_TYPE_DEC_TTL, NULL},
		{RTE_FLOW_ACTION_TYPE_COUNT, &count},
		{RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT, &egress},
		{RTE_FLOW_ACTION_TYPE_END, NULL},
	};

	create(from, 1, 0, pattern, actions);
}

static void create_connection4(uint32_t k)
{
	static const struct rte_flow_item_ipv4 mask = {.hdr = {.src_addr = ~0u, .dst_addr = ~0u}};
	rte_be32_t client = rte_cpu_to_be_32(rte_be_to_cpu_32(client4) + k / PORTS_PER_ADDRESS);
	rte_be16_t port = rte_cpu_to_be_16(10000 + k % PORTS_PER_ADDRESS);
	const struct rte_flow_item_ipv4 there = {.hdr = {.src_addr = client, .dst_addr = vip4}};
	const struct rte_flow_item_ipv4 back = {.hdr = {.src_addr = server4, .dst_addr = client}};
	const struct rte_flow_action_set_ipv4 to = {server4}, as = {vip4};
	struct rte_flow_item ip = {.type = RTE_FLOW_ITEM_TYPE_IPV4, .spec = &there, .mask = &mask};

	create_way(UPLINK, &ip, (struct rte_flow_action){RTE_FLOW_ACTION_TYPE_SET_IPV4_DST, &to}, port, vip_port);
	ip.spec = &back;
	create_way(HOST, &ip, (struct rte_flow_action){RTE_FLOW_ACTION_TYPE_SET_IPV4_SRC, &as}, server_port, port);
}

static void create_connection6(uint32_t k)
{
	struct rte_flow_item_ipv6 mask, there = {0}, back = {0};
	struct rte_flow_action_set_ipv6 to, as;
	struct rte_flow_item ip = {.type = RTE_FLOW_ITEM_TYPE_IPV6, .spec = &there, .mask = &mask};
	rte_be16_t port = rte_cpu_to_be_16(10000 + k % PORTS_PER_ADDRESS);
	uint8_t client[16];

	memset(&mask, 0, sizeof(mask));
	memset(mask.hdr.src_addr, 0xff, 16);
	memset(mask.hdr.dst_addr, 0xff, 16);
	memcpy(client, client6, 16);
	client[15] = 2 + k / PORTS_PER_ADDRESS;
	memcpy(there.hdr.src_addr, client, 16);
	memcpy(there.hdr.dst_addr, vip6, 16);
	memcpy(back.hdr.src_addr, server6, 16);
	memcpy(back.hdr.dst_addr, client, 16);
	memcpy(to.ipv6_addr, server6, 16);
	memcpy(as.ipv6_addr, vip6, 16);
	create_way(UPLINK, &ip, (struct rte_flow_action){RTE_FLOW_ACTION_TYPE_SET_IPV6_DST, &to}, port, vip_port);
	ip.spec = &back;
	create_way(HOST, &ip, (struct rte_flow_action){RTE_FLOW_ACTION_TYPE_SET_IPV6_SRC, &as}, server_port, port);
}

/* Promiscuous, so that whatever is not forwarded by rules shows. */
static void start(uint16_t port, struct rte_mempool *pool)
{
	const struct rte_eth_conf conf = {0};

	if (rte_eth_dev_configure(port, 1, 1, &conf) || rte_eth_rx_queue_setup(port, 0, 512, 0, NULL, pool) ||
	    rte_eth_tx_queue_setup(port, 0, 512, 0, NULL) || rte_eth_promiscuous_enable(port) ||
	    rte_eth_dev_start(port))
		rte_exit(1, "port %u does not start\n", port);
}

static uint64_t xstat(uint16_t port, const char *name)
{
	uint64_t id, value = 0;

	if (rte_eth_xstats_get_id_by_name(port, name, &id) || rte_eth_xstats_get_by_id(port, &id, &value, 1) != 1)
		rte_exit(1, "port %u has no %s\n", port, name);
	return value;
}

/* What the device had for a port: nobody takes it, so the standard counters would show nothing. */
static void say(void)
{
	for (uint16_t port = 0; port < PORTS; port++)
		printf("port %u received %" PRIu64 "%c", port, xstat(port, "rx_delivered") + xstat(port, "rx_full"),
		       port == PORTS - 1 ? '\n' : ' ');
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int used = rte_eal_init(argc, argv);
	uint32_t connections = used >= 0 && argc > used + 1 ? strtoul(argv[used + 1], NULL, 0) : 0;
	struct rte_mempool *pool;
	uint64_t started;
	char line[16];

	if (used < 0 || connections < 2)
		rte_exit(1, "usage: idle EAL-OPTIONS -- CONNECTIONS\n");
	pool = rte_pktmbuf_pool_create("idle", 2047, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
	if (!pool)
		rte_exit(1, "no memory for packets\n");
	for (uint16_t port = 0; port < PORTS; port++)
		start(port, pool);
	started = rte_get_timer_cycles();
	for (uint16_t port = 0; port < PORTS; port++)
		create_entry(port);
	for (uint32_t k = 0; k < connections / 2; k++) {
		create_connection4(k);
		create_connection6(k);
	}
	printf("made %u rules in %.2f s\n", connections / 2 * 4 + 2 * PORTS,
	       (double)(rte_get_timer_cycles() - started) / rte_get_timer_hz());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		say();
	for (uint16_t port = 0; port < PORTS; port++) {
		rte_eth_dev_stop(port);
		rte_eth_dev_close(port);
	}
	return rte_eal_cleanup();
}
