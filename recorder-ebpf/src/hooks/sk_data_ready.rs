//! Hook: `tp_btf/sk_data_ready(const struct sock *sk)`.
//!
//! Context: softirq, or a process that releases the socket; `current` says nothing here. Runs when data is
//! in the receive queue and its reader is about to be told: the other end of the wait in the kernel.
//! Floor: 6.3 with BTF. Where refused: no queue times.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};

use crate::socket::{Sock, slot};

/// Notes when the oldest unread data of a chosen socket arrived.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn sk_data_ready(ctx: BtfTracePointContext) -> i32 {
    let sk: Sock = ctx.arg(0);
    // SAFETY: the tracepoint's own argument, which is never null.
    unsafe {
        if let Some(slot) = slot(sk)
            && (*slot).ready_ns == 0
        {
            (*slot).ready_ns = bpf_ktime_get_ns();
        }
    }
    0
}
