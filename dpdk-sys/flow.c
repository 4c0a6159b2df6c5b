/* See flow.h. Every structure of DPDK's starts out as zeroes, so that fields which came later mean what they
 * meant before they came. */

#include <assert.h>
#include <string.h>

#include <rte_byteorder.h>
#include <rte_errno.h>

#include "flow.h"

static_assert(sizeof(void *) == sizeof(uint64_t), "contexts and user data are numbers in pointers' clothing");

/* Nothing is postponed to another queue; there is one. */
enum { QUEUE = 0, TPID = 0x8100, PULL_MAX = 64 };

/* Room for one side of an item. */
union item_room {
	struct rte_flow_item_ethdev port;
	struct rte_flow_item_eth eth;
	struct rte_flow_item_vlan vlan;
	struct rte_flow_item_ipv4 ipv4;
	struct rte_flow_item_ipv6 ipv6;
	struct rte_flow_item_tcp tcp;
	struct rte_flow_item_udp udp;
	struct rte_flow_item_tag tag;
	struct rte_flow_item_meter_color colour;
	struct rte_flow_item_vxlan vxlan;
	struct rte_flow_item_geneve geneve;
};

/* A pattern in the release's words, and what it points to. */
struct pattern {
	struct rte_flow_item items[MILLRACE_ITEMS_MAX + 1];
	union item_room values[MILLRACE_ITEMS_MAX];
	union item_room masks[MILLRACE_ITEMS_MAX];
};

static enum rte_flow_item_type item_type(enum millrace_item_kind kind)
{
	switch (kind) {
	case MILLRACE_ITEM_REPRESENTED_PORT:
		return RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT;
	case MILLRACE_ITEM_ETH:
		return RTE_FLOW_ITEM_TYPE_ETH;
	case MILLRACE_ITEM_VLAN:
		return RTE_FLOW_ITEM_TYPE_VLAN;
	case MILLRACE_ITEM_IPV4:
		return RTE_FLOW_ITEM_TYPE_IPV4;
	case MILLRACE_ITEM_IPV6:
		return RTE_FLOW_ITEM_TYPE_IPV6;
	case MILLRACE_ITEM_TCP:
		return RTE_FLOW_ITEM_TYPE_TCP;
	case MILLRACE_ITEM_UDP:
		return RTE_FLOW_ITEM_TYPE_UDP;
	case MILLRACE_ITEM_TAG:
		return RTE_FLOW_ITEM_TYPE_TAG;
	case MILLRACE_ITEM_COLOUR:
		return RTE_FLOW_ITEM_TYPE_METER_COLOR;
	case MILLRACE_ITEM_VXLAN:
		return RTE_FLOW_ITEM_TYPE_VXLAN;
	case MILLRACE_ITEM_GENEVE:
		return RTE_FLOW_ITEM_TYPE_GENEVE;
	}
	return RTE_FLOW_ITEM_TYPE_END;
}

static void fill_item(enum millrace_item_kind kind, const struct millrace_fields *from, union item_room *to)
{
	memset(to, 0, sizeof(*to));
	switch (kind) {
	case MILLRACE_ITEM_REPRESENTED_PORT:
		to->port.port_id = from->number;
		break;
	case MILLRACE_ITEM_ETH:
		memcpy(&to->eth.hdr.dst_addr, from->dst, 6);
		to->eth.has_vlan = from->byte & 1;
		break;
	case MILLRACE_ITEM_VLAN:
		to->vlan.hdr.vlan_tci = rte_cpu_to_be_16(from->number);
		to->vlan.has_more_vlan = from->byte & 1;
		break;
	case MILLRACE_ITEM_IPV4:
		memcpy(&to->ipv4.hdr.src_addr, from->src, 4);
		memcpy(&to->ipv4.hdr.dst_addr, from->dst, 4);
		to->ipv4.hdr.time_to_live = from->byte;
		to->ipv4.hdr.type_of_service = from->traffic_class;
		break;
	case MILLRACE_ITEM_IPV6:
		memcpy(&to->ipv6.hdr.src_addr, from->src, 16);
		memcpy(&to->ipv6.hdr.dst_addr, from->dst, 16);
		to->ipv6.hdr.hop_limits = from->byte;
		to->ipv6.hdr.vtc_flow = rte_cpu_to_be_32((uint32_t)from->traffic_class << RTE_IPV6_HDR_TC_SHIFT);
		break;
	case MILLRACE_ITEM_TCP:
		to->tcp.hdr.src_port = rte_cpu_to_be_16(from->number);
		to->tcp.hdr.dst_port = rte_cpu_to_be_16(from->second);
		to->tcp.hdr.tcp_flags = from->byte;
		break;
	case MILLRACE_ITEM_UDP:
		to->udp.hdr.src_port = rte_cpu_to_be_16(from->number);
		to->udp.hdr.dst_port = rte_cpu_to_be_16(from->second);
		break;
	case MILLRACE_ITEM_TAG:
		memcpy(&to->tag.data, from->src, sizeof(to->tag.data));
		to->tag.index = from->byte;
		break;
	case MILLRACE_ITEM_COLOUR:
		to->colour.color = from->byte;
		break;
	case MILLRACE_ITEM_VXLAN:
		memcpy(&to->vxlan.hdr.vx_vni, from->src, 3);
		break;
	case MILLRACE_ITEM_GENEVE:
		memcpy(to->geneve.vni, from->src, sizeof(to->geneve.vni));
		to->geneve.protocol = rte_cpu_to_be_16(from->number);
		to->geneve.ver_opt_len_o_c_rsvd0 = rte_cpu_to_be_16((uint16_t)(from->byte << 8));
		break;
	}
}

