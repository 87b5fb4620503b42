//! How much room the file system has: the one question that std has no word for.

#![allow(unsafe_code, reason = "statvfs has no safe wrapper in std")]

use std::{ffi::CString, mem::MaybeUninit, os::unix::ffi::OsStrExt as _, path::Path};

/// Bytes that an ordinary user may still write; none if it cannot be told.
pub(super) fn free_disk_bytes(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut facts = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string that outlives the call, and `facts` has room for the struct.
    if unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: statvfs returned 0, so it filled the struct.
    let facts = unsafe { facts.assume_init() };
    facts.f_bavail.checked_mul(facts.f_frsize)
}
