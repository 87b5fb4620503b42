//! Hook: `cgroup/connect6` on the root of cgroup2.
//!
//! Context: process context of the caller, on the kernel's own copy of the address, before the socket is
//! connected: the one place that knows who connects. `user_ip6` is the only address that this hook may read; IPv4 through a socket of this family is mapped into it.
//! Another program may rewrite the address after this one; `sock_ops` looks once more.
//! Floor: 5.8 (network namespace cookie and socket storage in this hook). Where refused: `sock_ops` sees the
//! connection without its process, and user space finds it by `inet_diag`.

use aya_ebpf::{EbpfContext as _, macros::cgroup_sock_addr, programs::SockAddrContext};

use super::connecting::{Call, connecting};

/// Notes who connects to an endpoint, and whoever of a watched cgroup connects. Always allows.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: the hook's own context, read field by field: a copy of it is refused by the verifier.
    unsafe {
        let address = [
            (&raw const (*addr).user_ip6[0]).read_volatile(),
            (&raw const (*addr).user_ip6[1]).read_volatile(),
            (&raw const (*addr).user_ip6[2]).read_volatile(),
            (&raw const (*addr).user_ip6[3]).read_volatile(),
        ];
        connecting(Call {
            ctx: ctx.as_ptr(),
            sk: (&raw const (*addr).__bindgen_anon_1.sk).read_volatile().cast(),
            address,
            port: u16::from_be((&raw const (*addr).user_port).read_volatile() as u16),
            protocol: (&raw const (*addr).protocol).read_volatile(),
        });
    }
    1
}
