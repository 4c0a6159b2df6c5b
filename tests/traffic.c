/* Connections by the thousand, from raw frames: more than kernels' sockets manage beside everything else that
 * runs on a small machine.
 *
 *     traffic serve IFACE PORT
 *         Answers whatever is sent to PORT of any address, without remembering anything: a SYN, data, a FIN;
 *         datagrams go back as they came. Ends with SIGTERM.
 *     traffic tcp IFACE GATEWAY_MAC VIP PORT RATE SECONDS ROUNDS THINK_MS
 *         Opens RATE connections a second, as far as others have ended: at most WINDOW are open, so that a slow
 *         machine opens fewer and loses none. Each has an address and port of its own, sends ROUNDS requests,
 *         pauses THINK_MS after each answer, and closes.
 *     traffic udp IFACE GATEWAY_MAC VIP PORT FLOWS PERIOD_MS SECONDS
 *         FLOWS sockets' worth of datagrams, each flow one every PERIOD_MS. They take turns out of order, so that
 *         at no time all of them are of one part of the ports.
 *
 * Clients are 10.1.0.0 and on: the kernel must not know these addresses, or it would answer for them. What is not
 * answered is sent again after 300 ms, ten times at most (TCP). At the end a line of JSON says what happened.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64
#define FRAME 256
#define STRIDE 7919ull /* from one flow's turn to the next: prime, and no divisor of any number of flows */
#define PORTS 50000u /* clients' ports for each of their addresses, from 1024 on */
#define FIRST_ADDRESS 0x0a010000u
#define TRIES 10
#define AGAIN_NS 300000000ull
#define REQUEST 64u
#define MS 1000000ull
#define WINDOW 1000

struct frame {
	uint16_t align; /* so that all headers are; not sent */
	struct ether_header ether;
	struct iphdr ip;
	union {
		struct tcphdr tcp;
		struct udphdr udp;
	};
	uint8_t payload[FRAME - 56];
};

enum stage { UNUSED, SYN_SENT, WAITING, THINKING, FIN_SENT, DONE };

struct connection {
	uint64_t at; /* when to think on, or to send again */
	uint32_t seq, ack;
	uint8_t stage, tries;
	uint16_t rounds;
};

struct totals {
	uint64_t sent, answered, opened, completed, failed, reset, again;
};

static int sock;
static uint8_t mac[6], gateway[6];
static uint32_t vip;
static uint16_t port;
static struct totals totals;
static volatile sig_atomic_t stopping;

static struct frame out[BATCH];
static struct iovec out_vec[BATCH];
static struct mmsghdr out_messages[BATCH];
static unsigned out_count;

static uint64_t now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void on_signal(int number)
{
	(void)number;
	stopping = 1;
}

