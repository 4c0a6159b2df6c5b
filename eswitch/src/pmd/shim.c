#include "shim.h"

#include <rte_cycles.h>

uint64_t eswitch_tsc(void)
{
	return rte_rdtsc();
}

uint16_t eswitch_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t eswitch_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

void eswitch_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

struct rte_mbuf *eswitch_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int eswitch_errno(void)
{
	return rte_errno;
}

void eswitch_set_errno(int value)
{
	rte_errno = value;
}
