//! Hook: `tp_btf/sock_send_length(struct sock *sk, int ret, int flags)`.
//!
//! Context: process (or io_uring worker) context of the sender, after the protocol took the bytes and
//! before the system call returns: the totals are exact by the time that user space knows. Sees
//! `write`, `send*`, `writev`, `sendfile`, io_uring, and `splice` into the socket.
//! Floor: 6.3 with BTF. Below it, or where refused: `TCP_INFO` by file descriptor, totals only.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use recorder_ebpf::kind;

use super::bytes;
use crate::socket::{Sock, connected_slot};

/// Counts what was sent through a chosen socket.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    // Nothing was taken: an error, most often EAGAIN.
    if ret <= 0 {
        return 0;
    }
    let sk: Sock = ctx.arg(0);
    // SAFETY: the tracepoint's own argument, which is never null.
    unsafe {
        if let Some(slot) = connected_slot(sk) {
            bytes::moved(slot, kind::SENT, ret as u64);
        }
    }
    0
}
