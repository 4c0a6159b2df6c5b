/* What a balancer does at the least: other MAC addresses, out of another interface. An XDP program for the interface
 * where packets come in, and one that the interface's far ends need so that they take redirected frames natively.
 *
 * IFINDEX, and FROM and TO, MAC addresses as six bytes with commas between, are given when it is compiled: without a
 * map it needs no loader but `ip`.
 */

#include <linux/bpf.h>

#define SECTION(name) __attribute__((section(name), used))

static long (*const redirect)(__u32 interface, __u64 flags) = (void *)BPF_FUNC_redirect;

SECTION("xdp_mac") int rewrite(struct xdp_md *frame)
{
	static const __u8 from[6] = {FROM}, to[6] = {TO};
	__u8 *data = (void *)(long)frame->data;

	if (data + 14 > (__u8 *)(long)frame->data_end)
		return XDP_DROP;
	/* Only IPv4: what a host's kernel says of itself is not passed on. */
	if (data[12] != 0x08 || data[13] != 0x00)
		return XDP_PASS;
	for (int at = 0; at < 6; at++) {
		data[at] = to[at];
		data[6 + at] = from[at];
	}
	return redirect(IFINDEX, 0);
}

SECTION("xdp_pass") int let_pass(struct xdp_md *frame)
{
	(void)frame;
	return XDP_PASS;
}

SECTION("license") char allowed[] = "GPL";
