//! Hook: `tp_btf/tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, …)`.
//!
//! Context: softirq, most often a timer; `current` says nothing here. Later kernels have a third argument.
//! Floor: 5.12 (cookie helper in tracing programs). Where refused: `sock_ops` has TCP's own number at each
//! change of state.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use recorder_ebpf::{COALESCE_NS, kind};

use crate::{
    atomic,
    ring::emit,
    socket::{Sock, slot},
};

/// Counts segments of a chosen socket that were sent again.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let sk: Sock = ctx.arg(0);
    // SAFETY: the tracepoint's own argument, which is never null; the slot comes from the table.
    unsafe {
        let Some(slot) = slot(sk) else { return 0 };
        let total = atomic::add(&raw mut (*slot).retransmits, 1);
        let now = bpf_ktime_get_ns();
        // A burst is one loss on the way: one notice tells of it.
        if now.wrapping_sub((*slot).retransmit_notice_ns) >= COALESCE_NS {
            (*slot).retransmit_notice_ns = now;
            emit(slot, kind::RETRANSMIT, now, [total as u32, 0]);
        }
    }
    0
}