/* An item of which nothing is compared only says that the header is there. */
static bool is_bare(const struct millrace_fields *mask)
{
	static const struct millrace_fields none;

	return mask->number == 0 && mask->second == 0 && mask->byte == 0 && mask->traffic_class == 0 &&
	       memcmp(mask->src, none.src, sizeof(none.src)) == 0 &&
	       memcmp(mask->dst, none.dst, sizeof(none.dst)) == 0;
}

static void fill_pattern(const struct millrace_pattern *from, struct pattern *to)
{
	memset(to->items, 0, sizeof(to->items));
	for (uint32_t i = 0; i < from->count; i++) {
		const struct millrace_item *item = &from->items[i];

		to->items[i].type = item_type(item->kind);
		if (is_bare(&item->mask))
			continue;
		fill_item(item->kind, &item->value, &to->values[i]);
		fill_item(item->kind, &item->mask, &to->masks[i]);
		to->items[i].spec = &to->values[i];
		to->items[i].mask = &to->masks[i];
	}
	to->items[from->count].type = RTE_FLOW_ITEM_TYPE_END;
}

/* Room for one action's configuration. */
union action_room {
	struct rte_flow_action_age age;
	struct rte_flow_action_of_push_vlan push;
	struct rte_flow_action_of_set_vlan_vid vid;
	struct rte_flow_action_set_mac mac;
	struct rte_flow_action_set_ipv4 ipv4;
	struct rte_flow_action_set_ipv6 ipv6;
	struct rte_flow_action_set_tp tp;
	struct rte_flow_action_modify_field modify;
	struct rte_flow_action_raw_decap decap;
	struct rte_flow_action_raw_encap encap;
	struct rte_flow_action_jump jump;
	struct rte_flow_action_ethdev port;
	struct rte_flow_action_queue queue;
	struct rte_flow_action_meter meter;
};

/* Actions in the release's words, and what they point to. */
struct actions {
	struct rte_flow_action list[MILLRACE_ACTIONS_MAX + 1];
	union action_room room[MILLRACE_ACTIONS_MAX];
};

/* Actions that are spelled alike under both steerings; whether it is one. */
static bool fill_common(const struct millrace_actions *all, const struct millrace_action *from,
			struct rte_flow_action *to, union action_room *room)
{
	/* Of a decapsulation only the length is looked at. */
	static uint8_t ethernet[sizeof(struct rte_ether_hdr)];
	/* Ethernet, IPv4, UDP and GENEVE: more than 34 bytes are a tunnel's. */
	static uint8_t tunnel[14 + 20 + 8 + 8];

