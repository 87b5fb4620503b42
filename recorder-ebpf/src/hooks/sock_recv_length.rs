//! Hook: `tp_btf/sock_recv_length(struct sock *sk, int ret, int flags)`.
//!
//! Context: process (or io_uring worker) context of the reader, before the system call returns. Sees
//! `read`, `recv*`, `readv` and io_uring; not `splice` out of the socket, which the gateway does not use: for
//! foreign sockets TCP's own counters at the end tell that.
//! Floor: 6.3 with BTF. Below it, or where refused: `TCP_INFO` by file descriptor, totals only.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use recorder_ebpf::kind;

use super::bytes;
use crate::socket::{Sock, connected_slot};

/// Bytes that were only looked at are read again later and count then. Who looks is noted all the same.
const MSG_PEEK: u32 = 2;

/// Counts what was received through a chosen socket.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    let flags: u32 = ctx.arg(2);
    // Nothing was given: end of stream, or an error, most often EAGAIN.
    if ret <= 0 {
        return 0;
    }
    let sk: Sock = ctx.arg(0);
    // SAFETY: the tracepoint's own argument, which is never null.
    unsafe {
        if let Some(slot) = connected_slot(sk) {
            if flags & MSG_PEEK != 0 {
                bytes::looked_at(slot);
            } else {
                bytes::moved(slot, kind::RECEIVED, ret as u64);
            }
        }
    }
    0
}
