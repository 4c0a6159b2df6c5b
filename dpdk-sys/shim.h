/* DPDK as Rust can call it: its static inlines and macros given a name, and the few structures whose
 * shape differs between releases given one that does not. */

#ifndef MILLRACE_DPDK_SHIM_H
#define MILLRACE_DPDK_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include "flow.h"
#include "meter.h"

/* Macros that are expressions, and would otherwise stay invisible. */

static const uint64_t MILLRACE_MBUF_F_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t MILLRACE_MBUF_F_INDIRECT = RTE_MBUF_F_INDIRECT;
static const uint64_t MILLRACE_MBUF_F_EXTERNAL = RTE_MBUF_F_EXTERNAL;
static const uint64_t MILLRACE_TX_OFFLOAD_MBUF_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
static const uint64_t MILLRACE_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t MILLRACE_DEV_NO_OWNER = RTE_ETH_DEV_NO_OWNER;
static const uint16_t MILLRACE_SWITCH_DOMAIN_NONE = RTE_ETH_DEV_SWITCH_DOMAIN_ID_INVALID;
static const uint16_t MILLRACE_RETA_GROUP_SIZE = RTE_ETH_RETA_GROUP_SIZE;

/* Everything that is hashed by its IP addresses alone: no type with ports, which some drivers would
 * then mix into the hash. */
static const uint64_t MILLRACE_RSS_IP =
	RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER |
	RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER |
	RTE_ETH_RSS_IPV6_EX;

/* The first cache line of struct rte_mbuf. Named here because the unions around these fields come and
 * go between releases while the fields stay where they are: shim.c asserts that they do. */
struct millrace_mbuf_head {
	void *buf_addr;
	uint64_t iova_or_next;
	uint16_t data_off;
	uint16_t refcnt;
	uint16_t nb_segs;
	uint16_t port;
	uint64_t ol_flags;
	uint32_t packet_type;
	uint32_t pkt_len;
	uint16_t data_len;
	uint16_t vlan_tci;
	uint32_t rss_hash;
	uint32_t hash_high;
	uint16_t vlan_tci_outer;
	uint16_t buf_len;
	struct rte_mempool *pool;
};

/* struct rte_eth_link, without its bit fields. */
struct millrace_link {
	uint32_t speed_mbps; /* UINT32_MAX where unknown */
	bool full_duplex;
	bool up;
};

/* rte_eal_init(), after which the calling thread has the CPU affinity it had before, and no thread of
 * EAL's takes the process's signals. */
int millrace_eal_init(int argc, char **argv);

int millrace_errno(void);

/* RTE_ETH_RSS_L3_SRC_ONLY and its counterpart, or zero where the headers do not know them: then no
 * device can be asked for them. Functions, because constants with the top bit set are not bound. */
uint64_t millrace_rss_l3_src_only(void);
uint64_t millrace_rss_l3_dst_only(void);

/* The release that is linked, "DPDK 22.11.11". */
const char *millrace_version(void);

bool millrace_thread_is_registered(void);
uint64_t millrace_rdtsc(void);

uint16_t millrace_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t millrace_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

struct rte_mbuf *millrace_pktmbuf_alloc(struct rte_mempool *pool);
int millrace_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count);
void millrace_pktmbuf_free(struct rte_mbuf *packet);

int millrace_link_get(uint16_t port, struct millrace_link *link);

/* rte_hash_create for one thread, on any socket, hashing with rte_hash_crc or else rte_jhash. */
struct rte_hash *millrace_hash_create(const char *name, uint32_t entries, uint32_t key_bytes, bool crc);

#endif
