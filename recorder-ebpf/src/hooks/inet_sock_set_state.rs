//! Hook: `tp_btf/inet_sock_set_state(const struct sock *sk, int oldstate, int newstate)`.
//!
//! Context: softirq for what the peer does, process context for what we do; `current` says nothing here.
//! Tells when a connection was established and when its end began, claims the slots of what a marked listener
//! accepts, and starts the time after which a slot may be given away.
//! Floor: 5.12 (cookie helper in tracing programs). Where refused: `sock_ops` tells the same of the sockets
//! that the cgroup hooks chose.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use recorder_ebpf::tcp_state;

use crate::socket::{Sock, connected_slot, state_changed};

/// Notes each change of state of a chosen socket.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: Sock = ctx.arg(0);
    let (old_state, new_state): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    let listen = u32::from(tcp_state::LISTEN);
    if old_state == listen || new_state == listen {
        return 0;
    }
    // SAFETY: the tracepoint's own argument, which is never null.
    let Some(slot) = (unsafe { connected_slot(sk) }) else { return 0 };
    // SAFETY: the slot comes from the table.
    unsafe { state_changed(slot, old_state, new_state) };
    debug!(&ctx, "witnessed socket: tcp state {} to {}", old_state, new_state);
    0
}
