//! A network namespace of this process's own.
//!
//! Nodes need interfaces, addresses and routes; in a namespace that dies with the process they meet neither
//! the machine's nor those of a run beside this one. Only what is built from other people's sources needs
//! the machine's network, and is started there ([`outside`]).

use std::fs::File;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};

/// An address of the host for pods, whose loopback is their own; there is one once there is a node.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);

/// The namespace in which this process was started, once it has left it.
static OUTSIDE: OnceLock<File> = OnceLock::new();

/// Moves this process into a new network namespace with nothing but `lo`, which is brought up.
///
/// To be called first of all: a namespace belongs to a thread, and new threads inherit it.
///
/// # Errors
/// When there are other threads already, or without `CAP_SYS_ADMIN`.
pub fn isolate() -> Result<()> {
    let threads = std::fs::read_dir("/proc/self/task").context("count the threads")?.count();
    ensure!(threads == 1, "{threads} threads run already, and would stay in the old namespace");
    let outside = File::open("/proc/self/ns/net").context("open the network namespace")?;
    // SAFETY: no pointers; the flag touches nothing but the calling thread's network namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error()).context("make a network namespace");
    }
    OUTSIDE.set(outside).expect("with one thread nobody else was here");
    bring_up_loopback().context("bring up lo")
}

/// Whether this process has a network namespace of its own.
#[must_use]
pub fn isolated() -> bool {
    OUTSIDE.get().is_some()
}

/// Has `command` run in the network in which this process was started: it downloads something.
pub fn outside(command: &mut Command) {
    let Some(namespace) = OUTSIDE.get() else { return };
    let namespace = namespace.as_raw_fd();
    // SAFETY: the closure runs between fork and exec and makes one system call (async-signal-safe); the
    // descriptor stays open, since the static is never dropped.
    unsafe {
        command.pre_exec(move || {
            if libc::setns(namespace, libc::CLONE_NEWNET) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

fn bring_up_loopback() -> io::Result<()> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all fields of the structure are integers and byte arrays: zero is a value of each.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is a valid ifreq that lives until the call returns.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
