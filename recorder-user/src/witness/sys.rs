//! System calls that the standard library does not have: socket options, `FIONREAD`, the clocks, and memory
//! shared with the kernel.
#![allow(
    unsafe_code,
    reason = "getsockopt, ioctl, clock_gettime, mmap and bpf are reached through libc"
)]

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering, fence},
};

/// The socket's cookie: unique within a boot.
pub(super) fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match socket_option(fd, libc::SOL_SOCKET, libc::SO_COOKIE, &mut bytes)? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The cookie of a socket's network namespace: unique within a boot. Needs kernel 5.14.
pub(super) fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    /// `SO_NETNS_COOKIE` of `include/uapi/asm-generic/socket.h`.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut bytes = [0; 8];
    match socket_option(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut bytes)? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Room for every `struct tcp_info` so far; a longer one of a later kernel is cut by the kernel.
pub(super) const TCP_INFO_BYTES: usize = 256;

/// `struct tcp_info`, and how many of its bytes this kernel knows.
pub(super) fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<([u8; TCP_INFO_BYTES], usize)> {
    let mut bytes = [0; TCP_INFO_BYTES];
    let length = socket_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
    Ok((bytes, length))
}

/// Bytes that the kernel received and nobody read yet.
pub(super) fn unread(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: `fd` is open while borrowed, and FIONREAD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(count.unsigned_abs().into()) }
}

/// The user that this process acts as.
pub(super) fn own_user() -> u32 {
    // SAFETY: no pointers; it cannot fail.
    unsafe { libc::geteuid() }
}

/// A clock's reading in nanoseconds.
pub(super) fn clock_ns(clock: Clock) -> i64 {
    let id = match clock {
        Clock::Monotonic => libc::CLOCK_MONOTONIC,
        Clock::Boottime => libc::CLOCK_BOOTTIME,
        Clock::Realtime => libc::CLOCK_REALTIME,
    };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; all three clocks exist on every Linux, so that it is always filled.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Which clock to read.
#[derive(Clone, Copy)]
pub(super) enum Clock {
    /// What the eBPF programs read (`bpf_ktime_get_ns`).
    Monotonic,
    /// As monotonic, but goes on in suspend.
    Boottime,
    /// The wall clock.
    Realtime,
}

fn socket_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    into: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(into.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: `fd` is open while borrowed; the kernel writes at most `length` bytes, which `into` has.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, into.as_mut_ptr().cast(), &raw mut length)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    const { assert!(mem::size_of::<libc::socklen_t>() <= mem::size_of::<usize>()) };
    Ok(length as usize)
}

/// Takes from everybody, for good, the right to write into a map of eBPF programs by system call or by mapping
/// it; the programs go on writing. (A descriptor opened for reading only could not be mapped at all.)
pub(super) fn freeze_map(map: BorrowedFd<'_>) -> io::Result<()> {
    /// `BPF_MAP_FREEZE` of `include/uapi/linux/bpf.h`; needs kernel 5.2.
    const BPF_MAP_FREEZE: libc::c_int = 22;
    let attributes = [map.as_raw_fd(), 0];
    let bytes = mem::size_of_val(&attributes);
    // SAFETY: the command reads one descriptor, which is open while borrowed, from so many bytes.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, attributes.as_ptr(), bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Words that somebody else writes, mapped read-only.
pub(super) struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is only read, by atomic loads, and stays mapped while this lives.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps so many words from the start of the file.
    pub(super) fn map(fd: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(8).filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice; `fd` is open while borrowed.
        let start = unsafe {
            let (access, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(ptr::null_mut(), bytes, access, flags, fd.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, words })
    }

    /// One word; 0 beyond the end. Nothing read later is older than it.
    pub(super) fn load(&self, index: usize) -> u64 {
        if index >= self.words {
            return 0;
        }
        // SAFETY: within the mapping, and aligned, since mappings begin at a page.
        unsafe { self.start.add(index).as_ref() }.load(Ordering::Acquire)
    }

    /// Nothing read before is newer than what is read from here on.
    pub(super) fn order() {
        fence(Ordering::Acquire);
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's, and nobody can hold a reference into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
    }
}
