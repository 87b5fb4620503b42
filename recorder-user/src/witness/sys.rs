//! System calls that the standard library does not have: socket options, `FIONREAD` and the clocks.
#![allow(unsafe_code, reason = "getsockopt, ioctl and clock_gettime are reached through libc")]

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// The socket's cookie: unique within a boot.
pub(super) fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match socket_option(fd, libc::SOL_SOCKET, libc::SO_COOKIE, &mut bytes)? {
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

/// A clock's reading in nanoseconds.
pub(super) fn clock_ns(clock: Clock) -> i64 {
    let id = match clock {
        Clock::Monotonic => libc::CLOCK_MONOTONIC,
        Clock::Realtime => libc::CLOCK_REALTIME,
    };
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec; both clocks exist on every Linux, so that it is always filled.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Which clock to read.
#[derive(Clone, Copy)]
pub(super) enum Clock {
    /// What the eBPF programs read (`bpf_ktime_get_ns`).
    Monotonic,
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
