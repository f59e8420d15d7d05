// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Forwards the packets of sessions that were handed off, as a tc program at the ingress of every interface (tcx).
//
// A session is two TCP connections that tlb terminated: the client's and the backend's. From the hand-off on, each peer
// talks to the other one: a packet of one connection is given the addresses, ports, sequence numbers, timestamps and
// window scale of the other one, and sent on. Numbers differ by constants, as the relay passed every byte on unchanged.
//
// `hand_off.rs` has the same layouts; `build.sh` makes `hand_off.bpf.o` of this file.

#include <linux/bpf.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define swap16(x) __builtin_bswap16(x)
#define swap32(x) __builtin_bswap32(x)

static void *(*const map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const map_delete)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static u64 (*const now_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static long (*const load_bytes)(const void *skb, u32 at, void *to, u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static long (*const store_bytes)(void *skb, u32 at, const void *from, u32 len, u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*const l3_csum)(void *skb, u32 at, u64 from, u64 to, u64 size) = (void *)BPF_FUNC_l3_csum_replace;
static long (*const l4_csum)(void *skb, u32 at, u64 from, u64 to, u64 flags) = (void *)BPF_FUNC_l4_csum_replace;
static long (*const csum_diff)(void *from, u32 from_size, void *to, u32 to_size, u32 seed) = (void *)BPF_FUNC_csum_diff;
static long (*const redirect_neigh)(u32 ifindex, void *params, int len, u64 flags) = (void *)BPF_FUNC_redirect_neigh;
static long (*const ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)BPF_FUNC_ringbuf_output;

// What a packet is told apart by. Addresses as in IPv6, an IPv4 one mapped (RFC 4291 section 2.5.5.2); network order.
struct tuple {
	u32 from[4];
	u32 to[4];
	u16 from_port;
	u16 to_port;
};

// A direction of a session, written by tlb alone.
struct flow {
	// What it becomes.
	struct tuple as;
	// Added to sequence numbers and to acknowledgements.
	u32 seq_add;
	u32 ack_add;
	// Its `seen`; that of the other direction is its neighbour.
	u32 slot;
	// Where it leaves; 0: for this host.
	u32 ifindex;
	// The timestamp clock it is to go on with: its value, and at which millisecond of CLOCK_MONOTONIC it had it.
	u32 clock;
	u32 clock_ms;
	// With LATE: up to here tlb's own socket has sent, and is to hear of what is acknowledged; it receives this next.
	u32 own_end;
	u32 own_next;
	u8 scale_in;
	u8 scale_out;
	u8 flags;
	u8 unused;
};

#define LATE 1
// How far a peer learns that it is acknowledged while tlb's socket may have to repeat something to it. The socket's own
// acknowledgement stays behind, and what comes with one that is a window too old is refused (RFC 5961 section 5.2).
#define AHEAD 32768

// Verdicts of a tcx program, which older headers lack: go on as if it were not there, and lose the packet.
#define NEXT (-1)
#define DROP 2

// What was seen of a direction, written here once tlb has made it.
struct seen {
	// With bit 32: what is added to its timestamps.
	u64 clock_add;
	// When it sent a byte or an end last.
	u64 last_ns;
	// What it acknowledged since the hand-off: bytes of the other direction, and its FIN.
	u64 acked;
	// The highest acknowledgement (at first: all that tlb has sent it), and the end of what it sent itself.
	u32 ack;
	u32 end;
	u32 fin_end;
	u32 state;
};

// All that tlb had sent it is acknowledged.
#define ACKED 1
#define FIN 4
#define FIN_OF_OTHER_ACKED 8
#define RESET 16

// How far a stream gets ahead of what was seen of it, if packets are lost before they come here.
#define LEAP (1 << 24)

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tuple);
	__type(value, struct flow);
} FLOWS SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 131072);
	__type(key, u32);
	__type(value, struct seen);
} SEEN SEC(".maps");

// Slots of which tlb is to look at `seen`.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} NEWS SEC(".maps");

