//! Hook: `sock_ops` on the root of cgroup2.
//!
//! Context: process context for `connect` and `listen`, softirq for the rest; `current` is not looked at.
//! Tells the life of the connections that the other cgroup hooks chose, with addresses, and TCP's own
//! counters at the end, which also count what left a socket by `splice`. It finds connections to endpoints
//! that the `connect` hooks did not see there, since another program rewrote the address after them.
//! Asks for callbacks on changes of state of chosen sockets only, and never for one per round trip.
//! Floor: 5.8 (socket storage in this hook). Where refused: states come from `inet_sock_set_state`, and
//! connections that went round the gateway have totals without TCP's own.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock_ops,
    },
    helpers::generated::{
        bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sock_ops_cb_flags_set,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use recorder_ebpf::{
    ConnectionNotice, Endpoint, GatewayKey, Storage, count, endpoint, flag, kind, role, tcp_state,
    v4_mapped,
};

use crate::{
    maps::{ENDPOINTS, GATEWAYS, increment},
    ring::{emit_connection, emit_stranger},
    socket::{Sock, accepted, choose, claim, has_slot, slot_of, state_changed, storage},
};

const AF_INET: u32 = 2;

/// Follows chosen connections.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    // SAFETY: the hook's own context.
    unsafe { life(ctx.ops) };
    // Neither refuses nor replies: the kernel, or another program, decides.
    1
}

#[inline(always)]
unsafe fn life(ops: *mut bpf_sock_ops) {
    // SAFETY: `ops` is the hook's context, read field by field: a copy is refused by the verifier.
    unsafe {
        let op = (&raw const (*ops).op).read_volatile();
        let sk: Sock = (&raw const (*ops).__bindgen_anon_2.sk).read_volatile().cast();
        if sk.is_null() {
            return;
        }
        match op {
            BPF_SOCK_OPS_TCP_LISTEN_CB => listening(ops, sk),
            BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(ops, sk),
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(ops, sk, kind::ESTABLISHED),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ops, sk, 0),
            BPF_SOCK_OPS_STATE_CB => changed(ops, sk),
            _ => {}
        }
    }
}

/// A marked listener passes the wish for callbacks on to what it accepts. One that nobody marked, on a
/// gateway's port, is told of.
#[inline(always)]
unsafe fn listening(ops: *mut bpf_sock_ops, sk: Sock) {
    // SAFETY: as for `life`.
    unsafe {
        if let Some(kept) = storage(sk)
            && (*kept).role == role::LISTENER
        {
            want_states(ops);
            return;
        }
        let netns_cookie = bpf_get_netns_cookie(ops.cast());
        let local_port = (&raw const (*ops).local_port).read_volatile() as u16;
        if GATEWAYS.get_ptr(GatewayKey::port(netns_cookie, local_port)).is_some() {
            let facts = ConnectionNotice { netns_cookie, flags: flag::NO_CONNECT, ..facts(ops) };
            emit_stranger(kind::LISTEN, bpf_get_socket_cookie(ops.cast()), facts);
        }
    }
}

/// The address is final now: before the SYN, after whatever other programs did to it.
#[inline(always)]
unsafe fn connecting(ops: *mut bpf_sock_ops, sk: Sock) {
    // SAFETY: as for `life`.
    unsafe {
        let Some(kept) = storage(sk).or_else(|| found(ops, sk)) else { return };
        want_states(ops);
        if (*kept).slot == 0 && has_slot((*kept).role) {
            claim(kept, bpf_get_socket_cookie(ops.cast()));
        }
    }
}

/// Chooses a connection to an endpoint that no other hook chose.
#[inline(always)]
unsafe fn found(ops: *mut bpf_sock_ops, sk: Sock) -> Option<*mut Storage> {
    // SAFETY: as for `life`.
    unsafe {
        let netns_cookie = bpf_get_netns_cookie(ops.cast());
        let facts = facts(ops);
        let key = Endpoint::new(facts.remote, facts.remote_port, netns_cookie);
        let role = match *ENDPOINTS.get_ptr(key)? {
            endpoint::GATEWAY => role::CLIENT,
            _ => role::FOREIGN,
        };
        let kept = choose(
            sk,
            Storage {
                role,
                flags: flag::NO_CONNECT,
                netns_cookie,
                connect_ns: bpf_ktime_get_ns(),
                ..Storage::default()
            },
        )?;
        emit_connection(kept, kind::CONNECT, bpf_get_socket_cookie(ops.cast()), facts);
        Some(kept)
    }
}

