/* See meter.h. Every structure of DPDK's starts out as zeroes, so that fields which came later mean what they
 * meant before they came. */

#include <errno.h>

#include <rte_errno.h>
#include <rte_mtr.h>

#include "meter.h"

enum { SHARED = 1, KEEP = 0 };

/* Hardware steering: a port has one profile (mlx5_flow_hw.c, 22.11: mlx5_flow_meter_init is asked for one), and
 * QUEUE is the only flow queue. */
enum { PROFILE = 0, QUEUE = 0 };

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

/* The one profile, with this rate, for the call that comes next: drivers copy what it says. mlx5 does so when an
 * operation is enqueued (mlx5_flow_aso.c, mlx5_aso_mtr_sq_enqueue_single), so all meters can share it in turn. */
static struct rte_flow_meter_profile *lend_profile(uint16_t port, const struct millrace_meter_rate *rate,
						   struct rte_flow_error *error)
{
	struct rte_mtr_error mtr = {0};
	int ret = millrace_meter_profile_add(port, PROFILE, rate, error);

	/* One that could not be deleted once. */
	if (ret == -EEXIST) {
		rte_mtr_meter_profile_delete(port, PROFILE, &mtr);
		ret = millrace_meter_profile_add(port, PROFILE, rate, error);
	}
	if (ret < 0) {
		rte_errno = -ret;
		return NULL;
	}
	rte_errno = ENOENT;
	return rte_mtr_meter_profile_get(port, PROFILE, &mtr);
}

static void return_profile(uint16_t port)
{
	struct rte_mtr_error mtr = {0};
	int kept = rte_errno;

	rte_mtr_meter_profile_delete(port, PROFILE, &mtr);
	rte_errno = kept;
}

struct rte_flow_action_handle *millrace_mark_create(uint16_t port, const struct millrace_meter_rate *rate,
						    struct rte_flow_error *error)
{
	struct rte_flow_indir_action_conf conf = {.transfer = 1};
	struct rte_flow_action_meter_mark mark = {
		.profile = lend_profile(port, rate, error),
		.init_color = RTE_COLOR_GREEN,
		.state = 1,
	};
	struct rte_flow_action action = {.type = RTE_FLOW_ACTION_TYPE_METER_MARK, .conf = &mark};
	struct rte_flow_action_handle *made;

	if (mark.profile == NULL)
		return NULL;
	rte_errno = 0;
	made = rte_flow_action_handle_create(port, &conf, &action, error);
	return_profile(port);
	return made;
}

int millrace_mark_change(uint16_t port, struct rte_flow_action_handle *mark,
			 const struct millrace_meter_rate *rate, uint64_t user_data,
			 struct rte_flow_error *error)
{
	struct rte_flow_op_attr attr = {.postpone = 1};
	struct rte_flow_update_meter_mark update = {
		.meter_mark.profile = lend_profile(port, rate, error),
		.profile_valid = 1,
	};
	int ret;

	if (update.meter_mark.profile == NULL)
		return -rte_errno;
	ret = rte_flow_async_action_handle_update(port, QUEUE, &attr, mark, &update, (void *)(uintptr_t)user_data,
						  error);
	return_profile(port);
	return ret;
}