	to->conf = room;
	switch (from->kind) {
	case MILLRACE_ACTION_COUNT:
		to->type = RTE_FLOW_ACTION_TYPE_INDIRECT;
		to->conf = NULL;
		return true;
	case MILLRACE_ACTION_AGE:
		to->type = RTE_FLOW_ACTION_TYPE_AGE;
		room->age.timeout = from->number;
		room->age.context = (void *)(uintptr_t)from->context;
		return true;
	case MILLRACE_ACTION_POP_VLAN:
		to->type = RTE_FLOW_ACTION_TYPE_OF_POP_VLAN;
		to->conf = NULL;
		return true;
	case MILLRACE_ACTION_PUSH_VLAN:
		to->type = RTE_FLOW_ACTION_TYPE_OF_PUSH_VLAN;
		room->push.ethertype = rte_cpu_to_be_16(TPID);
		return true;
	case MILLRACE_ACTION_SET_VLAN:
		to->type = RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_VID;
		room->vid.vlan_vid = rte_cpu_to_be_16(from->number);
		return true;
	case MILLRACE_ACTION_DECAP_VXLAN:
		to->type = RTE_FLOW_ACTION_TYPE_VXLAN_DECAP;
		to->conf = NULL;
		return true;
	case MILLRACE_ACTION_DECAP_GENEVE:
		to->type = RTE_FLOW_ACTION_TYPE_RAW_DECAP;
		room->decap.data = tunnel;
		room->decap.size = sizeof(tunnel);
		return true;
	case MILLRACE_ACTION_RAW_DECAP:
		to->type = RTE_FLOW_ACTION_TYPE_RAW_DECAP;
		room->decap.data = ethernet;
		room->decap.size = sizeof(ethernet);
		return true;
	case MILLRACE_ACTION_RAW_ENCAP:
		/* Drivers read the headers; the type is not const for historical reasons. */
		to->type = RTE_FLOW_ACTION_TYPE_RAW_ENCAP;
		room->encap.data = (uint8_t *)(uintptr_t)all->headers;
		room->encap.size = all->headers_len;
		return true;
	case MILLRACE_ACTION_JUMP:
		to->type = RTE_FLOW_ACTION_TYPE_JUMP;
		room->jump.group = from->number;
		return true;
	case MILLRACE_ACTION_PORT:
		to->type = RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT;
		room->port.port_id = from->number;
		return true;
	case MILLRACE_ACTION_QUEUE:
		to->type = RTE_FLOW_ACTION_TYPE_QUEUE;
		room->queue.index = from->number;
		return true;
	case MILLRACE_ACTION_METER:
		to->type = RTE_FLOW_ACTION_TYPE_METER;
		room->meter.mtr_id = from->number;
		return true;
	case MILLRACE_ACTION_METER_MARK:
		to->type = RTE_FLOW_ACTION_TYPE_INDIRECT;
		to->conf = NULL;
		return true;
	case MILLRACE_ACTION_DROP:
		to->type = RTE_FLOW_ACTION_TYPE_DROP;
		to->conf = NULL;
		return true;
	default:
		return false;
	}
}

/* Edits of software steering. */
static void fill_set(const struct millrace_action *from, struct rte_flow_action *to, union action_room *room)
{
	switch (from->kind) {
	case MILLRACE_ACTION_SET_MAC_SRC:
	case MILLRACE_ACTION_SET_MAC_DST:
		to->type = from->kind == MILLRACE_ACTION_SET_MAC_SRC ? RTE_FLOW_ACTION_TYPE_SET_MAC_SRC :
								       RTE_FLOW_ACTION_TYPE_SET_MAC_DST;
		memcpy(room->mac.mac_addr, from->bytes, sizeof(room->mac.mac_addr));
		break;
	case MILLRACE_ACTION_SET_IPV4_SRC:
	case MILLRACE_ACTION_SET_IPV4_DST:
		to->type = from->kind == MILLRACE_ACTION_SET_IPV4_SRC ? RTE_FLOW_ACTION_TYPE_SET_IPV4_SRC :
									RTE_FLOW_ACTION_TYPE_SET_IPV4_DST;
		memcpy(&room->ipv4.ipv4_addr, from->bytes, 4);
		break;
	case MILLRACE_ACTION_SET_IPV6_SRC:
	case MILLRACE_ACTION_SET_IPV6_DST:
		to->type = from->kind == MILLRACE_ACTION_SET_IPV6_SRC ? RTE_FLOW_ACTION_TYPE_SET_IPV6_SRC :
									RTE_FLOW_ACTION_TYPE_SET_IPV6_DST;
		memcpy(&room->ipv6.ipv6_addr, from->bytes, 16);
		break;
	case MILLRACE_ACTION_SET_TCP_SRC:
	case MILLRACE_ACTION_SET_UDP_SRC:
		to->type = RTE_FLOW_ACTION_TYPE_SET_TP_SRC;
		room->tp.port = rte_cpu_to_be_16(from->number);
		break;
	case MILLRACE_ACTION_SET_TCP_DST:
	case MILLRACE_ACTION_SET_UDP_DST:
		to->type = RTE_FLOW_ACTION_TYPE_SET_TP_DST;
		room->tp.port = rte_cpu_to_be_16(from->number);
		break;
	default:
		to->type = RTE_FLOW_ACTION_TYPE_DEC_TTL;
		to->conf = NULL;
		break;
	}
}

