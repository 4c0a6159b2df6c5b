/* What the driver sees of DPDK: the driver-side headers, and functions for what they only inline. */
#ifndef ESWITCH_SHIM_H
#define ESWITCH_SHIM_H

#include <rte_alarm.h>
#include <rte_common.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_flow_driver.h>
#include <rte_kvargs.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mtr.h>
#include <rte_mtr_driver.h>
#include <rte_service.h>
#include <rte_service_component.h>
#include <rte_telemetry.h>
#include <bus_vdev_driver.h>
#include <ethdev_driver.h>
#include <ethdev_vdev.h>

/* Macros that no binding generator evaluates. */
static const uint32_t ESWITCH_DEV_REPRESENTOR = RTE_ETH_DEV_REPRESENTOR;
static const uint32_t ESWITCH_DEV_INTR_LSC = RTE_ETH_DEV_INTR_LSC;
static const uint32_t ESWITCH_DEV_FLOW_OPS_THREAD_SAFE = RTE_ETH_DEV_FLOW_OPS_THREAD_SAFE;
static const uint32_t ESWITCH_DEV_AUTOFILL_QUEUE_XSTATS = RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS;
static const uint64_t ESWITCH_TX_OFFLOADS = RTE_ETH_TX_OFFLOAD_VLAN_INSERT | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
	RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t ESWITCH_RSS_TYPES = RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP;
static const uint64_t ESWITCH_RX_FDIR = RTE_MBUF_F_RX_FDIR;
static const uint64_t ESWITCH_RX_FDIR_ID = RTE_MBUF_F_RX_FDIR_ID;
static const uint64_t ESWITCH_RX_METADATA = RTE_ETH_RX_METADATA_USER_FLAG | RTE_ETH_RX_METADATA_USER_MARK;
static const uint32_t ESWITCH_LOG_ERR = RTE_LOG_ERR;
static const uint32_t ESWITCH_LOG_WARNING = RTE_LOG_WARNING;
static const uint32_t ESWITCH_LOG_NOTICE = RTE_LOG_NOTICE;
static const uint32_t ESWITCH_LOG_INFO = RTE_LOG_INFO;
static const uint32_t ESWITCH_LOG_DEBUG = RTE_LOG_DEBUG;

struct rte_ring;

uint64_t eswitch_tsc(void);
int eswitch_errno(void);
void eswitch_set_errno(int value);
void eswitch_log(uint32_t level, const char *text);

const char *eswitch_vdev_name(const struct rte_vdev_device *device);
const char *eswitch_vdev_args(const struct rte_vdev_device *device);
const char *eswitch_port_name(uint16_t port);
const struct eth_dev_ops *eswitch_port_ops(uint16_t port);
int eswitch_port_address(uint16_t port, struct rte_ether_addr *address);
/* 0 if it went up or down, negative if it is as it was. */
int eswitch_set_link(struct rte_eth_dev *device, const struct rte_eth_link *link);

uint16_t eswitch_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t eswitch_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

struct rte_ring *eswitch_ring_new(const char *name, unsigned int count, int socket);
void eswitch_ring_free(struct rte_ring *ring);
unsigned int eswitch_ring_enqueue(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count);
unsigned int eswitch_ring_dequeue(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count);
unsigned int eswitch_ring_count(const struct rte_ring *ring);
unsigned int eswitch_ring_room(const struct rte_ring *ring);

void eswitch_mbuf_free(struct rte_mbuf *packet);
struct rte_mbuf *eswitch_mbuf_alloc(struct rte_mempool *pool);
/* The packet as one unshared segment: itself, or a copy in its place. NULL, and freed, without a buffer. */
struct rte_mbuf *eswitch_mbuf_own(struct rte_mbuf *packet, struct rte_mempool *pool);
/* As above, after doing in software what its Tx flags ask for. */
struct rte_mbuf *eswitch_mbuf_prepare(struct rte_mbuf *packet, struct rte_mempool *pool);
/* The packet type as rte_net finds it; 0 for a frame that is scattered. */
uint32_t eswitch_mbuf_type(const struct rte_mbuf *packet);
/* Metadata for the application, if it registered the field. */
void eswitch_mbuf_set_metadata(struct rte_mbuf *packet, uint32_t metadata);

uint16_t eswitch_pool_private_size(struct rte_mempool *pool);
uint16_t eswitch_pool_data_room(struct rte_mempool *pool);
int eswitch_pool_is_full(const struct rte_mempool *pool);

#endif
