/* How long datagrams take from one network namespace to another, one by one.
 *
 *     probe FROM_NS TO_NS MAC EXPECTED_MAC ADDRESS PORT FLOWS RATE COUNT ANSWERS FILE
 *
 * Sends COUNT frames of 60 bytes (64 with FCS), RATE a second, out of eth0 of one namespace to MAC, ADDRESS and
 * PORT (UDP), from FLOWS source ports in turn, and takes them from eth0 of the other, where they must come with
 * EXPECTED_MAC as their destination. One clock for both ends, CLOCK_REALTIME: it is read just before send(), and
 * by the kernel when the far end's interface has the frame (SO_TIMESTAMPNS), so that neither waking nor reading is
 * in it. With ANSWERS 1 each frame is sent back from the far end, for who wants to see both ways of a connection
 * before it is one; nobody waits for answers, and measuring is done without.
 *
 * FILE gets for each frame, in the order of sending, its nanoseconds as a native 64-bit integer, INT64_MIN if it
 * never came. A line of JSON on standard output says what became of all. Exit 1 if something could not be had.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x6c61746eu
#define SECOND 1000000000ll
#define LAST_WAIT_MS 10000 /* at most, for what is still under way when all is sent */
#define FIRST_PORT 20000
#define LOST INT64_MIN

struct frame {
	uint16_t align; /* so that all headers are; not sent */
	struct ether_header ether;
	struct iphdr ip;
	struct udphdr udp;
	uint32_t magic, number, run, nothing;
	uint16_t more;
} __attribute__((packed, aligned(4)));

#define LENGTH 60 /* the shortest frame, without its FCS */
_Static_assert(offsetof(struct frame, more) + 2 - offsetof(struct frame, ether) == LENGTH, "all of it is sent");

static struct frame out = {
	.ether = {.ether_type = 0x0008},
	.ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP},
};
static uint8_t expected_mac[6];
static int64_t *sent_at, *took;
static uint64_t count, received, duplicates, wrong_mac, answered;
static bool answers;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec at;
	clock_gettime(clock, &at);
	return at.tv_sec * SECOND + at.tv_nsec;
}

/* Before other programs, for want of a core that others keep off. Where Linux groups tasks by session, priorities
 * hold among those of a session only: hence one of its own. */
static void be_urgent(void)
{
	FILE *group;

	setpriority(PRIO_PROCESS, 0, -20);
	if (setsid() < 0 || !(group = fopen("/proc/self/autogroup", "w")))
		return;
	fputs("-20", group);
	fclose(group);
}