/* A header field, and how to change it. */
struct edit {
	enum rte_flow_field_id field;
	uint32_t bits;
	bool add; /* the value minus one, modulo the field; or else set */
};

static struct edit edit_of(enum millrace_action_kind kind)
{
	switch (kind) {
	case MILLRACE_ACTION_SET_MAC_SRC:
		return (struct edit){RTE_FLOW_FIELD_MAC_SRC, 48, false};
	case MILLRACE_ACTION_SET_MAC_DST:
		return (struct edit){RTE_FLOW_FIELD_MAC_DST, 48, false};
	case MILLRACE_ACTION_SET_IPV4_SRC:
		return (struct edit){RTE_FLOW_FIELD_IPV4_SRC, 32, false};
	case MILLRACE_ACTION_SET_IPV4_DST:
		return (struct edit){RTE_FLOW_FIELD_IPV4_DST, 32, false};
	case MILLRACE_ACTION_SET_IPV6_SRC:
		return (struct edit){RTE_FLOW_FIELD_IPV6_SRC, 128, false};
	case MILLRACE_ACTION_SET_IPV6_DST:
		return (struct edit){RTE_FLOW_FIELD_IPV6_DST, 128, false};
	case MILLRACE_ACTION_SET_TCP_SRC:
		return (struct edit){RTE_FLOW_FIELD_TCP_PORT_SRC, 16, false};
	case MILLRACE_ACTION_SET_TCP_DST:
		return (struct edit){RTE_FLOW_FIELD_TCP_PORT_DST, 16, false};
	case MILLRACE_ACTION_SET_UDP_SRC:
		return (struct edit){RTE_FLOW_FIELD_UDP_PORT_SRC, 16, false};
	case MILLRACE_ACTION_SET_UDP_DST:
		return (struct edit){RTE_FLOW_FIELD_UDP_PORT_DST, 16, false};
	case MILLRACE_ACTION_SET_TAG:
		return (struct edit){RTE_FLOW_FIELD_TAG, 32, false};
	case MILLRACE_ACTION_DEC_TTL_IPV6:
		return (struct edit){RTE_FLOW_FIELD_IPV6_HOPLIMIT, 8, true};
	default:
		return (struct edit){RTE_FLOW_FIELD_IPV4_TTL, 8, true};
	}
}

/* Edits of hardware steering. The value is laid out as in the field's place in its item. */
static void fill_modify(const struct millrace_action *from, struct rte_flow_action *to, union action_room *room)
{
	struct edit edit = edit_of(from->kind);
	struct rte_flow_action_modify_field *modify = &room->modify;

	to->type = RTE_FLOW_ACTION_TYPE_MODIFY_FIELD;
	modify->operation = edit.add ? RTE_FLOW_MODIFY_ADD : RTE_FLOW_MODIFY_SET;
	modify->dst.field = edit.field;
	modify->src.field = RTE_FLOW_FIELD_VALUE;
	modify->width = edit.bits;
	if (edit.add) {
		modify->src.value[0] = 0xff;
	} else if (edit.bits == 16) {
		modify->src.value[0] = from->number >> 8;
		modify->src.value[1] = from->number;
	} else {
		memcpy(modify->src.value, from->bytes, edit.bits / 8);
	}
}

/* Which parts of an action are the template's, for all its rules: of an edit everything but the value; of a
 * decrement that, too; of anything else nothing. */
