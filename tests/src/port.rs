//! Loopback ports that no parallel run takes.
//!
//! A port found by binding port 0 can be taken again as soon as it is let go: by the next run, or by an
//! outgoing connection while the server that owns it restarts. So ports come from below the range that
//! the kernel uses for outgoing connections, and a locked file holds each for as long as it is in use.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::cache;

/// A port of 127.0.0.1, ours until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a free port.
    ///
    /// # Errors
    /// When the lock files cannot be made, or none of the range is free.
    pub fn reserve() -> Result<Self> {
        let directory = cache::directory()?.join("ports");
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        let count = RANGE.end - RANGE.start;
        for _ in 0..count {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let offset = (process_offset() + u32::from(step)) % u32::from(count);
            let number = RANGE.start + u16::try_from(offset).expect("below the range's length");
            let path = directory.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("make {}", path.display()))?;
            let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
            if lock.try_lock().is_ok() && free() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no free port in {}..{}", RANGE.start, RANGE.end)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// Runs start their search at different places, so that they seldom try the same files.
fn process_offset() -> u32 {
    std::process::id().wrapping_mul(131) % u32::from(RANGE.end - RANGE.start)
}

/// Below 32768, where Linux begins to hand out ports for outgoing connections.
const RANGE: Range<u16> = 20_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_free_and_nobody_elses() {
        let (one, two) = (Port::reserve().unwrap(), Port::reserve().unwrap());
        assert_ne!(one.number(), two.number());
        TcpListener::bind(one.address()).unwrap();
    }
}