#define ETH_LEN 14
#define ETH_P_IPV4 0x0800
#define ETH_P_IPV6 0x86dd
#define TCP 6
#define TCP_MIN 20
#define TCP_MAX 60

#define TH_FIN 1
#define TH_SYN 2
#define TH_RST 4
#define TH_ACK 16

struct tcp {
	u16 from_port;
	u16 to_port;
	u32 seq;
	u32 ack;
	u8 length;
	u8 flags;
	u16 window;
	u16 checksum;
	u16 urgent;
	u8 options[TCP_MAX - TCP_MIN];
};

INLINE int after(u32 a, u32 b)
{
	return (int)(a - b) > 0;
}

INLINE u32 get32(const u8 *from)
{
	u32 value;

	__builtin_memcpy(&value, from, 4);
	return swap32(value);
}

INLINE void put32(u8 *to, u32 value)
{
	value = swap32(value);
	__builtin_memcpy(to, &value, 4);
}

// Where options are, behind what is always there; 0, which is no place for either: it is not there.
struct places {
	u32 timestamps;
	u32 selective;
	u32 selective_end;
};

#define OPTIONS (TCP_MAX - TCP_MIN)
// Two that matter, and what they are padded with.
#define MOST_OPTIONS 12

// Verified by itself, and so once; likewise `shift`.
__attribute__((noinline)) int find(const struct tcp *tcp, u32 length, struct places *places)
{
	u32 at = 0;

	if (!tcp || !places)
		return 0;
	for (int i = 0; i < MOST_OPTIONS && at + 2 <= OPTIONS && at + 2 <= length; i++) {
		u8 kind = tcp->options[at];

		if (kind == 0)
			break;
		if (kind == 1) {
			at += 1;
			continue;
		}
		u32 size = tcp->options[at + 1];

		if (size < 2 || at + size > length)
			break;
		if (kind == 8 && size == 10)
			places->timestamps = at + 2;
		if (kind == 5) {
			places->selective = at + 2;
			places->selective_end = at + size;
		}
		at += size;
	}
	return 0;
}

// Adds to numbers in the options.
__attribute__((noinline)) int shift(struct tcp *tcp, u32 at, u32 end, u32 add)
{
	if (!tcp)
		return 0;
	for (int i = 0; i < 8; i++, at += 4) {
		// The verifier is to see that very number compared which is used.
		asm volatile("" : "+r"(at));
		if (at > OPTIONS - 4 || at + 4 > end)
			break;
		put32(&tcp->options[at], get32(&tcp->options[at]) + add);
	}
	return 0;
}

// Timestamps (RFC 7323) and selective acknowledgements (RFC 2018). Each direction goes on with the clock of the socket
// it takes the place of; the difference is taken from its first packet. Before the other direction's is known, an echo
// means nothing to its reader, and is 0 (section 3.2: then ignored).
INLINE void options(struct tcp *tcp, u32 length, struct flow *flow, struct seen *seen, struct seen *other)
{
	struct places places = {};

	find(tcp, length, &places);
	u32 at = places.timestamps;

	if (at && at <= OPTIONS - 8) {
		u32 value = get32(&tcp->options[at]);
		u32 echo = get32(&tcp->options[at + 4]);
		u64 add = seen->clock_add;

		if (!add) {
			u32 ms = (u32)(now_ns() / 1000000);

			add = 1ULL << 32 | (u32)(flow->clock + (ms - flow->clock_ms) - value);
			u64 before = __sync_val_compare_and_swap(&seen->clock_add, 0, add);

			if (before)
				add = before;
		}
		u64 back = other->clock_add;

		put32(&tcp->options[at], value + (u32)add);
		put32(&tcp->options[at + 4], back ? echo - (u32)back : 0);
	}
	if (places.selective)
		shift(tcp, places.selective, places.selective_end, flow->ack_add);
}

