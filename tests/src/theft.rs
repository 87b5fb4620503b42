//! Takes bytes from a process's own socket behind its back, as a debugger or a stolen descriptor could:
//! the witness must see them although the process never did.

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
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

/// Waits until every thread of a process that was sent `SIGSTOP` stands still.
///
/// # Errors
/// When one goes on.
pub fn wait_stopped(pid: u32) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut stopped = true;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = fs::read_to_string(thread?.path().join("stat"))?;
            // The state follows the name, which is in parentheses and may hold anything.
            stopped &= stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        }
        if stopped {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "process {pid} did not stop");
        std::thread::yield_now();
    }
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
