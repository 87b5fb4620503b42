//! Takes bytes from a process's own socket behind its back, as a debugger or a stolen descriptor could:
//! the witness must see them although the process never did.

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// A copy of the socket that process `pid` holds towards `peer_port`.
///
/// # Errors
/// When there is none, or the kernel does not allow it (it needs root, and Linux 5.6).
pub fn socket_towards(pid: u32, peer_port: u16) -> Result<TcpStream> {
    let pid = libc::pid_t::try_from(pid).context("a process id")?;
    // SAFETY: pidfd_open takes no pointers; the descriptor that it returns is ours alone.
    let handle = unsafe { owned(libc::syscall(libc::SYS_pidfd_open, pid, 0)) };
    let handle = handle.context("pidfd_open")?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let link = fs::read_link(entry.path()).unwrap_or_default();
        if !link.to_string_lossy().starts_with("socket:") {
            continue;
        }
        let number: libc::c_int = entry.file_name().to_string_lossy().parse()?;
        // SAFETY: pidfd_getfd takes no pointers; the descriptor that it returns is ours alone.
        let copy =
            unsafe { owned(libc::syscall(libc::SYS_pidfd_getfd, handle.as_raw_fd(), number, 0)) };
        let socket = TcpStream::from(copy.context("pidfd_getfd")?);
        if socket.peer_addr().is_ok_and(|peer| peer.port() == peer_port) {
            return Ok(socket);
        }
    }
    bail!("process {pid} holds no socket towards port {peer_port}")
}

/// Reads `count` bytes from a (non-blocking) socket.
///
/// # Errors
/// When they do not come.
pub fn read(mut socket: &TcpStream, count: usize) -> Result<()> {
    let mut bytes = vec![0; count];
    let mut taken = 0;
    let deadline = Instant::now() + LIMIT;
    while taken < count {
        match socket.read(&mut bytes[taken..]) {
            Ok(0) => bail!("the connection ended after {taken} bytes"),
            Ok(more) => taken += more,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ensure!(Instant::now() < deadline, "only {taken} bytes came");
                std::thread::yield_now();
            }
            Err(error) => return Err(error).context("read the stolen socket"),
        }
    }
    Ok(())
}

/// Takes `count` bytes out of a socket by `splice`, which no hook on the receive call sees.
///
/// # Errors
/// When they do not come.
pub fn splice(socket: &TcpStream, count: usize) -> Result<()> {
    let (_reader, writer) = std::io::pipe().context("make a pipe")?;
    let mut taken = 0;
    let deadline = Instant::now() + LIMIT;
    while taken < count {
        let (from, to) = (socket.as_raw_fd(), writer.as_raw_fd());
        // SAFETY: both descriptors are open, and no offsets are given, so that no pointer is followed.
        let moved =
            unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), count - taken, 0) };
        match usize::try_from(moved) {
            Ok(0) => bail!("the connection ended after {taken} bytes"),
            Ok(more) => taken += more,
            Err(_) => {
                let error = std::io::Error::last_os_error();
                let again = error.kind() == std::io::ErrorKind::WouldBlock;
                ensure!(again && Instant::now() < deadline, "splice after {taken} bytes: {error}");
                std::thread::yield_now();
            }
        }
    }
    Ok(())
}

/// # Safety
/// `result` must be what a system call returned that makes a new descriptor.
unsafe fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let number = i32::try_from(result).context("a descriptor")?;
    if number < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: by the caller's promise the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

const LIMIT: Duration = Duration::from_secs(10);