/* A socket of a namespace's eth0, and that interface's own MAC address. */
static int open_socket(const char *namespace, int protocol, uint8_t mac[6])
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol)};
	socklen_t length = sizeof(address);
	int at = open(namespace, O_RDONLY), on = 1, bytes = 16 << 20;

	if (at < 0 || setns(at, CLONE_NEWNET) != 0)
		fail(namespace);
	close(at);
	int sock = socket(AF_PACKET, SOCK_RAW, htons(protocol));
	address.sll_ifindex = if_nametoindex("eth0");
	if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail("eth0");
	if (getsockname(sock, (struct sockaddr *)&address, &length) != 0)
		fail("getsockname");
	memcpy(mac, address.sll_addr, 6);
	if (!protocol) {
		setsockopt(sock, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
		return sock;
	}
	setsockopt(sock, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	if (setsockopt(sock, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) != 0)
		fail("SO_TIMESTAMPNS");
	return sock;
}

static uint16_t checksum(const void *data, unsigned bytes, uint32_t total)
{
	const uint8_t *at = data;
	for (; bytes > 1; bytes -= 2, at += 2)
		total += at[0] << 8 | at[1];
	total = (total & 0xffff) + (total >> 16);
	return htons(~((total & 0xffff) + (total >> 16)));
}

static void prepare(uint64_t number, uint16_t flows, uint32_t run)
{
	unsigned segment = LENGTH - sizeof(out.ether) - sizeof(out.ip);

	out.ip.tot_len = htons(sizeof(out.ip) + segment);
	out.ip.check = 0;
	out.ip.check = checksum(&out.ip, sizeof(out.ip), 0);
	out.udp.source = htons(FIRST_PORT + number % flows);
	out.udp.len = htons(segment);
	out.magic = MAGIC;
	out.number = number;
	out.run = run;
	out.udp.check = 0;
	uint32_t addresses[2] = {out.ip.saddr, out.ip.daddr};
	uint32_t pseudo = IPPROTO_UDP + segment;
	for (int at = 0; at < 2; at++)
		pseudo += (ntohl(addresses[at]) >> 16) + (ntohl(addresses[at]) & 0xffff);
	out.udp.check = checksum(&out.udp, segment, pseudo);
}

/* Sends a frame back to where it came from: its checksums stay right. */
static void answer(int sock, const struct frame *in)
{
	struct frame back = *in;
	memcpy(back.ether.ether_dhost, in->ether.ether_shost, 6);
	memcpy(back.ether.ether_shost, in->ether.ether_dhost, 6);
	back.ip.saddr = in->ip.daddr;
	back.ip.daddr = in->ip.saddr;
	back.udp.source = in->udp.dest;
	back.udp.dest = in->udp.source;
	answered += send(sock, &back.ether, LENGTH, 0) == LENGTH;
}

/* Takes what has come. */
static void receive(int sock, uint32_t run)
{
	struct frame in;
	char control[256];
	for (;;) {
		struct iovec vec = {&in.ether, LENGTH};
		struct msghdr message = {.msg_iov = &vec, .msg_iovlen = 1, .msg_control = control,
		                         .msg_controllen = sizeof(control)};
		ssize_t got = recvmsg(sock, &message, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got < 0)
			fail("recvmsg");
		/* Others' frames, and late ones of an earlier run, are none of ours. */
		if (got < LENGTH || in.magic != MAGIC || in.run != run || in.number >= count)
			continue;
		if (took[in.number] != LOST) {
			duplicates++;
			continue;
		}
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		if (!header || header->cmsg_type != SCM_TIMESTAMPNS)
			fail("no time of receipt");
		struct timespec at;
		memcpy(&at, CMSG_DATA(header), sizeof(at));
		took[in.number] = at.tv_sec * SECOND + at.tv_nsec - sent_at[in.number];
		received++;
		wrong_mac += memcmp(in.ether.ether_dhost, expected_mac, 6) != 0;
		if (answers)
			answer(sock, &in);
	}
}

static void sleep_until(int64_t due)
{
	struct timespec at = {due / SECOND, due % SECOND};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
		;
}

/* Sends all, and waits for the last. Frames that the interface refused are not counted as sent. */
static void run(int from, int to, uint16_t flows, uint64_t rate)
{
	uint32_t run = (uint32_t)getpid();
	uint64_t sent = 0, refused = 0, late = 0;
	int64_t begin = clock_ns(CLOCK_MONOTONIC), period = SECOND / (int64_t)rate;

	for (uint64_t number = 0; number < count; number++) {
		prepare(number, flows, run);
		sleep_until(begin + (int64_t)number * period);
		late += clock_ns(CLOCK_MONOTONIC) > begin + (int64_t)(number + 1) * period;
		sent_at[number] = clock_ns(CLOCK_REALTIME);
		if (send(from, &out.ether, LENGTH, 0) == LENGTH)
			sent++;
		else
			refused++;
		receive(to, run);
	}
	double seconds = (clock_ns(CLOCK_MONOTONIC) - begin) / 1e9;
	int64_t patience = clock_ns(CLOCK_MONOTONIC) + LAST_WAIT_MS * 1000000ll;
	while (received < sent && clock_ns(CLOCK_MONOTONIC) < patience) {
		struct pollfd ready = {.fd = to, .events = POLLIN};
		poll(&ready, 1, 10);
		receive(to, run);
	}
	printf("{\"sent\": %lu, \"refused\": %lu, \"received\": %lu, \"duplicates\": %lu, \"wrong_mac\": %lu, "
	       "\"answered\": %lu, \"late\": %lu, \"seconds\": %.6f}\n", sent, refused, received, duplicates, wrong_mac,
	       answered, late, seconds);
}

static void read_mac(const char *text, uint8_t mac[6])
{
	unsigned bytes[6];
	if (sscanf(text, "%x:%x:%x:%x:%x:%x", bytes, bytes + 1, bytes + 2, bytes + 3, bytes + 4, bytes + 5) != 6) {
		fprintf(stderr, "probe: not a MAC address: %s\n", text);
		exit(1);
	}
	for (int at = 0; at < 6; at++)
		mac[at] = bytes[at];
}

int main(int argc, char **argv)
{
	uint8_t ignored[6];

	if (argc != 12) {
		fprintf(stderr, "probe FROM_NS TO_NS MAC EXPECTED_MAC ADDRESS PORT FLOWS RATE COUNT ANSWERS FILE\n");
		return 1;
	}
	unsigned long flows = strtoul(argv[7], NULL, 10), rate = strtoul(argv[8], NULL, 10);
	count = strtoul(argv[9], NULL, 10);
	if (!flows || flows > 10000 || !rate || rate > 1000000 || !count || count > 100000000) {
		fprintf(stderr, "probe: flows, rate or count out of range\n");
		return 1;
	}
	answers = !strcmp(argv[10], "1");
	read_mac(argv[3], out.ether.ether_dhost);
	read_mac(argv[4], expected_mac);
	out.ip.saddr = inet_addr("192.0.2.10");
	out.ip.daddr = inet_addr(argv[5]);
	out.udp.dest = htons(atoi(argv[6]));
	FILE *file = fopen(argv[11], "wb");
	sent_at = calloc(count, sizeof(*sent_at));
	took = malloc(count * sizeof(*took));
	if (!file || !sent_at || !took)
		fail(argv[11]);
	for (uint64_t number = 0; number < count; number++)
		took[number] = LOST;
	be_urgent();
	int from = open_socket(argv[1], 0, out.ether.ether_shost);
	int to = open_socket(argv[2], ETH_P_IP, ignored);
	run(from, to, flows, rate);
	if (fwrite(took, sizeof(*took), count, file) != count || fclose(file) != 0)
		fail(argv[11]);
	return 0;
}
