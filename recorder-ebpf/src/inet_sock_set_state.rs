//! Hook: `tp_btf/inet_sock_set_state(const struct sock *sk, int oldstate, int newstate)`.
//!
//! Context: softirq for what the peer does, process context for what we do; `current` says nothing here.
//! Tells when the end of an adopted connection began, and carries its totals at that instant.
//! Floor: 5.12 (cookie helper in tracing programs). Where refused: the end is known only from reads.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use recorder_ebpf::v1::kind;

use crate::socket::{Event, Sock, adopted, emit};

/// Makes a notice of each state change of an adopted socket.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: Sock = ctx.arg(0);
    let Some(state) = adopted(sk) else {
        return 0;
    };
    let (old_state, new_state): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    // SAFETY: the helper has no arguments; `state` comes from `adopted`.
    unsafe {
        let now = bpf_ktime_get_ns();
        emit(sk, state, Event { kind: kind::STATE, now, old_state, new_state });
    }
    debug!(&ctx, "adopted socket: tcp state {} to {}", old_state, new_state);
    0
}
