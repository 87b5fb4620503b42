//! Hook: `tp_btf/tcp_destroy_sock(struct sock *sk)`.
//!
//! Context: any, as the kernel lets go of a socket. The safety net of the table: a socket that was already
//! closed when it was chosen changes its state no more, and its slot would never be given away.
//! Floor: 5.5. Where refused: such slots stay until the programs are loaded anew.

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};

use crate::socket::{Sock, closed, slot_of, storage};

/// Starts the time after which a chosen socket's slot may be given away.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    let sk: Sock = ctx.arg(0);
    // SAFETY: the tracepoint's own argument, which is never null.
    unsafe {
        if let Some(slot) = storage(sk).and_then(|kept| slot_of(kept)) {
            closed(slot, bpf_ktime_get_ns());
        }
    }
    0
}