/// The handshake is done. `kind` is that of the notice for those who look after connections round the
/// gateway; 0 for accepted ones.
#[inline(always)]
unsafe fn established(ops: *mut bpf_sock_ops, sk: Sock, kind: u16) {
    // SAFETY: as for `life`.
    unsafe {
        let Some(kept) = storage(sk) else { return };
        accepted(kept);
        want_states(ops);
        let cookie = bpf_get_socket_cookie(ops.cast());
        if (*kept).slot == 0 && has_slot((*kept).role) {
            claim(kept, cookie);
        }
        if let Some(slot) = slot_of(kept) {
            if (*slot).established_ns == 0 {
                (*slot).established_ns = bpf_ktime_get_ns();
            }
            (*slot).srtt_us = (&raw const (*ops).srtt_us).read_volatile() >> 3;
        }
        if kind != 0 && is_told((*kept).role) {
            emit_connection(kept, kind, cookie, facts(ops));
        }
    }
}

/// A change of state, told before it happens.
#[inline(always)]
unsafe fn changed(ops: *mut bpf_sock_ops, sk: Sock) {
    // SAFETY: as for `life`.
    unsafe {
        let old = (&raw const (*ops).__bindgen_anon_1.args[0]).read_volatile();
        let new = (&raw const (*ops).__bindgen_anon_1.args[1]).read_volatile();
        let Some(kept) = storage(sk) else { return };
        if old == u32::from(tcp_state::LISTEN) || (*kept).role == role::LISTENER {
            return;
        }
        let mut facts = facts(ops);
        facts.old_state = old;
        let closed = new == u32::from(tcp_state::CLOSE);
        if let Some(slot) = slot_of(kept) {
            if facts.srtt_us != 0 {
                (*slot).srtt_us = facts.srtt_us;
            }
            if u64::from(facts.retransmits) > (*slot).retransmits {
                (*slot).retransmits = facts.retransmits.into();
            }
            if closed {
                (*slot).tcp_acked_bytes = facts.tcp_acked_bytes;
                (*slot).tcp_received_bytes = facts.tcp_received_bytes;
            }
        }
        if closed && is_told((*kept).role) {
            emit_connection(kept, kind::CLOSED, bpf_get_socket_cookie(ops.cast()), facts);
        }
        if let Some(slot) = slot_of(kept) {
            state_changed(slot, old, new);
        }
    }
}

/// Whether connection notices are made of sockets of this role: the gateway knows its own.
#[inline(always)]
const fn is_told(role: u32) -> bool {
    matches!(role, role::FOREIGN | role::CLIENT | role::WATCHED)
}

/// Asks for a callback at each change of state, beside whatever other programs asked for.
#[inline(always)]
unsafe fn want_states(ops: *mut bpf_sock_ops) {
    // SAFETY: as for `life`.
    unsafe {
        let flags = (&raw const (*ops).bpf_sock_ops_cb_flags).read_volatile();
        if flags & BPF_SOCK_OPS_STATE_CB_FLAG != 0 {
            return;
        }
        if bpf_sock_ops_cb_flags_set(ops, (flags | BPF_SOCK_OPS_STATE_CB_FLAG) as i32) != 0 {
            increment(count::CALLBACKS_REFUSED);
        }
    }
}

/// Addresses and TCP's own counters. Every field is read before any choice between two of them: otherwise
/// the compiler chooses the address, and the verifier refuses to read the context through it.
#[inline(always)]
unsafe fn facts(ops: *mut bpf_sock_ops) -> ConnectionNotice {
    // SAFETY: as for `life`.
    unsafe {
        let local4 = (&raw const (*ops).local_ip4).read_volatile();
        let remote4 = (&raw const (*ops).remote_ip4).read_volatile();
        let local6 = [
            (&raw const (*ops).local_ip6[0]).read_volatile(),
            (&raw const (*ops).local_ip6[1]).read_volatile(),
            (&raw const (*ops).local_ip6[2]).read_volatile(),
            (&raw const (*ops).local_ip6[3]).read_volatile(),
        ];
        let remote6 = [
            (&raw const (*ops).remote_ip6[0]).read_volatile(),
            (&raw const (*ops).remote_ip6[1]).read_volatile(),
            (&raw const (*ops).remote_ip6[2]).read_volatile(),
            (&raw const (*ops).remote_ip6[3]).read_volatile(),
        ];
        let v4 = (&raw const (*ops).family).read_volatile() == AF_INET;
        ConnectionNotice {
            local: if v4 { v4_mapped(local4) } else { local6 },
            remote: if v4 { v4_mapped(remote4) } else { remote6 },
            // Host byte order, and network byte order in the upper half.
            local_port: (&raw const (*ops).local_port).read_volatile() as u16,
            remote_port: u32::from_be((&raw const (*ops).remote_port).read_volatile()) as u16,
            srtt_us: (&raw const (*ops).srtt_us).read_volatile() >> 3,
            retransmits: (&raw const (*ops).total_retrans).read_volatile(),
            tcp_acked_bytes: (&raw const (*ops).bytes_acked).read_volatile(),
            tcp_received_bytes: (&raw const (*ops).bytes_received).read_volatile(),
            ..ConnectionNotice::default()
        }
    }
}