static void open_socket(const char *interface)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
	socklen_t length = sizeof(address);
	int on = 1, bytes = 64 << 20;

	sock = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IP));
	address.sll_ifindex = if_nametoindex(interface);
	if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail(interface);
	if (getsockname(sock, (struct sockaddr *)&address, &length) != 0)
		fail("getsockname");
	memcpy(mac, address.sll_addr, sizeof(mac));
	setsockopt(sock, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	setsockopt(sock, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
	setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
}

static void flush(void)
{
	unsigned done = 0;
	while (done < out_count) {
		int sent = sendmmsg(sock, out_messages + done, out_count - done, 0);
		/* A full queue takes no more for a moment; what is lost is sent again in time. */
		done += sent > 0 ? (unsigned)sent : 1;
	}
	out_count = 0;
}

static uint32_t sum(const void *data, unsigned bytes, uint32_t total)
{
	const uint8_t *at = data;
	for (; bytes > 1; bytes -= 2, at += 2)
		total += at[0] << 8 | at[1];
	return bytes ? total + (at[0] << 8) : total;
}

static uint16_t fold(uint32_t total)
{
	total = (total & 0xffff) + (total >> 16);
	return htons(~((total & 0xffff) + (total >> 16)));
}

/* Fills in lengths and checksums of a frame that has its addresses and ports, and sends it with the others. */
static void send_frame(struct frame *frame, unsigned header, unsigned payload)
{
	unsigned segment = header + payload;
	struct iphdr *ip = &frame->ip;
	uint32_t pseudo;

	frame->ether.ether_type = htons(ETH_P_IP);
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = 0;
	ip->id = 0;
	ip->frag_off = htons(IP_DF);
	ip->ttl = 64;
	ip->tot_len = htons(sizeof(*ip) + segment);
	ip->check = 0;
	ip->check = fold(sum(ip, sizeof(*ip), 0));
	pseudo = sum(&ip->saddr, 8, ip->protocol + segment);
	if (ip->protocol == IPPROTO_TCP) {
		frame->tcp.check = 0;
		frame->tcp.check = fold(sum(&frame->tcp, segment, pseudo));
	} else {
		frame->udp.len = htons(segment);
		frame->udp.check = 0;
		frame->udp.check = fold(sum(&frame->udp, segment, pseudo));
	}
	out_vec[out_count].iov_len = sizeof(frame->ether) + sizeof(*ip) + segment;
	if (++out_count == BATCH)
		flush();
}

static void set_tcp(struct frame *frame, uint32_t seq, uint32_t ack, bool syn, bool fin)
{
	struct tcphdr *tcp = &frame->tcp;
	uint16_t source = tcp->source, dest = tcp->dest;
	memset(tcp, 0, sizeof(*tcp));
	tcp->source = source;
	tcp->dest = dest;
	tcp->seq = htonl(seq);
	tcp->ack_seq = htonl(ack);
	tcp->doff = 5;
	tcp->syn = syn;
	tcp->fin = fin;
	tcp->ack = ack != 0;
	tcp->window = htons(60000);
}

static unsigned payload_of(const struct frame *frame)
{
	int bytes = ntohs(frame->ip.tot_len) - 20 - frame->tcp.doff * 4;
	return bytes > 0 ? (unsigned)bytes : 0;
}

/* Calls `handle` with every frame that has come, waiting for the first one up to so long. */
static void receive(int wait_ms, void (*handle)(const struct frame *))
{
	static struct frame in[BATCH];
	static struct iovec vec[BATCH];
	static struct mmsghdr messages[BATCH];
	struct pollfd ready = {.fd = sock, .events = POLLIN};
	int count;

	if (wait_ms && poll(&ready, 1, wait_ms) <= 0)
		return;
	for (unsigned at = 0; at < BATCH; at++) {
		vec[at] = (struct iovec){&in[at].ether, sizeof(in[at]) - sizeof(in[at].align)};
		messages[at].msg_hdr = (struct msghdr){.msg_iov = vec + at, .msg_iovlen = 1};
	}
	count = recvmmsg(sock, messages, BATCH, MSG_DONTWAIT, NULL);
	for (int at = 0; at < count; at++) {
		bool whole = messages[at].msg_len >= sizeof(in->ether) + sizeof(in->ip) + sizeof(in->tcp);
		if (whole && in[at].ip.ihl == 5)
			handle(in + at);
	}
	flush();
}

/* ---- the server ---- */

static void answer(const struct frame *from)
{
	struct frame *to = out + out_count;
	const struct tcphdr *tcp = &from->tcp;

	if (from->udp.dest != port)
		return;
	memcpy(to->ether.ether_dhost, from->ether.ether_shost, 6);
	memcpy(to->ether.ether_shost, mac, 6);
	to->ip.saddr = from->ip.daddr;
	to->ip.daddr = from->ip.saddr;
	to->ip.protocol = from->ip.protocol;
	to->udp.source = from->udp.dest;
	to->udp.dest = from->udp.source;
	if (from->ip.protocol == IPPROTO_UDP) {
		memcpy(to->payload, from->payload, REQUEST);
		send_frame(to, sizeof(to->udp), REQUEST);
		return;
	}
	unsigned bytes = payload_of(from);
	if (from->ip.protocol != IPPROTO_TCP || tcp->rst || (!bytes && !tcp->syn && !tcp->fin))
		return;
	uint32_t end = ntohl(tcp->seq) + bytes + tcp->syn + tcp->fin;
	/* A connection's first number follows from its ends; the others, from what the client acknowledges. */
	uint32_t seq = tcp->syn ? ntohl(from->ip.saddr) * 2654435761u ^ ntohs(tcp->source) : ntohl(tcp->ack_seq);
	set_tcp(to, seq, end, tcp->syn, tcp->fin);
	memset(to->payload, 'a', bytes ? REQUEST : 0);
	send_frame(to, sizeof(to->tcp), bytes ? REQUEST : 0);
}

static void serve(void)
{
	while (!stopping)
		receive(100, answer);
}

/* ---- clients ---- */

static struct connection *connections;
static uint32_t connections_max, rounds_wanted;
static uint64_t think_ns, clock_ns;

static struct frame *addressed(uint32_t number, uint8_t protocol)
{
	struct frame *frame = out + out_count;
	memcpy(frame->ether.ether_dhost, gateway, 6);
	memcpy(frame->ether.ether_shost, mac, 6);
	frame->ip.saddr = htonl(FIRST_ADDRESS + number / PORTS);
	frame->ip.daddr = vip;
	frame->ip.protocol = protocol;
	frame->udp.source = htons(1024 + number % PORTS);
	frame->udp.dest = port;
	return frame;
}

/* The connection that a frame is for; none if it is no answer to one of ours. */
static struct connection *find(const struct frame *frame, uint32_t *number)
{
	uint32_t address = ntohl(frame->ip.daddr) - FIRST_ADDRESS, source = ntohs(frame->udp.dest);
	if (frame->ip.saddr != vip || frame->udp.source != port || source < 1024)
		return NULL;
	*number = address * PORTS + source - 1024;
	return address < 0x10000 && *number < connections_max ? connections + *number : NULL;
}

/* Sends what a connection is to say at its stage, for the first time or again. */
static void say(uint32_t number)
{
	struct connection *one = connections + number;
	struct frame *frame = addressed(number, IPPROTO_TCP);
	bool request = one->stage == WAITING;

	set_tcp(frame, one->seq, one->ack, one->stage == SYN_SENT, one->stage == FIN_SENT);
	memset(frame->payload, 'q', request ? REQUEST : 0);
	one->at = clock_ns + AGAIN_NS;
	totals.sent++;
	send_frame(frame, sizeof(frame->tcp), request ? REQUEST : 0);
}

static void end(struct connection *one, uint64_t *why)
{
	one->stage = DONE;
	(*why)++;
}

static void on_segment(const struct frame *frame)
{
	uint32_t number;
	struct connection *one = find(frame, &number);
	const struct tcphdr *tcp = &frame->tcp;

	if (!one || frame->ip.protocol != IPPROTO_TCP || one->stage == UNUSED || one->stage == DONE)
		return;
	if (tcp->rst)
		return end(one, &totals.reset);
	uint32_t acked = ntohl(tcp->ack_seq), bytes = payload_of(frame);
	if (one->stage == SYN_SENT && tcp->syn && acked == one->seq + 1) {
		one->seq = acked;
		one->ack = ntohl(tcp->seq) + 1;
		one->stage = WAITING;
	} else if (one->stage == WAITING && bytes && acked == one->seq + REQUEST) {
		one->seq = acked;
		one->ack = ntohl(tcp->seq) + bytes;
		one->stage = THINKING;
		one->at = clock_ns + think_ns;
		one->rounds++;
		totals.answered++;
		if (think_ns)
			return;
		one->stage = one->rounds < rounds_wanted ? WAITING : FIN_SENT;
	} else if (one->stage == FIN_SENT && tcp->fin && acked == one->seq + 1) {
		one->seq++;
		one->ack = ntohl(tcp->seq) + 1;
		end(one, &totals.completed);
	} else {
		return;
	}
	one->tries = 0;
	say(number);
}

/* What is due of a connection: to think on, or to send again. */
static void tick(uint32_t number)
{
	struct connection *one = connections + number;
	if (one->at > clock_ns || one->stage == DONE || one->stage == UNUSED)
		return;
	if (one->stage == THINKING) {
		one->stage = one->rounds < rounds_wanted ? WAITING : FIN_SENT;
		one->tries = 0;
	} else if (++one->tries > TRIES) {
		return end(one, &totals.failed);
	} else {
		totals.again++;
	}
	say(number);
}

static void run_tcp(uint32_t rate, uint32_t seconds)
{
	uint64_t begin = now_ns(), scanned = 0, until = seconds * 1000000000ull, due = 0;
	uint32_t first = 0;

	for (;;) {
		clock_ns = now_ns();
		uint64_t passed = clock_ns - begin;
		uint64_t ended = totals.completed + totals.failed + totals.reset;
		if (passed < until)
			due = rate * passed / 1000000000ull;
		else
			due = totals.opened;
		if (due > ended + WINDOW)
			due = ended + WINDOW;
		/* Bounded, so that answers are not kept waiting. */
		for (int burst = 0; totals.opened < due && burst < BATCH; burst++) {
			struct connection *one = connections + totals.opened;
			one->stage = SYN_SENT;
			one->seq = (uint32_t)totals.opened * 7919u + 1;
			say(totals.opened++);
		}
		flush();
		receive(totals.opened < due ? 0 : 1, on_segment);
		if (clock_ns - scanned < MS)
			continue;
		scanned = clock_ns;
		while (first < totals.opened && connections[first].stage == DONE)
			first++;
		for (uint32_t number = first; number < totals.opened; number++)
			tick(number);
		if (stopping || (passed >= until && first == totals.opened))
			break;
	}
	double took = (now_ns() - begin) / 1e9;
	printf("{\"opened\": %lu, \"completed\": %lu, \"failed\": %lu, \"reset\": %lu, \"again\": %lu, "
	       "\"sent\": %lu, \"answered\": %lu, \"seconds\": %.3f}\n", totals.opened, totals.completed,
	       totals.failed, totals.reset, totals.again, totals.sent, totals.answered, took);
}

static void on_datagram(const struct frame *frame)
{
	uint32_t number;
	struct connection *one = find(frame, &number);
	if (!one || frame->ip.protocol != IPPROTO_UDP)
		return;
	one->at = clock_ns;
	totals.answered++;
}

static void run_udp(uint32_t period_ms, uint32_t seconds)
{
	uint64_t begin = now_ns(), until = seconds * 1000000000ull, period_ns = period_ms * MS;
	uint32_t silent = 0, never = 0;

	for (clock_ns = begin; !stopping && clock_ns - begin < until + period_ns; clock_ns = now_ns()) {
		uint64_t passed = clock_ns - begin < until ? clock_ns - begin : until;
		uint64_t due = passed * connections_max / period_ns;
		for (int burst = 0; totals.sent < due && burst < BATCH; burst++) {
			struct frame *frame = addressed(totals.sent++ * STRIDE % connections_max, IPPROTO_UDP);
			memset(frame->payload, 'd', REQUEST);
			send_frame(frame, sizeof(frame->udp), REQUEST);
		}
		flush();
		receive(totals.sent < due ? 0 : 1, on_datagram);
	}
	for (uint32_t number = 0; number < connections_max; number++) {
		never += connections[number].at == 0;
		silent += connections[number].at + 3 * period_ns < clock_ns;
	}
	printf("{\"flows\": %u, \"sent\": %lu, \"answered\": %lu, \"never\": %u, \"silent\": %u, \"seconds\": %.3f}\n",
	       connections_max, totals.sent, totals.answered, never, silent, (now_ns() - begin) / 1e9);
}

static void make_connections(uint64_t number)
{
	connections_max = number;
	connections = calloc(number, sizeof(*connections));
	if (!connections)
		fail("memory");
}

static void read_target(char **argv)
{
	unsigned bytes[6];
	if (sscanf(argv[0], "%x:%x:%x:%x:%x:%x", bytes, bytes + 1, bytes + 2, bytes + 3, bytes + 4, bytes + 5) != 6 ||
	    inet_pton(AF_INET, argv[1], &vip) != 1) {
		fprintf(stderr, "traffic: not a MAC and an IPv4 address: %s %s\n", argv[0], argv[1]);
		exit(2);
	}
	for (int at = 0; at < 6; at++)
		gateway[at] = bytes[at];
	port = htons(atoi(argv[2]));
}

int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[1] : "";
	struct sigaction action = {.sa_handler = on_signal};

	for (unsigned at = 0; at < BATCH; at++) {
		out_vec[at].iov_base = &out[at].ether;
		out_messages[at].msg_hdr = (struct msghdr){.msg_iov = out_vec + at, .msg_iovlen = 1};
	}
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (!strcmp(mode, "serve") && argc == 4) {
		open_socket(argv[2]);
		port = htons(atoi(argv[3]));
		serve();
	} else if (!strcmp(mode, "tcp") && argc == 10) {
		open_socket(argv[2]);
		read_target(argv + 3);
		make_connections((uint64_t)atoi(argv[6]) * atoi(argv[7]));
		rounds_wanted = atoi(argv[8]);
		think_ns = atoi(argv[9]) * MS;
		run_tcp(atoi(argv[6]), atoi(argv[7]));
	} else if (!strcmp(mode, "udp") && argc == 9) {
		open_socket(argv[2]);
		read_target(argv + 3);
		make_connections(atoi(argv[6]));
		run_udp(atoi(argv[7]), atoi(argv[8]));
	} else {
		fprintf(stderr, "usage: see the head of traffic.c\n");
		return 2;
	}
	return 0;
}
