/* Datagrams from clients to backends, with the time of each at both ends: latency and loss packet by packet.
 *
 *     probe OUT CLIENT BACKEND... -- STREAM...
 *
 * CLIENT and BACKENDs are NAMESPACE/INTERFACE: sockets are opened in these namespaces, all by this one process, so
 * that both ends have one clock and no other program's turn is waited for. The client's is followed by the MAC address
 * that it sends to: NAMESPACE/INTERFACE/MAC. A STREAM is
 *
 *     VIP:PORT:FIRST:FLOWS:EACH:RATE:FROM_MS:TO_MS
 *
 * RATE datagrams a second from FROM_MS to TO_MS after the beginning; EACH of a flow one after the other, then the next
 * flow's, FLOWS in a ring. Flows are ports of the client's address FIRST, and of those that follow. A backend answers a
 * flow's first datagram and few of the others, so that it is a connection; nobody looks at answers.
 *
 * When it begins it says "begin NANOSECONDS" (CLOCK_REALTIME). At the end it writes one record for each datagram to
 * OUT, and says as JSON how many there were. A datagram is late from before the system call that sends it until Linux
 * has it at the backend's interface (SO_TIMESTAMPNS): who reads it when does not matter.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x6d696c6cu
#define PORTS 50000u /* clients' ports for each of their addresses, from 1024 on */
#define ENDS 9
#define STREAMS 8
#define BATCH 64
#define TICK_NS 50000ull
#define READ_EACH 8 /* turns: short ones keep others of this core waiting less, and whom these keep waiting */
#define MS 1000000ull
#define DEBT 512 /* datagrams that a late sender still sends at once; the rest of what is due is never sent */
#define DRAIN_MS 500
#define ANSWER_EACH 64 /* datagrams of a flow at a backend */

struct payload {
	uint32_t magic, number;
	uint8_t rest[24];
};

struct frame {
	uint16_t align; /* so that all headers are; not sent */
	struct ether_header ether;
	struct iphdr ip;
	struct udphdr udp;
	struct payload payload;
};

struct record {
	uint64_t sent_ns, came_ns; /* CLOCK_REALTIME; 0: it did not come */
	uint32_t flow;
	uint8_t stream, backend; /* both from 1 */
	uint16_t again; /* how often it came but for the first time */
};

struct stream {
	uint32_t vip, first, flows, each, rate;
	uint16_t port;
	uint64_t from_ns, to_ns, sent, skipped;
	struct answered *answered; /* of each flow */
};

struct answered {
	uint8_t backend, count;
};

static int sockets[ENDS];
static unsigned ends;
static uint8_t mac[6], gateway[6];
static struct stream streams[STREAMS];
static unsigned stream_count;
static struct record *records;
static uint64_t record_count, records_max;
static struct frame out[BATCH];
static struct iovec out_vec[BATCH];
static struct mmsghdr out_messages[BATCH];
static unsigned out_count;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
	struct timespec at;
	clock_gettime(clock, &at);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