// What is to be known of a session when it is over, and when that is. Whether it has been reset.
INLINE int note(struct tcp *tcp, u32 payload, struct flow *flow, struct seen *seen, struct seen *other)
{
	u32 seq = swap32(tcp->seq), ack = swap32(tcp->ack);
	u32 end = seq + payload + (tcp->flags & TH_FIN ? 1 : 0);
	u32 state = seen->state;
	u32 before = state;

	// A peer that has forgotten the session answers what comes late with a reset, which tells nothing.
	if (tcp->flags & TH_RST && state & other->state & FIN_OF_OTHER_ACKED)
		return 0;
	// Anybody can send a packet that looks like this one. Its receiver judges it by its numbers, and what could be none
	// of the next is not believed here either.
	if (tcp->flags & TH_RST) {
		// The receiver takes the one that carries the number it expects (RFC 5961).
		if (seq != seen->end && seq != other->ack - flow->seq_add)
			return 0;
		state |= RESET;
	} else {
		// A keepalive probe is no sign of life of what is talked about.
		if (after(end, seen->end) && end - seen->end < LEAP) {
			seen->end = end;
			seen->last_ns = now_ns();
		}
		if (tcp->flags & TH_FIN) {
			seen->fin_end = end;
			state |= FIN;
		}
	}
	if (tcp->flags & TH_ACK && !(tcp->flags & TH_RST)) {
		u32 acked = ack + flow->ack_add;
		// What tlb's sockets pass on themselves was not seen here.
		u32 most = flow->flags & LATE ? other->end + AHEAD : other->end;

		if (after(ack, seen->ack) && !after(acked, most)) {
			seen->acked += ack - seen->ack;
			seen->ack = ack;
		}
		if (ack == seen->ack)
			state |= ACKED;
		if (other->state & FIN && acked == other->fin_end)
			state |= FIN_OF_OTHER_ACKED;
	}
	seen->state = state;
	if ((state ^ before) & (FIN_OF_OTHER_ACKED | RESET)) {
		u32 slot = flow->slot;

		ringbuf_output(&NEWS, &slot, sizeof(slot), 0);
	}
	return state & RESET;
}

