//! Who is at it: the process of the current call, for hooks that run in its context.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie},
};
use recorder_ebpf::Storage;

use crate::maps::OWNERS;

/// Where a process is: enough to tell whether anybody wants to know of what it does.
pub struct Place {
    pub cgroup_id: u64,
    pub netns_cookie: u64,
}

/// Where the current process is.
///
/// # Safety
/// `ctx` must be the context of a cgroup hook.
#[inline(always)]
pub unsafe fn place(ctx: *mut c_void) -> Place {
    // SAFETY: see above.
    unsafe {
        Place { cgroup_id: bpf_get_current_cgroup_id(), netns_cookie: bpf_get_netns_cookie(ctx) }
    }
}

/// The thread group of the current process, in the initial pid namespace.
#[inline(always)]
pub fn tgid() -> u32 {
    // SAFETY: the helper has no arguments.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// What is kept with a socket that the current process opens or binds; without role, flags and time.
#[inline(always)]
pub fn current(place: &Place) -> Storage {
    // SAFETY: the helper has no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    Storage {
        tgid: (pid_tgid >> 32) as u32,
        pid: pid_tgid as u32,
        cgroup_id: place.cgroup_id,
        netns_cookie: place.netns_cookie,
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
        ..Storage::default()
    }
}

/// Has the end of this process told. A full table forgets who was not seen for longest.
#[inline(always)]
pub fn remember(tgid: u32, role: u32) {
    let _ = OWNERS.insert(tgid, role, 0);
}
