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
    for number in descriptors(pid, |link| link.starts_with("socket:"))? {
        let socket = TcpStream::from(copy(pid, number)?);
        if socket.peer_addr().is_ok_and(|peer| peer.port() == peer_port) {
            return Ok(socket);
        }
    }
    bail!("process {pid} holds no socket towards port {peer_port}")
}

/// Detaches the `sock_ops` program of process `pid`, as root does it with `bpftool link detach`.
///
/// # Errors
/// When it has none, or the kernel does not allow it.
pub fn cut_off_sock_ops(pid: u32) -> Result<()> {
    const BPF_LINK_DETACH: libc::c_long = 34;
    for number in descriptors(pid, |link| link.contains("bpf_link"))? {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
        // 3 is `BPF_CGROUP_SOCK_OPS`.
        if !info.lines().any(|line| line == "attach_type:\t3") {
            continue;
        }
        let link = copy(pid, number)?;
        let attributes = [link.as_raw_fd(), 0];
        // SAFETY: the command reads one descriptor from so many bytes.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, attributes.as_ptr(), 8) };
        ensure!(result == 0, "detach the program: {}", std::io::Error::last_os_error());
        return Ok(());
    }
    bail!("process {pid} holds no link of a sock_ops program")
}

/// The numbers of a process's descriptors of which `is_it` is true.
fn descriptors(pid: u32, is_it: impl Fn(&str) -> bool) -> Result<Vec<libc::c_int>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if is_it(&fs::read_link(entry.path()).unwrap_or_default().to_string_lossy()) {
            numbers.push(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Ok(numbers)
}

/// A copy of a descriptor of process `pid`.
fn copy(pid: u32, number: libc::c_int) -> Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).context("a process id")?;
    // SAFETY: pidfd_open takes no pointers; the descriptor that it returns is ours alone.
    let handle = unsafe { owned(libc::syscall(libc::SYS_pidfd_open, pid, 0)) };
    let handle = handle.context("pidfd_open")?;
    // SAFETY: pidfd_getfd takes no pointers; the descriptor that it returns is ours alone.
    let copy =
        unsafe { owned(libc::syscall(libc::SYS_pidfd_getfd, handle.as_raw_fd(), number, 0)) };
    copy.context("pidfd_getfd")
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
