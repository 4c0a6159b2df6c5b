/* What the driver sees of DPDK: the driver-side headers, and functions for what they only inline. */
#ifndef TRAFFIC_SHIM_H
#define TRAFFIC_SHIM_H

#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <bus_vdev_driver.h>
#include <ethdev_driver.h>

/* Macros that no binding generator evaluates. */
static const uint32_t TRAFFIC_AUTOFILL_QUEUE_XSTATS = RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS;
static const uint32_t TRAFFIC_SPEED_CAPA = RTE_ETH_LINK_SPEED_100G;
static const uint32_t TRAFFIC_SPEED = RTE_ETH_SPEED_NUM_100G;
static const uint32_t TRAFFIC_LOG_ERR = RTE_LOG_ERR;
static const uint32_t TRAFFIC_LOG_NOTICE = RTE_LOG_NOTICE;

struct rte_ring;

uint64_t traffic_tsc(void);
void traffic_log(uint32_t level, const char *text);
const char *traffic_vdev_name(const struct rte_vdev_device *device);
const char *traffic_vdev_args(const struct rte_vdev_device *device);
void traffic_set_link(struct rte_eth_dev *device, const struct rte_eth_link *link);

/* As received from a NIC, but for their lengths. All or, returning 0, none. */
int traffic_alloc(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count, uint16_t port,
		  uint32_t type);
/* Bytes of a packet's buffer behind the headroom. */
uint16_t traffic_room(struct rte_mempool *pool);
/* Frees packets; returns how many bytes they had. */
uint64_t traffic_free(struct rte_mbuf **packets, unsigned int count);
/* A frame of one segment and its length; NULL for any other. */
uint8_t *traffic_frame(struct rte_mbuf *packet, uint32_t *length);
/* Whether nobody else holds it. */
int traffic_is_own(const struct rte_mbuf *packet);
/* A packet of one segment that was sent becomes one that is received. */
void traffic_turn(struct rte_mbuf *packet, uint16_t port, uint32_t type, uint16_t length);

struct rte_ring *traffic_ring_new(unsigned int count, int socket);
/* Frees it and what is in it. */
void traffic_ring_free(struct rte_ring *ring);
void traffic_ring_empty(struct rte_ring *ring);
/* Any thread; whether there was room. */
int traffic_ring_put(struct rte_ring *ring, struct rte_mbuf *packet);
/* One thread; how many there were. */
unsigned int traffic_ring_take(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count);

#endif
