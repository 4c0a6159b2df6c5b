/* rte_flow as Rust can call it: patterns and actions in flat structures that look the same in every
 * release, turned into the release's own by flow.c. Only what Millrace asks of hardware can be said.
 *
 * Addresses are as on the wire, numbers in the CPU's order. A function that answers with a pointer answers
 * NULL on failure, with rte_errno set by that call, or 0 if the driver set none. */

#ifndef MILLRACE_DPDK_FLOW_H
#define MILLRACE_DPDK_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include <rte_flow.h>

enum {
	MILLRACE_ITEMS_MAX = 10,
	MILLRACE_ACTIONS_MAX = 16,
	MILLRACE_HEADERS_MAX = 132,  /* MLX5_ENCAP_MAX_LEN (mlx5_flow.h, 22.11) */
	MILLRACE_TEMPLATES_MAX = 32, /* MLX5_HW_TBL_MAX_ACTION_TEMPLATE (mlx5_flow.h, 22.11) */
	MILLRACE_COLOUR_RED = RTE_COLOR_RED,
	MILLRACE_COLOURS = RTE_COLORS, /* the mask of all bits */
};

enum millrace_item_kind {
	MILLRACE_ITEM_REPRESENTED_PORT,
	MILLRACE_ITEM_ETH,
	MILLRACE_ITEM_VLAN,
	MILLRACE_ITEM_IPV4,
	MILLRACE_ITEM_IPV6,
	MILLRACE_ITEM_TCP,
	MILLRACE_ITEM_UDP,
	MILLRACE_ITEM_TAG,    /* of the index in byte; hardware steering only */
	MILLRACE_ITEM_COLOUR, /* what a MILLRACE_ACTION_METER_MARK has found; hardware steering only */
	MILLRACE_ITEM_VXLAN,
	MILLRACE_ITEM_GENEVE, /* of Ethernet frames, without options */
};

/* What is compared, or which bits of it. */
struct millrace_fields {
	uint16_t number;  /* ethdev, VLAN tag, or source port; of GENEVE the protocol */
	uint16_t second;  /* destination port */
	/* Source address; IPv4 is the first four; a tunnel's network the first three; or a tag, the first four, in
	 * the CPU's order. */
	uint8_t src[16];
	uint8_t dst[16];  /* destination address; a MAC address is the first six */
	/* TTL, hop limit, TCP flags, colour, tag's index, GENEVE's first, or bit 0: another VLAN tag follows. */
	uint8_t byte;
	uint8_t traffic_class; /* or IPv4's type of service */
};

struct millrace_item {
	enum millrace_item_kind kind;
	struct millrace_fields value;
	struct millrace_fields mask;
};

enum millrace_action_kind {
	MILLRACE_ACTION_COUNT,      /* by the list's counter */
	MILLRACE_ACTION_AGE,        /* number: seconds; context */
	MILLRACE_ACTION_POP_VLAN,
	MILLRACE_ACTION_PUSH_VLAN,  /* 0x8100 */
	MILLRACE_ACTION_SET_VLAN,   /* number: VID */
	MILLRACE_ACTION_SET_MAC_SRC,
	MILLRACE_ACTION_SET_MAC_DST,
	MILLRACE_ACTION_SET_IPV4_SRC,
	MILLRACE_ACTION_SET_IPV4_DST,
	MILLRACE_ACTION_SET_IPV6_SRC,
	MILLRACE_ACTION_SET_IPV6_DST,
	MILLRACE_ACTION_SET_TCP_SRC, /* number: port */
	MILLRACE_ACTION_SET_TCP_DST,
	MILLRACE_ACTION_SET_UDP_SRC,
	MILLRACE_ACTION_SET_UDP_DST,
	MILLRACE_ACTION_DEC_TTL_IPV4,
	MILLRACE_ACTION_DEC_TTL_IPV6,
	MILLRACE_ACTION_DECAP_VXLAN, /* of all that is around the inner frame */
	MILLRACE_ACTION_DECAP_GENEVE,
	MILLRACE_ACTION_RAW_DECAP,  /* of an Ethernet header; MILLRACE_ACTION_RAW_ENCAP comes next */
	MILLRACE_ACTION_RAW_ENCAP,  /* of the list's headers */
	MILLRACE_ACTION_JUMP,       /* number: group */
	MILLRACE_ACTION_PORT,       /* number: ethdev */
	MILLRACE_ACTION_QUEUE,      /* number */
	MILLRACE_ACTION_METER,      /* number: the meter's; software steering only */
	MILLRACE_ACTION_METER_MARK, /* the list's meter; hardware steering only, as the next */
	MILLRACE_ACTION_SET_TAG,    /* the first; bytes: four, in the CPU's order */
	MILLRACE_ACTION_DROP,
};

