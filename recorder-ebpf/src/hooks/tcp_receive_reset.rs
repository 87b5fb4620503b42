//! Hook: `tp_btf/tcp_receive_reset(struct sock *sk)`.
//!
//! Context: softirq for what the peer caused, process context for what we did; `current` says nothing here.
//! Comes before the state changes to CLOSE.
//! Floor: 5.12 (cookie helper in tracing programs). Where refused: an end without FIN is only told by the
//! order of the states.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use recorder_ebpf::kind;

use crate::{
    atomic,
    ring::emit,
    socket::{Sock, slot},
};

/// Counts resets that were received on a chosen socket.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    let sk: Sock = ctx.arg(0);
    if sk.is_null() {
        return 0;
    }
    // SAFETY: the tracepoint's own argument, not null; the slot comes from the table.
    unsafe {
        let Some(slot) = slot(sk) else { return 0 };
        let total = atomic::add32(&raw mut (*slot).resets_received, 1);
        emit(slot, kind::RESET_RECEIVED, bpf_ktime_get_ns(), [total, 0]);
    }
    0
}
