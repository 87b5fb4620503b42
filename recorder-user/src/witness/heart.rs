//! The witness's heartbeat: a byte through a connection of its own, which the programs must count.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
};

use recorder_ebpf::{Storage, role};

use super::{
    clock::monotonic_ns,
    health::INTERVAL,
    probe::{Probe, chain},
    sys,
    table::Table,
};

/// A connection of the witness to itself, through which one byte goes at each look.
pub(super) struct Heart {
    near: TcpStream,
    far: TcpStream,
    near_cookie: u64,
    far_cookie: u64,
    /// Bytes that the kernel side counted so far, at either end.
    counted: [u64; 2],
    /// The total whose notice is waited for, and since when.
    waits: Option<(u64, u64)>,
}

impl Heart {
    /// Connects, and has the programs count both ends.
    ///
    /// # Errors
    /// When there is no loopback connection, or the kernel keeps nothing with it.
    pub(super) fn new(probe: &Probe) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(INTERVAL))?;
            stream.set_write_timeout(Some(INTERVAL))?;
            let storage = Storage { role: role::HEARTBEAT, ..Storage::default() };
            let adopted = probe.adopt(stream.as_fd(), storage);
            adopted.map_err(|error| io::Error::other(chain(&error)))?;
        }
        let (near_cookie, far_cookie) = (sys::cookie(near.as_fd())?, sys::cookie(far.as_fd())?);
        Ok(Self { near, far, near_cookie, far_cookie, counted: [0; 2], waits: None })
    }

    /// Sends a byte. False when the kernel side did not count it at both ends.
    pub(super) fn beat(&mut self, table: &Table) -> bool {
        let passed = self.near.write_all(&[1]).and_then(|()| self.far.read_exact(&mut [0]));
        if let Err(error) = passed {
            tracing::warn!(%error, "the heartbeat's own connection broke");
            return false;
        }
        let sent = table.read(self.near_cookie).map_or(0, |slot| slot.sent_bytes);
        let received = table.read(self.far_cookie).map_or(0, |slot| slot.received_bytes);
        let before = std::mem::replace(&mut self.counted, [sent, received]);
        if self.waits.is_none() && sent > before[0] {
            self.waits = Some((sent, monotonic_ns()));
        }
        self.counted == before.map(|bytes| bytes + 1)
    }

    /// Whether the notice of an earlier beat is overdue. `notices_seen` is what notices told of so far.
    pub(super) fn waits_too_long(&mut self, notices_seen: u64, deadline_ns: u64) -> bool {
        let Some((beat, since_ns)) = self.waits else { return false };
        if notices_seen >= beat {
            self.waits = None;
            return false;
        }
        monotonic_ns().saturating_sub(since_ns) > deadline_ns
    }
}