static void fill_mask(const struct millrace_action *from, struct rte_flow_action *to, union action_room *room)
{
	static const struct millrace_actions none;
	struct rte_flow_action_modify_field *modify = &room->modify;
	struct rte_flow_action_modify_field meant;

	if (from->kind == MILLRACE_ACTION_COUNT || from->kind == MILLRACE_ACTION_METER_MARK) {
		/* Tells what the handle, which comes with each rule, stands for. */
		to->type = from->kind == MILLRACE_ACTION_COUNT ? RTE_FLOW_ACTION_TYPE_COUNT :
								 RTE_FLOW_ACTION_TYPE_METER_MARK;
		to->conf = NULL;
		return;
	}
	if (fill_common(&none, from, to, room)) {
		memset(room, 0, sizeof(*room));
		return;
	}
	fill_modify(from, to, room);
	meant = *modify;
	memset(modify, 0, sizeof(*modify));
	memset(&modify->dst, 0xff, sizeof(modify->dst));
	modify->operation = meant.operation;
	modify->dst.field = meant.dst.field;
	modify->src.field = meant.src.field;
	modify->width = UINT32_MAX;
	if (meant.operation == RTE_FLOW_MODIFY_ADD)
		memset(modify->src.value, 0xff, sizeof(modify->src.value));
}

typedef void filler(const struct millrace_action *, struct rte_flow_action *, union action_room *);

static void fill_edits(const struct millrace_actions *from, struct actions *to, filler *edit)
{
	memset(to, 0, sizeof(*to));
	for (uint32_t i = 0; i < from->count; i++) {
		if (edit == fill_mask || !fill_common(from, &from->actions[i], &to->list[i], &to->room[i])) {
			to->list[i].conf = &to->room[i];
			edit(&from->actions[i], &to->list[i], &to->room[i]);
		}
		if (to->list[i].type == RTE_FLOW_ACTION_TYPE_INDIRECT)
			to->list[i].conf = from->actions[i].kind == MILLRACE_ACTION_COUNT ? from->counter :
											    from->meter;
	}
	to->list[from->count].type = RTE_FLOW_ACTION_TYPE_END;
}

static struct rte_flow_attr attr_of(const struct millrace_flow_attr *attr)
{
	struct rte_flow_attr theirs = {0};

	theirs.group = attr->group;
	theirs.priority = attr->priority;
	theirs.transfer = attr->transfer;
	theirs.ingress = !attr->transfer;
	return theirs;
}

int millrace_flow_validate(uint16_t port, const struct millrace_flow_attr *attr,
			   const struct millrace_pattern *pattern, const struct millrace_actions *actions,
			   struct rte_flow_error *error)
{
	struct rte_flow_attr theirs = attr_of(attr);
	struct pattern items;
	struct actions list;

	fill_pattern(pattern, &items);
	fill_edits(actions, &list, fill_set);
	return rte_flow_validate(port, &theirs, items.items, list.list, error);
}

struct rte_flow *millrace_flow_create(uint16_t port, const struct millrace_flow_attr *attr,
				      const struct millrace_pattern *pattern,
				      const struct millrace_actions *actions, struct rte_flow_error *error)
{
	struct rte_flow_attr theirs = attr_of(attr);
	struct pattern items;
	struct actions list;

	fill_pattern(pattern, &items);
	fill_edits(actions, &list, fill_set);
	rte_errno = 0;
	return rte_flow_create(port, &theirs, items.items, list.list, error);
}

struct rte_flow_action_handle *millrace_counter_create(uint16_t port, bool transfer,
						       struct rte_flow_error *error)
{
	struct rte_flow_indir_action_conf conf = {0};
	struct rte_flow_action_count count = {0};
	struct rte_flow_action action = {.type = RTE_FLOW_ACTION_TYPE_COUNT, .conf = &count};

	conf.transfer = transfer;
	conf.ingress = !transfer;
	rte_errno = 0;
	return rte_flow_action_handle_create(port, &conf, &action, error);
}

int millrace_counter_query(uint16_t port, const struct rte_flow_action_handle *counter,
			   struct millrace_count *count, struct rte_flow_error *error)
{
	struct rte_flow_query_count theirs = {0};
	int ret = rte_flow_action_handle_query(port, counter, &theirs, error);

	if (ret != 0)
		return ret;
	count->packets = theirs.hits_set ? theirs.hits : 0;
	count->bytes = theirs.bytes_set ? theirs.bytes : 0;
	return 0;
}

int millrace_aged(uint16_t port, uint64_t *contexts, uint32_t room, struct rte_flow_error *error)
{
	int ret = rte_flow_get_aged_flows(port, (void **)contexts, room, error);

	/* mlx5 may count more than it has written (mlx5_flow_dv.c, flow_dv_get_aged_flows, 22.11). */
	return ret > 0 && (uint32_t)ret > room ? (int)room : ret;
}

