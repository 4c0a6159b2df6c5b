/* What the driver sees of DPDK: the driver-side headers, and functions for what they only inline. */
#ifndef ESWITCH_SHIM_H
#define ESWITCH_SHIM_H

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

uint64_t eswitch_tsc(void);
uint16_t eswitch_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t eswitch_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
void eswitch_mbuf_free(struct rte_mbuf *packet);
struct rte_mbuf *eswitch_mbuf_alloc(struct rte_mempool *pool);
int eswitch_errno(void);
void eswitch_set_errno(int value);

#endif
