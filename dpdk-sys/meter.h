/* rte_mtr as Rust can call it: meters with one rate. Under software steering green packets go on in their rule and
 * red ones are dropped and counted; under hardware steering a meter only colours packets. What the driver says when
 * it refuses comes as an rte_flow_error's message, like that of rules; numbers are in the CPU's order. All answer with 0 or a negative errno. */

#ifndef MILLRACE_DPDK_METER_H
#define MILLRACE_DPDK_METER_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_flow.h>

struct millrace_meter_rate {
	uint64_t per_second; /* packets, or bytes of whole frames */
	uint64_t burst;
	bool packets;
};

struct millrace_meter_drops {
	uint64_t packets;
	uint64_t bytes;
};

/* The policy of all meters here. Drivers have one of its kind: the answer may be -EEXIST. */
int millrace_meter_policy_add(uint16_t port, uint32_t policy, struct rte_flow_error *error);
int millrace_meter_policy_delete(uint16_t port, uint32_t policy, struct rte_flow_error *error);

int millrace_meter_profile_add(uint16_t port, uint32_t profile, const struct millrace_meter_rate *rate,
			       struct rte_flow_error *error);
int millrace_meter_profile_delete(uint16_t port, uint32_t profile, struct rte_flow_error *error);

/* A meter that many rules share, with its drops counted. */
int millrace_meter_create(uint16_t port, uint32_t meter, uint32_t profile, uint32_t policy,
			  struct rte_flow_error *error);
int millrace_meter_change(uint16_t port, uint32_t meter, uint32_t profile, struct rte_flow_error *error);
int millrace_meter_drops(uint16_t port, uint32_t meter, struct millrace_meter_drops *drops,
			 struct rte_flow_error *error);
int millrace_meter_destroy(uint16_t port, uint32_t meter, struct rte_flow_error *error);

/* Hardware steering: a meter that many rules share, by its handle. NULL on failure, with rte_errno set. The call
 * returns once the device has it; rte_flow_action_handle_destroy ends it. */
struct rte_flow_action_handle *millrace_mark_create(uint16_t port, const struct millrace_meter_rate *rate,
						    struct rte_flow_error *error);
/* Enqueues another rate for it, on flow queue 0. */
int millrace_mark_change(uint16_t port, struct rte_flow_action_handle *mark,
			 const struct millrace_meter_rate *rate, uint64_t user_data,
			 struct rte_flow_error *error);

#endif
