//! Who is at it: the process of the current call, for hooks that run in its context.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_ktime_get_ns,
    },
};
use recorder_ebpf::Storage;

use crate::maps::OWNERS;

/// What is kept with a socket that the current process opens or binds; without role and flags.
///
/// # Safety
/// `ctx` must be the context of a cgroup hook.
#[inline(always)]
pub unsafe fn current(ctx: *mut c_void) -> Storage {
    // SAFETY: see above.
    unsafe {
        let pid_tgid = bpf_get_current_pid_tgid();
        Storage {
            tgid: (pid_tgid >> 32) as u32,
            pid: pid_tgid as u32,
            cgroup_id: bpf_get_current_cgroup_id(),
            netns_cookie: bpf_get_netns_cookie(ctx),
            connect_ns: bpf_ktime_get_ns(),
            comm: bpf_get_current_comm().unwrap_or([0; 16]),
            ..Storage::default()
        }
    }
}

/// Has the end of this process told. A full table forgets who was not seen for longest.
#[inline(always)]
pub fn remember(tgid: u32, role: u32) {
    let _ = OWNERS.insert(tgid, role, 0);
}
