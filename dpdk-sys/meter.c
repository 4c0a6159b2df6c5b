/* See meter.h. Every structure of DPDK's starts out as zeroes, so that fields which came later mean what they
 * meant before they came. */

#include <rte_mtr.h>

#include "meter.h"

enum { SHARED = 1, KEEP = 0 };

static int told(int ret, const struct rte_mtr_error *from, struct rte_flow_error *to)
{
	if (ret < 0)
		to->message = from->message;
	return ret;
}

int millrace_meter_policy_add(uint16_t port, uint32_t policy, struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};
	const struct rte_flow_action go_on[] = {{.type = RTE_FLOW_ACTION_TYPE_END}};
	const struct rte_flow_action drop[] = {{.type = RTE_FLOW_ACTION_TYPE_DROP},
					       {.type = RTE_FLOW_ACTION_TYPE_END}};
	struct rte_mtr_meter_policy_params params = {
		.actions = {[RTE_COLOR_GREEN] = go_on, [RTE_COLOR_YELLOW] = go_on, [RTE_COLOR_RED] = drop},
	};

	return told(rte_mtr_meter_policy_add(port, policy, &params, &mtr), &mtr, error);
}

int millrace_meter_policy_delete(uint16_t port, uint32_t policy, struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};

	return told(rte_mtr_meter_policy_delete(port, policy, &mtr), &mtr, error);
}

int millrace_meter_profile_add(uint16_t port, uint32_t profile, const struct millrace_meter_rate *rate,
			       struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};
	struct rte_mtr_meter_profile params = {
		.alg = RTE_MTR_SRTCM_RFC2697,
		.packet_mode = rate->packets,
		.srtcm_rfc2697 = {.cir = rate->per_second, .cbs = rate->burst, .ebs = 0},
	};

	return told(rte_mtr_meter_profile_add(port, profile, &params, &mtr), &mtr, error);
}

int millrace_meter_profile_delete(uint16_t port, uint32_t profile, struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};

	return told(rte_mtr_meter_profile_delete(port, profile, &mtr), &mtr, error);
}

int millrace_meter_create(uint16_t port, uint32_t meter, uint32_t profile, uint32_t policy,
			  struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};
	struct rte_mtr_params params = {
		.meter_profile_id = profile,
		.meter_policy_id = policy,
		.meter_enable = 1,
		.stats_mask = RTE_MTR_STATS_N_PKTS_DROPPED | RTE_MTR_STATS_N_BYTES_DROPPED,
	};

	return told(rte_mtr_create(port, meter, &params, SHARED, &mtr), &mtr, error);
}

int millrace_meter_change(uint16_t port, uint32_t meter, uint32_t profile, struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};

	return told(rte_mtr_meter_profile_update(port, meter, profile, &mtr), &mtr, error);
}

int millrace_meter_drops(uint16_t port, uint32_t meter, struct millrace_meter_drops *drops,
			 struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};
	struct rte_mtr_stats stats = {0};
	uint64_t mask = 0;
	int ret = rte_mtr_stats_read(port, meter, &stats, &mask, KEEP, &mtr);

	drops->packets = stats.n_pkts_dropped;
	drops->bytes = stats.n_bytes_dropped;
	return told(ret, &mtr, error);
}

int millrace_meter_destroy(uint16_t port, uint32_t meter, struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};

	return told(rte_mtr_destroy(port, meter, &mtr), &mtr, error);
}
