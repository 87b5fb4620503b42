//! One witnessed socket.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, atomic::Ordering},
};

use super::{KernelSample, Means, Shared, notices::SocketNotices, sys, tcp_info};
use crate::model::Timestamp;

/// What the kernel counted on a socket since it was adopted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelTotals {
    /// Bytes that this process received.
    pub in_bytes: u64,
    /// Bytes that this process sent.
    pub out_bytes: u64,
    /// When the first byte was counted; none before it, and never with `TCP_INFO`.
    pub first: Option<Timestamp>,
    /// When the last byte was counted; none before the first, and never with `TCP_INFO`.
    pub last: Option<Timestamp>,
    /// When the connection's end began: FIN from either side, or RST. None before, and never with `TCP_INFO`.
    pub ended: Option<Timestamp>,
    /// Notices of this socket that were lost on the way; the totals are exact all the same.
    pub lost_events: u64,
    /// Notices that the kernel made for this socket.
    pub seq: u64,
}

/// What TCP itself counted on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTotals {
    /// Bytes that arrived and were read, by whatever way.
    pub in_bytes: u64,
    /// Bytes that TCP took to send.
    pub out_bytes: u64,
    /// Bytes that arrived and that nobody read.
    pub unread_bytes: u64,
}

/// A socket that the witness watches. Dropping it ends that; the socket itself is the gateway's.
pub struct SocketWitness {
    shared: Arc<Shared>,
    cookie: u64,
    watched: Watched,
}

enum Watched {
    Ebpf(Arc<SocketNotices>),
    TcpInfo,
    Not(String),
}

impl SocketWitness {
    pub(super) fn new(shared: Arc<Shared>, fd: BorrowedFd<'_>) -> Self {
        let (cookie, watched) = match sys::cookie(fd) {
            Ok(cookie) => (cookie, watch(&shared, cookie, fd)),
            Err(error) => (0, Watched::Not(format!("cannot read the socket's cookie: {error}"))),
        };
        shared.adopted.fetch_add(1, Ordering::Relaxed);
        if let Watched::Not(reason) = &watched
            && !matches!(shared.means, Means::Off)
        {
            shared.unwitnessed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(cookie, %reason, "socket is not witnessed");
        }
        Self { shared, cookie, watched }
    }

    /// The socket's cookie, unique within a boot; 0 when it could not be read.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Why the socket is not witnessed; None when it is.
    #[must_use]
    pub fn unwitnessed(&self) -> Option<&str> {
        match &self.watched {
            Watched::Not(reason) => Some(reason),
            Watched::Ebpf(_) | Watched::TcpInfo => None,
        }
    }

    /// The kernel's totals now: one system call with eBPF, three with `TCP_INFO`. `fd` must be the socket
    /// that was adopted. None when it is not witnessed, or the kernel does not answer (which is counted).
    #[must_use]
    pub fn totals(&self, fd: BorrowedFd<'_>) -> Option<KernelTotals> {
        let totals = match &self.watched {
            Watched::Not(_) => return None,
            Watched::TcpInfo => self.tcp_info_totals(fd),
            Watched::Ebpf(notices) => self.ebpf_totals(fd, notices),
        };
        if totals.is_none() {
            self.shared.unread_totals.fetch_add(1, Ordering::Relaxed);
        }
        totals
    }

    /// The final totals. Call it before `close(2)`: what the kernel keeps goes with the socket.
    #[must_use]
    pub fn close(self, fd: BorrowedFd<'_>) -> Option<KernelTotals> {
        self.totals(fd)
    }

    /// The kernel's numbers without a system call; none where the tier does not have them in shared memory.
    #[must_use]
    pub fn sample(&self) -> Option<KernelSample> {
        None
    }

    /// The wall-clock time of a kernel time; none of 0, and where the tier has no kernel times.
    #[must_use]
    pub fn wall(&self, ktime_ns: u64) -> Option<Timestamp> {
        match &self.shared.means {
            Means::Ebpf(ebpf) => ebpf.anchor.wall(ktime_ns),
            Means::TcpInfo | Means::Off => None,
        }
    }

    /// TCP's own count of a socket that programs count too: three system calls, for when the connection closes.
    #[must_use]
    pub fn tcp_totals(&self, fd: BorrowedFd<'_>) -> Option<TcpTotals> {
        let Watched::Ebpf(_) = &self.watched else { return None };
        let counted = tcp_info::counted(fd)
            .inspect_err(|error| tracing::warn!(cookie = self.cookie, %error, "no TCP_INFO"))
            .ok()?;
        let tcp_info::Counted { in_bytes, out_bytes, unread_bytes } = counted;
        Some(TcpTotals { in_bytes, out_bytes, unread_bytes })
    }

    fn tcp_info_totals(&self, fd: BorrowedFd<'_>) -> Option<KernelTotals> {
        let counted = tcp_info::counted(fd)
            .inspect_err(|error| tracing::warn!(cookie = self.cookie, %error, "no TCP_INFO"))
            .ok()?;
        Some(KernelTotals {
            in_bytes: counted.in_bytes,
            out_bytes: counted.out_bytes,
            ..KernelTotals::default()
        })
    }

    fn ebpf_totals(&self, fd: BorrowedFd<'_>, notices: &SocketNotices) -> Option<KernelTotals> {
        let Means::Ebpf(ebpf) = &self.shared.means else { return None };
        let ended = ebpf.anchor.wall(notices.ended_ns());
        match ebpf.probe.state(fd) {
            Ok(state) => Some(KernelTotals {
                in_bytes: state.received_bytes,
                out_bytes: state.sent_bytes,
                first: ebpf.anchor.wall(state.first_ns),
                last: ebpf.anchor.wall(state.last_ns),
                ended,
                // The kernel knows at once what its ring refused; a hole also shows what was lost later.
                lost_events: state.lost_notices.max(notices.holes()),
                seq: state.seq,
            }),
            Err(error) => {
                tracing::warn!(cookie = self.cookie, %error, "no totals of a witnessed socket");
                let (in_bytes, out_bytes) = notices.final_totals()?;
                let (lost_events, seq) = (notices.holes(), notices.seq());
                let (first, last) = (None, None);
                Some(KernelTotals { in_bytes, out_bytes, first, last, ended, lost_events, seq })
            }
        }
    }
}

impl Drop for SocketWitness {
    fn drop(&mut self) {
        self.shared.closed.fetch_add(1, Ordering::Relaxed);
        if let (Watched::Ebpf(_), Means::Ebpf(ebpf)) = (&self.watched, &self.shared.means) {
            ebpf.correlator.forget(self.cookie);
        }
    }
}

fn watch(shared: &Shared, cookie: u64, fd: BorrowedFd<'_>) -> Watched {
    match &shared.means {
        Means::Off => Watched::Not("the witness is off".to_owned()),
        // What TCP_INFO is worth on this socket shows here, not only when totals are asked for.
        Means::TcpInfo => match tcp_info::counted(fd) {
            Ok(_) => Watched::TcpInfo,
            Err(error) => Watched::Not(format!("no TCP_INFO: {error}")),
        },
        Means::Ebpf(ebpf) => {
            // Tracked before adopted: no notice comes before its socket is known.
            let notices = ebpf.correlator.track(cookie);
            match ebpf.probe.adopt(fd) {
                Ok(()) => Watched::Ebpf(notices),
                Err(error) => {
                    ebpf.correlator.forget(cookie);
                    Watched::Not(format!(
                        "the kernel keeps no totals: {}",
                        super::probe::chain(&error)
                    ))
                }
            }
        }
    }
}
