/* See shim.h. Each function here is one that DPDK's headers inline, or a structure copied field by
 * field; nothing decides anything. */

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>

#include <rte_hash_crc.h>
#include <rte_jhash.h>

#include "shim.h"

#define SAME_PLACE(theirs, ours) \
	static_assert(offsetof(struct rte_mbuf, theirs) == offsetof(struct millrace_mbuf_head, ours) && \
		      sizeof(((struct rte_mbuf *)0)->theirs) == sizeof(((struct millrace_mbuf_head *)0)->ours), \
		      "struct rte_mbuf has moved " #theirs)

SAME_PLACE(buf_addr, buf_addr);
SAME_PLACE(data_off, data_off);
SAME_PLACE(refcnt, refcnt);
SAME_PLACE(nb_segs, nb_segs);
SAME_PLACE(port, port);
SAME_PLACE(ol_flags, ol_flags);
SAME_PLACE(packet_type, packet_type);
SAME_PLACE(pkt_len, pkt_len);
SAME_PLACE(data_len, data_len);
SAME_PLACE(vlan_tci, vlan_tci);
SAME_PLACE(hash.rss, rss_hash);
SAME_PLACE(vlan_tci_outer, vlan_tci_outer);
SAME_PLACE(buf_len, buf_len);
SAME_PLACE(pool, pool);

int millrace_eal_init(int argc, char **argv)
{
	cpu_set_t affinity;
	sigset_t all, before;

	/* Threads inherit the mask of the thread that starts them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int known = pthread_getaffinity_np(pthread_self(), sizeof(affinity), &affinity) == 0;

	int ret = rte_eal_init(argc, argv);

	if (known)
		pthread_setaffinity_np(pthread_self(), sizeof(affinity), &affinity);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ret;
}

int millrace_errno(void)
{
	return rte_errno;
}

uint64_t millrace_rss_l3_src_only(void)
{
#ifdef RTE_ETH_RSS_L3_SRC_ONLY
	return RTE_ETH_RSS_L3_SRC_ONLY;
#else
	return 0;
#endif
}

uint64_t millrace_rss_l3_dst_only(void)
{
#ifdef RTE_ETH_RSS_L3_DST_ONLY
	return RTE_ETH_RSS_L3_DST_ONLY;
#else
	return 0;
#endif
}

const char *millrace_version(void)
{
	return rte_version();
}

bool millrace_thread_is_registered(void)
{
	return rte_lcore_id() != LCORE_ID_ANY;
}

uint64_t millrace_rdtsc(void)
{
	return rte_rdtsc();
}

uint16_t millrace_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t millrace_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

struct rte_mbuf *millrace_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int millrace_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, packets, count);
}

void millrace_pktmbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

int millrace_link_get(uint16_t port, struct millrace_link *link)
{
	struct rte_eth_link theirs = {0};
	int ret = rte_eth_link_get_nowait(port, &theirs);

	if (ret != 0)
		return ret;
	link->speed_mbps = theirs.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? UINT32_MAX : theirs.link_speed;
	link->full_duplex = theirs.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	link->up = theirs.link_status == RTE_ETH_LINK_UP;
	return 0;
}

struct rte_hash *millrace_hash_create(const char *name, uint32_t entries, uint32_t key_bytes, bool crc)
{
	struct rte_hash_parameters parameters = {
		.name = name,
		.entries = entries,
		.key_len = key_bytes,
		.hash_func = crc ? rte_hash_crc : rte_jhash,
		.socket_id = SOCKET_ID_ANY,
	};

	return rte_hash_create(&parameters);
}