/* A socket at NAMESPACE/INTERFACE[/MAC]. */
static void open_end(char *end)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET};
	char *interface = strchr(end, '/'), path[256];
	socklen_t length = sizeof(address);
	int on = 1, bytes = 64 << 20;
	unsigned to[6];

	if (!interface)
		fail(end);
	*interface++ = 0;
	char *target = strchr(interface, '/');
	if (target)
		*target++ = 0;
	snprintf(path, sizeof(path), "/run/netns/%s", end);
	int netns = open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0 || setns(netns, CLONE_NEWNET) != 0)
		fail(path);
	close(netns);
	/* The client's end receives nothing. */
	int protocol = target ? 0 : htons(ETH_P_IP);
	int sock = socket(AF_PACKET, SOCK_RAW, protocol);
	address.sll_protocol = protocol;
	address.sll_ifindex = if_nametoindex(interface);
	if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail(interface);
	setsockopt(sock, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
	setsockopt(sock, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
	setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	setsockopt(sock, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
	if (target) {
		if (getsockname(sock, (struct sockaddr *)&address, &length) != 0)
			fail("getsockname");
		memcpy(mac, address.sll_addr, sizeof(mac));
		if (sscanf(target, "%x:%x:%x:%x:%x:%x", to, to + 1, to + 2, to + 3, to + 4, to + 5) != 6)
			fail(target);
		for (int at = 0; at < 6; at++)
			gateway[at] = to[at];
	}
	sockets[ends++] = sock;
}

static void read_stream(const char *text)
{
	struct stream *stream = streams + stream_count++;
	unsigned port, from_ms, to_ms;
	char vip[20], first[20];

	if (sscanf(text, "%19[^:]:%u:%19[^:]:%u:%u:%u:%u:%u", vip, &port, first, &stream->flows, &stream->each,
		   &stream->rate, &from_ms, &to_ms) != 8 || inet_pton(AF_INET, vip, &stream->vip) != 1 ||
	    inet_pton(AF_INET, first, &stream->first) != 1 || !stream->flows || !stream->each) {
		fprintf(stderr, "probe: no stream: %s\n", text);
		exit(2);
	}
	stream->answered = calloc(stream->flows, sizeof(*stream->answered));
	if (!stream->answered)
		fail("memory");
	stream->port = htons(port);
	stream->from_ns = from_ms * MS;
	stream->to_ns = to_ms * MS;
	records_max += (uint64_t)stream->rate * (to_ms - from_ms) / 1000 + 1;
}

static uint32_t sum(const void *data, unsigned bytes, uint32_t total)
{
	const uint8_t *at = data;
	for (; bytes > 1; bytes -= 2, at += 2)
		total += at[0] << 8 | at[1];
	return total;
}

static uint16_t fold(uint32_t total)
{
	total = (total & 0xffff) + (total >> 16);
	return htons(~((total & 0xffff) + (total >> 16)));
}

static void flush(void)
{
	unsigned done = 0;
	while (done < out_count) {
		/* Each has its own time: those before it in the batch are not its delay. */
		records[ntohl(out[done].payload.number)].sent_ns = now_ns(CLOCK_REALTIME);
		sendmmsg(sockets[0], out_messages + done, 1, 0);
		done++;
	}
	out_count = 0;
}

static void send_one(unsigned number)
{
	struct stream *stream = streams + number;
	uint32_t flow = stream->sent++ / stream->each % stream->flows, segment = sizeof(struct udphdr) + sizeof(struct payload);
	struct frame *frame = out + out_count;
	struct record *record = records + record_count;

	*record = (struct record){.flow = flow, .stream = number + 1};
	memset(frame, 0, sizeof(*frame));
	memcpy(frame->ether.ether_dhost, gateway, 6);
	memcpy(frame->ether.ether_shost, mac, 6);
	frame->ether.ether_type = htons(ETH_P_IP);
	frame->ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .frag_off = htons(IP_DF),
		.tot_len = htons(sizeof(struct iphdr) + segment), .daddr = stream->vip,
		.saddr = htonl(ntohl(stream->first) + flow / PORTS)};
	frame->ip.check = fold(sum(&frame->ip, sizeof(frame->ip), 0));
	frame->udp = (struct udphdr){.source = htons(1024 + flow % PORTS), .dest = stream->port, .len = htons(segment)};
	frame->payload.magic = htonl(MAGIC);
	frame->payload.number = htonl(record_count++);
	frame->udp.check = fold(sum(&frame->udp, segment, sum(&frame->ip.saddr, 8, IPPROTO_UDP + segment)));
	if (++out_count == BATCH)
		flush();
}

static void send_due(uint64_t passed)
{
	for (unsigned number = 0; number < stream_count; number++) {
		struct stream *stream = streams + number;
		if (passed < stream->from_ns)
			continue;
		uint64_t until = passed < stream->to_ns ? passed : stream->to_ns;
		uint64_t due = (until - stream->from_ns) * stream->rate / 1000000000ull - stream->sent - stream->skipped;
		if (due > DEBT) {
			stream->skipped += due - DEBT;
			due = DEBT;
		}
		while (due--)
			send_one(number);
	}
	flush();
}

/* Sends a datagram back to where it came from; its checksums stay right. */
static void answer(const struct frame *frame, unsigned backend)
{
	struct frame back = *frame;
	memcpy(back.ether.ether_dhost, frame->ether.ether_shost, 6);
	memcpy(back.ether.ether_shost, frame->ether.ether_dhost, 6);
	back.ip.saddr = frame->ip.daddr;
	back.ip.daddr = frame->ip.saddr;
	back.udp.source = frame->udp.dest;
	back.udp.dest = frame->udp.source;
	/* What finds no room is answered later. */
	if (send(sockets[backend], &back.ether, sizeof(back) - sizeof(back.align), MSG_DONTWAIT) < 0)
		return;
}

static void note(const struct frame *frame, const struct msghdr *message, unsigned backend)
{
	const struct sockaddr_ll *from = message->msg_name;
	struct timespec at = {0};
	uint32_t number = ntohl(frame->payload.number);

	/* What a bridge floods is not this backend's. */
	if (from->sll_pkttype != PACKET_HOST || frame->ip.protocol != IPPROTO_UDP || frame->ip.ihl != 5 ||
	    frame->payload.magic != htonl(MAGIC) || number >= record_count)
		return;
	for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR((struct msghdr *)message, one)) {
		if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_TIMESTAMPNS)
			memcpy(&at, CMSG_DATA(one), sizeof(at));
	}
	struct record *record = records + number;
	if (record->came_ns) {
		record->again++;
		return;
	}
	record->came_ns = at.tv_sec * 1000000000ull + at.tv_nsec;
	record->backend = backend;
	struct answered *answered = streams[record->stream - 1].answered + record->flow;
	if (answered->backend != backend || ++answered->count % ANSWER_EACH == 0) {
		answered->backend = backend;
		answer(frame, backend);
	}
}

