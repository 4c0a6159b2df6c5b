#include "shim.h"

#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_net.h>
#include <rte_ring.h>

RTE_LOG_REGISTER(eswitch_logtype, pmd.net.eswitch, NOTICE);

uint64_t eswitch_tsc(void)
{
	return rte_rdtsc();
}

int eswitch_errno(void)
{
	return rte_errno;
}

void eswitch_set_errno(int value)
{
	rte_errno = value;
}

void eswitch_log(uint32_t level, const char *text)
{
	rte_log(level, eswitch_logtype, "net_eswitch: %s\n", text);
}

const char *eswitch_vdev_name(const struct rte_vdev_device *device)
{
	return rte_vdev_device_name(device);
}

const char *eswitch_vdev_args(const struct rte_vdev_device *device)
{
	return rte_vdev_device_args(device);
}

/* Unlike rte_eth_dev_get_name_by_port() also while the port is being probed. */
const char *eswitch_port_name(uint16_t port)
{
	if (port >= RTE_MAX_ETHPORTS || rte_eth_devices[port].data == NULL)
		return NULL;
	return rte_eth_devices[port].data->name;
}

const struct eth_dev_ops *eswitch_port_ops(uint16_t port)
{
	return port < RTE_MAX_ETHPORTS ? rte_eth_devices[port].dev_ops : NULL;
}

/* Unlike rte_eth_macaddr_get() also while the port is being probed. */
int eswitch_port_address(uint16_t port, struct rte_ether_addr *address)
{
	if (port >= RTE_MAX_ETHPORTS || rte_eth_devices[port].data == NULL ||
	    rte_eth_devices[port].data->mac_addrs == NULL)
		return -ENODEV;
	rte_ether_addr_copy(rte_eth_devices[port].data->mac_addrs, address);
	return 0;
}

int eswitch_set_link(struct rte_eth_dev *device, const struct rte_eth_link *link)
{
	return rte_eth_linkstatus_set(device, link);
}

uint16_t eswitch_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t eswitch_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

/* Not rte_ring_create(): that would need a name that no other ring has, and a memzone. */
struct rte_ring *eswitch_ring_new(const char *name, unsigned int count, int socket)
{
	const ssize_t size = rte_ring_get_memsize(count);
	struct rte_ring *ring = size < 0 ? NULL : rte_zmalloc_socket(name, size, RTE_CACHE_LINE_SIZE, socket);

	if (ring != NULL && rte_ring_init(ring, name, count, RING_F_SP_ENQ | RING_F_SC_DEQ) != 0) {
		rte_free(ring);
		ring = NULL;
	}
	return ring;
}

void eswitch_ring_free(struct rte_ring *ring)
{
	rte_free(ring);
}

unsigned int eswitch_ring_enqueue(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count)
{
	return rte_ring_sp_enqueue_burst(ring, (void **)packets, count, NULL);
}

unsigned int eswitch_ring_dequeue(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)packets, count, NULL);
}

unsigned int eswitch_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}

unsigned int eswitch_ring_room(const struct rte_ring *ring)
{
	return rte_ring_free_count(ring);
}

void eswitch_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

struct rte_mbuf *eswitch_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

/* A packet that others also hold must not be edited. */
static struct rte_mbuf *unshared(struct rte_mbuf *packet, struct rte_mempool *pool)
{
	struct rte_mbuf *copy;

	if (likely(packet->nb_segs == 1 && RTE_MBUF_DIRECT(packet) && rte_mbuf_refcnt_read(packet) == 1))
		return packet;
	copy = rte_pktmbuf_copy(packet, pool, 0, UINT32_MAX);
	rte_pktmbuf_free(packet);
	return copy;
}

struct rte_mbuf *eswitch_mbuf_own(struct rte_mbuf *packet, struct rte_mempool *pool)
{
	packet = unshared(packet, pool);
	if (packet != NULL && unlikely(packet->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED)) {
		packet->ol_flags &= ~(RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED);
		if (rte_vlan_insert(&packet) != 0) {
			rte_pktmbuf_free(packet);
			return NULL;
		}
	}
	return packet;
}

/* Checksums that the application left to the device. Offsets are the application's and are checked. */
static void checksum(struct rte_mbuf *packet)
{
	const uint64_t flags = packet->ol_flags;
	const uint64_t kind = flags & RTE_MBUF_F_TX_L4_MASK;
	const uint32_t l4_at = packet->l2_len + packet->l3_len;
	const uint32_t l4_header = kind == RTE_MBUF_F_TX_TCP_CKSUM ? sizeof(struct rte_tcp_hdr) : sizeof(struct rte_udp_hdr);
	void *l3 = rte_pktmbuf_mtod_offset(packet, void *, packet->l2_len);
	void *l4 = rte_pktmbuf_mtod_offset(packet, void *, l4_at);
	const int v4 = (flags & RTE_MBUF_F_TX_IPV4) != 0;
	rte_be16_t *sum;

	if (packet->l3_len < (v4 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr)))
		return;
	if (l4_at > packet->data_len)
		return;
	if (v4 && (flags & RTE_MBUF_F_TX_IP_CKSUM)) {
		struct rte_ipv4_hdr *ip = l3;

		/* The sum goes as far as the header says. */
		if (packet->l2_len + rte_ipv4_hdr_len(ip) > packet->data_len)
			return;
		ip->hdr_checksum = 0;
		ip->hdr_checksum = rte_ipv4_cksum(ip);
	}
	if ((kind != RTE_MBUF_F_TX_TCP_CKSUM && kind != RTE_MBUF_F_TX_UDP_CKSUM) ||
	    l4_at + l4_header > packet->data_len)
		return;
	sum = kind == RTE_MBUF_F_TX_TCP_CKSUM ? &((struct rte_tcp_hdr *)l4)->cksum : &((struct rte_udp_hdr *)l4)->dgram_cksum;
	*sum = 0;
	*sum = v4 ? rte_ipv4_udptcp_cksum_mbuf(packet, l3, l4_at) : rte_ipv6_udptcp_cksum_mbuf(packet, l3, l4_at);
}

struct rte_mbuf *eswitch_mbuf_prepare(struct rte_mbuf *packet, struct rte_mempool *pool)
{
	packet = unshared(packet, pool);
	if (packet == NULL || likely((packet->ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK) == 0))
		return packet;
	if (packet->ol_flags & (RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_L4_MASK))
		checksum(packet);
	if ((packet->ol_flags & RTE_MBUF_F_TX_VLAN) && rte_vlan_insert(&packet) != 0) {
		rte_pktmbuf_free(packet);
		return NULL;
	}
	packet->ol_flags &= ~RTE_MBUF_F_TX_OFFLOAD_MASK;
	return packet;
}

uint32_t eswitch_mbuf_type(const struct rte_mbuf *packet)
{
	return packet->nb_segs == 1 ? rte_net_get_ptype(packet, NULL, RTE_PTYPE_ALL_MASK) : 0;
}

void eswitch_mbuf_set_metadata(struct rte_mbuf *packet, uint32_t metadata)
{
	if (rte_flow_dynf_metadata_avail()) {
		*RTE_FLOW_DYNF_METADATA(packet) = metadata;
		packet->ol_flags |= RTE_MBUF_DYNFLAG_RX_METADATA;
	}
}

uint16_t eswitch_pool_private_size(struct rte_mempool *pool)
{
	return rte_pktmbuf_priv_size(pool);
}

uint16_t eswitch_pool_data_room(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

int eswitch_pool_is_full(const struct rte_mempool *pool)
{
	return rte_mempool_full(pool);
}
