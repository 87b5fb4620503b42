//! Giving up rights for good: what a process needed to load programs it does not need to read what they count.
#![allow(unsafe_code, reason = "capset and prctl are reached through libc")]

use std::{fs, io};

/// From here on this thread, and every one that it starts, has no capability, and no program that it
/// executes gains one. Call it while there is one thread only.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn drop_capabilities() -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: no pointers.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, zero, zero, zero) })?;
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    // SAFETY: no pointers.
    checked(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, zero, zero, zero) })?;
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let none = [CapabilitySets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads one header and two sets, which live until the call returns.
    checked(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) as i32 })
}

/// Whether any thread of this process has a capability in effect or permitted.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn has_capabilities() -> io::Result<bool> {
    for task in fs::read_dir("/proc/self/task")? {
        if any_set(&fs::read_to_string(task?.path().join("status"))?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn any_set(status: &str) -> bool {
    status.lines().any(|line| {
        let set = line.strip_prefix("CapEff:").or_else(|| line.strip_prefix("CapPrm:"));
        set.is_some_and(|set| set.trim().chars().any(|digit| digit != '0'))
    })
}

fn checked(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `_LINUX_CAPABILITY_VERSION_3` of `include/uapi/linux/capability.h`.
const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gave_its_capabilities_up_has_none() {
        std::thread::spawn(|| {
            drop_capabilities().expect("nobody needs a right to give up rights");
            let status = fs::read_to_string("/proc/thread-self/status").expect("status");
            assert!(!any_set(&status), "{status}");
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        })
        .join()
        .expect("the thread's own assertions");
    }

    #[test]
    fn one_bit_is_a_capability() {
        assert!(any_set("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000008000000000\n"));
        assert!(any_set("CapPrm:\t0000008000000000\n"));
        let bounding = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ff\n";
        assert!(!any_set(bounding));
    }
}
