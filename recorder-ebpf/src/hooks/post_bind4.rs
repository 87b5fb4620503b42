//! Hook: `cgroup/post_bind4` on the root of cgroup2.
//!
//! Context: process context of the caller, after the kernel gave it the port: the one place that knows who
//! listens. Marks a gateway's own listener, whose connections inherit the mark, and tells who else takes a
//! gateway's port in its network namespace.
//! Floor: 5.8 (socket storage in this hook). Where refused: user space marks the listener by its descriptor.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use recorder_ebpf::v4_mapped;

use super::binding::bound;

/// Looks at who binds a port. Always allows.
#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    // SAFETY: the hook's own context. `src_ip4` is the only address that this hook may read.
    unsafe { bound(ctx.sock, v4_mapped((&raw const (*ctx.sock).src_ip4).read_volatile())) };
    1
}
