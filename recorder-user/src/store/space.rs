//! How much space a file system has, and space that is set aside: what std has no words for.

#![allow(unsafe_code, reason = "statvfs and fallocate have no safe wrapper in std")]

use std::{
    ffi::CString,
    fs::File,
    io,
    mem::MaybeUninit,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

/// What a file system has and has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes that an ordinary user may still write.
    pub free_bytes: u64,
    /// Files that an ordinary user may still make; none where the file system has no such bound.
    pub free_files: Option<u64>,
}

/// None if it cannot be told.
pub(super) fn space(path: &Path) -> Option<Space> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut facts = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string that outlives the call, and `facts` has room for the struct.
    if unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: statvfs returned 0, so it filled the struct.
    let facts = unsafe { facts.assume_init() };
    Some(Space {
        bytes: facts.f_blocks.checked_mul(facts.f_frsize)?,
        free_bytes: facts.f_bavail.checked_mul(facts.f_frsize)?,
        // btrfs and others make files as long as there are bytes, and say zero of zero.
        free_files: (facts.f_files > 0).then_some(facts.f_favail),
    })
}

/// Sets space aside up to this length and leaves the file's own as it is.
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = bytes.try_into().map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open as long as `file` is borrowed, and no memory is passed.
        let done =
            unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, bytes) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // Both are said by file systems and kernels that know no such thing.
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Err(io::ErrorKind::Unsupported.into()),
            _ => return Err(error),
        }
    }
}
