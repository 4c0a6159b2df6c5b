#include "shim.h"

#include <rte_cycles.h>
#include <rte_ring.h>

RTE_LOG_REGISTER(traffic_logtype, pmd.net.traffic, NOTICE);

uint64_t traffic_tsc(void)
{
	return rte_rdtsc();
}

void traffic_log(uint32_t level, const char *text)
{
	rte_log(level, traffic_logtype, "net_traffic: %s\n", text);
}

const char *traffic_vdev_name(const struct rte_vdev_device *device)
{
	return rte_vdev_device_name(device);
}

const char *traffic_vdev_args(const struct rte_vdev_device *device)
{
	return rte_vdev_device_args(device);
}

void traffic_set_link(struct rte_eth_dev *device, const struct rte_eth_link *link)
{
	rte_eth_linkstatus_set(device, link);
}

/* The four fields from data_off on, which drivers write as one word. */
static inline uint64_t rearm_word(uint16_t port)
{
	struct rte_mbuf like;

	memset(&like, 0, sizeof(like));
	like.data_off = RTE_PKTMBUF_HEADROOM;
	rte_mbuf_refcnt_set(&like, 1);
	like.nb_segs = 1;
	like.port = port;
	rte_compiler_barrier();
	return *(const uint64_t *)&like.rearm_data;
}

static inline void prepare(struct rte_mbuf *packet, uint64_t rearm, uint32_t type)
{
	*(uint64_t *)&packet->rearm_data = rearm;
	packet->ol_flags = 0;
	packet->packet_type = type;
}

int traffic_alloc(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count, uint16_t port,
		  uint32_t type)
{
	const uint64_t rearm = rearm_word(port);
	unsigned int i;

	if (unlikely(rte_mempool_get_bulk(pool, (void **)packets, count) != 0))
		return 0;
	for (i = 0; i < count; i++)
		prepare(packets[i], rearm, type);
	return 1;
}

uint16_t traffic_room(struct rte_mempool *pool)
{
	const uint16_t size = rte_pktmbuf_data_room_size(pool);

	return size < RTE_PKTMBUF_HEADROOM ? 0 : size - RTE_PKTMBUF_HEADROOM;
}

/* Of one segment, with a buffer of its own that nobody else holds: it goes back to its pool as it is. */
static inline int is_simple(const struct rte_mbuf *packet)
{
	/* Both counts at once: they are neighbours. */
	uint32_t counts;

	RTE_BUILD_BUG_ON(offsetof(struct rte_mbuf, nb_segs) != offsetof(struct rte_mbuf, refcnt) + 2);
	memcpy(&counts, &packet->refcnt, sizeof(counts));
	return counts == 0x00010001 && RTE_MBUF_DIRECT(packet);
}

uint64_t traffic_free(struct rte_mbuf **packets, unsigned int count)
{
	struct rte_mempool *pool = NULL;
	unsigned int i, first = 0;
	uint64_t bytes = 0;

	for (i = 0; i < count; i++) {
		struct rte_mbuf *packet = packets[i];

		bytes += packet->pkt_len;
		if (likely(is_simple(packet) && packet->pool == pool))
			continue;
		if (i > first)
			rte_mempool_put_bulk(pool, (void **)&packets[first], i - first);
		first = i;
		pool = packet->pool;
		if (!is_simple(packet)) {
			rte_pktmbuf_free(packet);
			first = i + 1;
			pool = NULL;
		}
	}
	if (count > first)
		rte_mempool_put_bulk(pool, (void **)&packets[first], count - first);
	return bytes;
}

uint8_t *traffic_frame(struct rte_mbuf *packet, uint32_t *length)
{
	*length = packet->data_len;
	return packet->nb_segs == 1 ? rte_pktmbuf_mtod(packet, uint8_t *) : NULL;
}

int traffic_is_own(const struct rte_mbuf *packet)
{
	return is_simple(packet);
}

void traffic_turn(struct rte_mbuf *packet, uint16_t port, uint32_t type, uint16_t length)
{
	const uint16_t offset = packet->data_off;

	prepare(packet, rearm_word(port), type);
	packet->data_off = offset;
	packet->pkt_len = length;
	packet->data_len = length;
	packet->tx_offload = 0;
}

/* Not rte_ring_create(): that would need a name that no other ring has, and a memzone. */
struct rte_ring *traffic_ring_new(unsigned int count, int socket)
{
	const ssize_t size = rte_ring_get_memsize(count);
	struct rte_ring *ring = size < 0 ? NULL : rte_zmalloc_socket("traffic", size, RTE_CACHE_LINE_SIZE, socket);

	if (ring != NULL && rte_ring_init(ring, "traffic", count, RING_F_SC_DEQ) != 0) {
		rte_free(ring);
		ring = NULL;
	}
	return ring;
}

void traffic_ring_empty(struct rte_ring *ring)
{
	struct rte_mbuf *packet;

	while (rte_ring_sc_dequeue(ring, (void **)&packet) == 0)
		rte_pktmbuf_free(packet);
}

void traffic_ring_free(struct rte_ring *ring)
{
	traffic_ring_empty(ring);
	rte_free(ring);
}

int traffic_ring_put(struct rte_ring *ring, struct rte_mbuf *packet)
{
	return rte_ring_mp_enqueue(ring, packet) == 0;
}

unsigned int traffic_ring_take(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)packets, count, NULL);
}