SEC("classifier")
int hand_off(struct __sk_buff *skb)
{
	// It comes in once more, by the interface of its VLAN.
	if (skb->vlan_present)
		return NEXT;
	struct tuple key = {};
	u8 ip[40] = {};
	u32 at, length;
	int v4 = skb->protocol == swap16(ETH_P_IPV4);

	if (v4) {
		if (load_bytes(skb, ETH_LEN, ip, 20))
			return NEXT;
		// A fragment has no ports, or not all of its payload.
		if (ip[9] != TCP || (ip[6] & 0x3f) || ip[7])
			return NEXT;
		key.from[2] = key.to[2] = swap32(0xffff);
		__builtin_memcpy(&key.from[3], &ip[12], 4);
		__builtin_memcpy(&key.to[3], &ip[16], 4);
		u32 header = (ip[0] & 15) * 4;

		at = ETH_LEN + header;
		length = (ip[2] << 8 | ip[3]) - header;
		// A packet of more than 64 KiB does not say so (BIG TCP).
		if (ip[2] == 0 && ip[3] == 0)
			length = skb->len - at;
	} else if (skb->protocol == swap16(ETH_P_IPV6)) {
		if (load_bytes(skb, ETH_LEN, ip, 40) || ip[6] != TCP)
			return NEXT;
		__builtin_memcpy(key.from, &ip[8], 16);
		__builtin_memcpy(key.to, &ip[24], 16);
		at = ETH_LEN + 40;
		length = ip[4] << 8 | ip[5];
		if (!length)
			length = skb->len - at;
	} else {
		return NEXT;
	}

	struct tcp old = {};

	if (load_bytes(skb, at, &old, TCP_MIN))
		return NEXT;
	key.from_port = old.from_port;
	key.to_port = old.to_port;
	struct flow *flow = map_lookup(&FLOWS, &key);

	if (!flow)
		return NEXT;
	u32 slot = flow->slot, peer = slot ^ 1;
	struct seen *seen = map_lookup(&SEEN, &slot);
	struct seen *other = map_lookup(&SEEN, &peer);
	u32 header = (old.length >> 4) * 4;

	// A flow's packet that cannot be translated is lost: passed up, it would be answered with a reset.
	if (!seen || !other || header < TCP_MIN || header > TCP_MAX || header > length)
		return DROP;
	u32 extra = header - TCP_MIN;

	if (extra > 0 && extra <= TCP_MAX - TCP_MIN && load_bytes(skb, at + TCP_MIN, old.options, extra))
		return DROP;
	u32 ended = FIN_OF_OTHER_ACKED;

	// The ports of a session that is over are used again.
	if (old.flags & TH_SYN && ((seen->state | other->state) & RESET || (seen->state & other->state & ended))) {
		struct tuple back = {};

		__builtin_memcpy(back.from, flow->as.to, 16);
		__builtin_memcpy(back.to, flow->as.from, 16);
		back.from_port = flow->as.to_port;
		back.to_port = flow->as.from_port;
		map_delete(&FLOWS, &key);
		map_delete(&FLOWS, &back);
		return NEXT;
	}
	u32 checksum = at + __builtin_offsetof(struct tcp, checksum);
	int reset = note(&old, length - header, flow, seen, other);

	// It would destroy what tlb's sockets still have for its receiver, who learns of it when they are done.
	if (flow->flags & LATE && old.flags & TH_RST && reset)
		return DROP;
	if (flow->flags & LATE && old.flags == TH_ACK && header == length && !after(swap32(old.ack), flow->own_end)) {
		u32 seq = swap32(flow->own_next);

		// Its sender may be further ahead than the socket's window is wide, which would refuse all of it then.
		l4_csum(skb, checksum, old.seq, seq, 4);
		store_bytes(skb, at + __builtin_offsetof(struct tcp, seq), &seq, 4, 0);
		return NEXT;
	}

	struct tcp new = old;

	new.from_port = flow->as.from_port;
	new.to_port = flow->as.to_port;
	new.seq = swap32(swap32(old.seq) + flow->seq_add);
	u32 cut = 0;

	if (old.flags & TH_ACK) {
		u32 ack = swap32(old.ack), most = flow->own_end + AHEAD;

		if (flow->flags & LATE && after(ack, most))
			cut = ack - most;
		new.ack = swap32(ack - cut + flow->ack_add);
	}
	if (!(old.flags & TH_SYN)) {
		// It ends where it ended. A peer that has sent more than it may puts old numbers on its acknowledgements
		// (`tcp_acceptable_seq`), and two of these do not hear each other any more.
		u32 window = (((u32)swap16(old.window) << (flow->scale_in & 15)) + cut) >> (flow->scale_out & 15);

		new.window = swap16(window > 65535 ? 65535 : window);
	}
	options(&new, extra, flow, seen, other);

	long tcp_diff = csum_diff(&old, header, &new, header, 0);

	if (v4) {
		u32 addresses[2] = { flow->as.from[3], flow->as.to[3] };
		long diff = csum_diff(&ip[12], 8, addresses, 8, 0);

		l4_csum(skb, checksum, 0, diff, BPF_F_PSEUDO_HDR);
		l3_csum(skb, ETH_LEN + 10, 0, diff, 0);
		store_bytes(skb, ETH_LEN + 12, addresses, 8, 0);
	} else {
		long diff = csum_diff(&ip[8], 32, &flow->as, 32, 0);

		// BPF_F_IPV6, which kernels before 6.16 do not have.
		if (l4_csum(skb, checksum, 0, diff, BPF_F_PSEUDO_HDR | 1 << 7))
			l4_csum(skb, checksum, 0, diff, BPF_F_PSEUDO_HDR);
		store_bytes(skb, ETH_LEN + 8, &flow->as, 32, 0);
	}
	l4_csum(skb, checksum, 0, tcp_diff, 0);
	// All but the checksum, which is right already.
	store_bytes(skb, at, &new, 16, 0);
	if (extra > 0 && extra <= TCP_MAX - TCP_MIN)
		store_bytes(skb, at + TCP_MIN, new.options, extra, 0);
	if (flow->ifindex)
		return redirect_neigh(flow->ifindex, 0, 0, 0);
	return NEXT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
