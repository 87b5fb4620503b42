//! Hook: `cgroup/post_bind6` on the root of cgroup2.
//!
//! Context: process context of the caller, after the kernel gave it the port: the one place that knows who
//! listens. Marks a gateway's own listener, whose connections inherit the mark, and tells who else takes a
//! gateway's port in its network namespace.
//! Floor: 5.8 (socket storage in this hook). Where refused: user space marks the listener by its descriptor.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

use super::binding::bound;

/// Looks at who binds a port. Always allows.
#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    let sock = ctx.sock;
    // SAFETY: the hook's own context. `src_ip6` is the only address that this hook may read.
    unsafe {
        let local = [
            (&raw const (*sock).src_ip6[0]).read_volatile(),
            (&raw const (*sock).src_ip6[1]).read_volatile(),
            (&raw const (*sock).src_ip6[2]).read_volatile(),
            (&raw const (*sock).src_ip6[3]).read_volatile(),
        ];
        bound(sock, local);
    }
    1
}