static void receive(void)
{
	static struct frame in[BATCH];
	static struct iovec vec[BATCH];
	static struct mmsghdr messages[BATCH];
	static struct sockaddr_ll from[BATCH];
	static uint8_t control[BATCH][64];
	int count;

	for (unsigned end = 1; end < ends; end++) {
		do {
			for (unsigned at = 0; at < BATCH; at++) {
				vec[at] = (struct iovec){&in[at].ether, sizeof(in[at]) - sizeof(in[at].align)};
				messages[at].msg_hdr = (struct msghdr){.msg_iov = vec + at, .msg_iovlen = 1, .msg_name = from + at,
					.msg_namelen = sizeof(*from), .msg_control = control[at], .msg_controllen = sizeof(*control)};
			}
			/* An interface that is down says so once; it may come up again. */
			count = recvmmsg(sockets[end], messages, BATCH, MSG_DONTWAIT, NULL);
			for (int at = 0; at < count; at++) {
				if (messages[at].msg_len >= sizeof(*in) - sizeof(in->align))
					note(in + at, &messages[at].msg_hdr, end);
			}
		} while (count == BATCH);
	}
}

static void run(void)
{
	uint64_t end = 0, begin, next;
	unsigned turn = 0;

	for (unsigned number = 0; number < stream_count; number++)
		end = streams[number].to_ns > end ? streams[number].to_ns : end;
	printf("begin %lu\n", now_ns(CLOCK_REALTIME));
	fflush(stdout);
	begin = next = now_ns(CLOCK_MONOTONIC);
	while (next < begin + end + DRAIN_MS * MS) {
		struct timespec at = {next / 1000000000ull, next % 1000000000ull};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		uint64_t now = now_ns(CLOCK_MONOTONIC);
		send_due(now - begin);
		if (++turn % READ_EACH == 0)
			receive();
		next += TICK_NS;
		/* Who is late does not hurry: each turn sends all that is due. */
		if (next < now)
			next = now;
	}
}

int main(int argc, char **argv)
{
	int at = 2;

	for (; at < argc && strcmp(argv[at], "--") && ends < ENDS; at++)
		open_end(argv[at]);
	for (at++; at < argc && stream_count < STREAMS; at++)
		read_stream(argv[at]);
	if (ends < 2 || !stream_count) {
		fprintf(stderr, "usage: see the head of probe.c\n");
		return 2;
	}
	records = calloc(records_max, sizeof(*records));
	if (!records || mlockall(MCL_CURRENT) != 0)
		fail("memory");
	for (unsigned number = 0; number < BATCH; number++) {
		out_vec[number] = (struct iovec){&out[number].ether, sizeof(*out) - sizeof(out->align)};
		out_messages[number].msg_hdr = (struct msghdr){.msg_iov = out_vec + number, .msg_iovlen = 1};
	}
	run();
	FILE *file = fopen(argv[1], "wb");
	if (!file || fwrite(records, sizeof(*records), record_count, file) != record_count || fclose(file) != 0)
		fail(argv[1]);
	uint64_t skipped = 0;
	for (unsigned number = 0; number < stream_count; number++)
		skipped += streams[number].skipped;
	printf("{\"sent\": %lu, \"skipped\": %lu}\n", record_count, skipped);
	return 0;
}