struct millrace_action {
	enum millrace_action_kind kind;
	uint32_t number;
	uint64_t context;
	uint8_t bytes[16]; /* an address */
};

struct millrace_flow_attr {
	uint32_t group;
	uint32_t priority;
	bool transfer; /* or else ingress */
};

/* No more than the constants above say. */
struct millrace_pattern {
	const struct millrace_item *items;
	uint32_t count;
};

struct millrace_actions {
	const struct millrace_action *actions;
	uint32_t count;
	struct rte_flow_action_handle *counter; /* indirect; NULL in templates */
	struct rte_flow_action_handle *meter;   /* likewise */
	const uint8_t *headers;
	uint32_t headers_len;
};

struct millrace_count {
	uint64_t packets;
	uint64_t bytes;
};

struct millrace_queue_limits {
	uint32_t queues;
	uint32_t queue_size;
	uint32_t counters;
	uint32_t ages;
	uint32_t meters;
};

struct millrace_queue_attr {
	uint32_t size;
	uint32_t counters;
	uint32_t ages;
	uint32_t meters;
};

/* The end of an operation: what it was enqueued with. */
struct millrace_done {
	uint64_t user_data;
	bool ok;
};

/* Synchronous rules; edits are set_*, dec_ttl. */
int millrace_flow_validate(uint16_t port, const struct millrace_flow_attr *attr,
			   const struct millrace_pattern *pattern, const struct millrace_actions *actions,
			   struct rte_flow_error *error);
struct rte_flow *millrace_flow_create(uint16_t port, const struct millrace_flow_attr *attr,
				      const struct millrace_pattern *pattern,
				      const struct millrace_actions *actions, struct rte_flow_error *error);

/* Indirect counters. */
struct rte_flow_action_handle *millrace_counter_create(uint16_t port, bool transfer,
						       struct rte_flow_error *error);
int millrace_counter_query(uint16_t port, const struct rte_flow_action_handle *counter,
			   struct millrace_count *count, struct rte_flow_error *error);

/* The contexts of rules that have aged; how many, or a negative errno. */
int millrace_aged(uint16_t port, uint64_t *contexts, uint32_t room, struct rte_flow_error *error);

/* One flow queue, number 0; edits are modify_field. */
int millrace_queue_limits(uint16_t port, struct millrace_queue_limits *limits, struct rte_flow_error *error);
int millrace_queue_configure(uint16_t port, const struct millrace_queue_attr *attr,
			     struct rte_flow_error *error);
struct rte_flow_pattern_template *millrace_pattern_template(uint16_t port, bool transfer,
							    const struct millrace_pattern *pattern,
							    struct rte_flow_error *error);
struct rte_flow_actions_template *millrace_actions_template(uint16_t port, bool transfer,
							    const struct millrace_actions *actions,
							    struct rte_flow_error *error);
struct rte_flow_template_table *millrace_table(uint16_t port, const struct millrace_flow_attr *attr,
					       uint32_t rules, struct rte_flow_pattern_template *pattern,
					       struct rte_flow_actions_template **actions, uint8_t count,
					       struct rte_flow_error *error);
struct rte_flow *millrace_enqueue_create(uint16_t port, struct rte_flow_template_table *table,
					 const struct millrace_pattern *pattern,
					 const struct millrace_actions *actions, uint8_t actions_template,
					 uint64_t user_data, struct rte_flow_error *error);
int millrace_enqueue_destroy(uint16_t port, struct rte_flow *flow, uint64_t user_data,
			     struct rte_flow_error *error);
int millrace_pull(uint16_t port, struct millrace_done *done, uint16_t room, struct rte_flow_error *error);

#endif