int millrace_queue_limits(uint16_t port, struct millrace_queue_limits *limits, struct rte_flow_error *error)
{
	struct rte_flow_port_info port_info = {0};
	struct rte_flow_queue_info queue_info = {0};
	int ret = rte_flow_info_get(port, &port_info, &queue_info, error);

	if (ret != 0)
		return ret;
	limits->queues = port_info.max_nb_queues;
	limits->queue_size = queue_info.max_size;
	limits->counters = port_info.max_nb_counters;
	limits->ages = port_info.max_nb_aging_objects;
	limits->meters = port_info.max_nb_meters;
	return 0;
}

int millrace_queue_configure(uint16_t port, const struct millrace_queue_attr *attr,
			     struct rte_flow_error *error)
{
	struct rte_flow_port_attr port_attr = {0};
	struct rte_flow_queue_attr queue_attr = {0};
	const struct rte_flow_queue_attr *queues[] = {&queue_attr};

	port_attr.nb_counters = attr->counters;
	port_attr.nb_aging_objects = attr->ages;
	port_attr.nb_meters = attr->meters;
	queue_attr.size = attr->size;
	return rte_flow_configure(port, &port_attr, 1, queues, error);
}

struct rte_flow_pattern_template *millrace_pattern_template(uint16_t port, bool transfer,
							    const struct millrace_pattern *pattern,
							    struct rte_flow_error *error)
{
	struct rte_flow_pattern_template_attr attr = {0};
	struct pattern items;

	attr.transfer = transfer;
	attr.ingress = !transfer;
	fill_pattern(pattern, &items);
	rte_errno = 0;
	return rte_flow_pattern_template_create(port, &attr, items.items, error);
}

struct rte_flow_actions_template *millrace_actions_template(uint16_t port, bool transfer,
							    const struct millrace_actions *actions,
							    struct rte_flow_error *error)
{
	struct rte_flow_actions_template_attr attr = {0};
	struct actions list, masks;

	attr.transfer = transfer;
	attr.ingress = !transfer;
	fill_edits(actions, &list, fill_modify);
	fill_edits(actions, &masks, fill_mask);
	rte_errno = 0;
	return rte_flow_actions_template_create(port, &attr, list.list, masks.list, error);
}

struct rte_flow_template_table *millrace_table(uint16_t port, const struct millrace_flow_attr *attr,
					       uint32_t rules, struct rte_flow_pattern_template *pattern,
					       struct rte_flow_actions_template **actions, uint8_t count,
					       struct rte_flow_error *error)
{
	struct rte_flow_template_table_attr theirs = {0};

	theirs.flow_attr = attr_of(attr);
	theirs.nb_flows = rules;
	rte_errno = 0;
	return rte_flow_template_table_create(port, &theirs, &pattern, 1, actions, count, error);
}

struct rte_flow *millrace_enqueue_create(uint16_t port, struct rte_flow_template_table *table,
					 const struct millrace_pattern *pattern,
					 const struct millrace_actions *actions, uint8_t actions_template,
					 uint64_t user_data, struct rte_flow_error *error)
{
	struct rte_flow_op_attr attr = {0};
	struct pattern items;
	struct actions list;

	attr.postpone = 1;
	fill_pattern(pattern, &items);
	fill_edits(actions, &list, fill_modify);
	rte_errno = 0;
	return rte_flow_async_create(port, QUEUE, &attr, table, items.items, 0, list.list, actions_template,
				     (void *)(uintptr_t)user_data, error);
}

int millrace_enqueue_destroy(uint16_t port, struct rte_flow *flow, uint64_t user_data,
			     struct rte_flow_error *error)
{
	struct rte_flow_op_attr attr = {0};

	attr.postpone = 1;
	return rte_flow_async_destroy(port, QUEUE, &attr, flow, (void *)(uintptr_t)user_data, error);
}

int millrace_pull(uint16_t port, struct millrace_done *done, uint16_t room, struct rte_flow_error *error)
{
	struct rte_flow_op_result results[PULL_MAX] = {0};
	int count = rte_flow_pull(port, QUEUE, results, room < PULL_MAX ? room : PULL_MAX, error);

	for (int i = 0; i < count; i++) {
		done[i].user_data = (uint64_t)(uintptr_t)results[i].user_data;
		done[i].ok = results[i].status == RTE_FLOW_OP_SUCCESS;
	}
	return count;
}
