//! Hook: `tp_btf/tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, …)`.
//!
//! Context: softirq for what the peer caused, process context for what we did; `current` says nothing here.
//! Also made for packets that belong to no socket: `sk` may be null.
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

/// Counts resets that were sent on a chosen socket.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let sk: Sock = ctx.arg(0);
    if sk.is_null() {
        return 0;
    }
    // SAFETY: the tracepoint's own argument, not null; the slot comes from the table.
    unsafe {
        let Some(slot) = slot(sk) else { return 0 };
        let total = atomic::add32(&raw mut (*slot).resets_sent, 1);
        emit(slot, kind::RESET_SENT, bpf_ktime_get_ns(), [total, 0]);
    }
    0
}
