//! One witnessed socket.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, atomic::Ordering},
};

use recorder_ebpf::{Slot, Storage, role};

use super::{
    Ebpf, KernelSample, Loss, Means, Shared, notices::SocketNotices, probe::chain, split::Session,
    sys, tcp_info,
};
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
    /// A FIN is one of `in_bytes`, most likely: the connection is closed, and a read gave the end of what the peer
    /// sends. After a reset it may have done so without a FIN.
    pub maybe_fin: bool,
}

impl TcpTotals {
    /// Bytes that arrived and were read, without the FIN, beside other counts of the same: where one of them is equal
    /// there was none.
    #[must_use]
    pub fn in_bytes_beside(&self, others: [u64; 2]) -> u64 {
        let fin = self.maybe_fin && !others.contains(&self.in_bytes);
        self.in_bytes.saturating_sub(fin.into())
    }
}

/// A socket that the witness watches. Dropping it ends that; the socket itself is the gateway's.
pub struct SocketWitness {
    shared: Arc<Shared>,
    cookie: u64,
    watched: Watched,
}

enum Watched {
    Ebpf(Arc<SocketNotices>),
    /// The probe's programs chose the socket, and count it while that probe lives.
    Probe(Arc<Session>, Arc<SocketNotices>),
    TcpInfo,
    /// Made while there was no probe.
    Lost,
    Not(String),
}

impl SocketWitness {
    pub(super) fn new(shared: Arc<Shared>, fd: BorrowedFd<'_>) -> Self {
        let (cookie, watched) = match sys::cookie(fd) {
            Ok(cookie) => (cookie, watch(&shared, cookie, fd)),
            Err(error) => (0, Watched::Not(format!("cannot read the socket's cookie: {error}"))),
        };
        shared.adopted.fetch_add(1, Ordering::Relaxed);
        let witness = Self { shared, cookie, watched };
        if let Some(reason) = witness.unwitnessed()
            && !matches!(witness.shared.means, Means::Off)
        {
            witness.shared.unwitnessed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(cookie, %reason, "socket is not witnessed");
        }
        witness
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
            Watched::Lost => Some("the probe is lost"),
            Watched::Ebpf(_) | Watched::Probe(..) | Watched::TcpInfo => None,
        }
    }

    /// Whether the probe that counts, or should have counted, this socket is gone and another is there, which
    /// would count a new one.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        let Means::Probe(remote) = &self.shared.means else { return false };
        match &self.watched {
            Watched::Probe(session, _) => !session.lives() && remote.link.session().is_some(),
            Watched::Lost => remote.link.session().is_some(),
            _ => false,
        }
    }

    /// The kernel's totals now: no system call with eBPF, three with `TCP_INFO`. `fd` must be the socket
    /// that was adopted. None when it is not witnessed, or the kernel does not answer (which is counted).
    #[must_use]
    pub fn totals(&self, fd: BorrowedFd<'_>) -> Option<KernelTotals> {
        let totals = match &self.watched {
            Watched::Not(_) | Watched::Lost => return None,
            Watched::TcpInfo => self.tcp_info_totals(fd),
            Watched::Ebpf(notices) => self.ebpf_totals(fd, notices),
            Watched::Probe(session, notices) => self.probe_totals(session, notices),
        };
        if totals.is_none() {
            self.shared.unread_totals.fetch_add(1, Ordering::Relaxed);
        }
        totals
    }

    /// All that the programs keep of the socket now, without a system call: totals, times, queue, resets. None
    /// when no program counts it, or nothing passed through it yet. Times are the kernel's, see
    /// [`Witness::wall`](super::Witness::wall).
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        match (&self.watched, &self.shared.means) {
            (Watched::Ebpf(_), Means::Ebpf(ebpf)) => ebpf.table.read(self.cookie),
            (Watched::Probe(session, _), _) => session.read(self.cookie),
            _ => None,
        }
    }

    /// Where notices of this socket were lost on the way; at most eight places. Totals do not depend on them.
    #[must_use]
    pub fn losses(&self) -> Vec<Loss> {
        match &self.watched {
            Watched::Ebpf(notices) | Watched::Probe(_, notices) => notices.losses(),
            Watched::TcpInfo | Watched::Lost | Watched::Not(_) => vec![],
        }
    }

    /// The final totals. Call it before `close(2)`: without eBPF, what the kernel keeps goes with the socket.
    #[must_use]
    pub fn close(self, fd: BorrowedFd<'_>) -> Option<KernelTotals> {
        self.totals(fd)
    }

    /// The kernel's numbers without a system call; none where the tier does not have them in shared memory, and
    /// before the first byte.
    #[must_use]
    pub fn sample(&self) -> Option<KernelSample> {
        self.slot().as_ref().map(KernelSample::from)
    }

    /// The wall-clock time of a kernel time; none of 0.
    #[must_use]
    pub fn wall(&self, ktime_ns: u64) -> Option<Timestamp> {
        self.shared.anchor.wall(ktime_ns)
    }

    /// TCP's own count of a socket that programs count too: three system calls, for when the connection closes.
    /// `saw_end` if a read gave the end of what the peer sends.
    #[must_use]
    pub fn tcp_totals(&self, fd: BorrowedFd<'_>, saw_end: bool) -> Option<TcpTotals> {
        let (Watched::Ebpf(_) | Watched::Probe(..)) = &self.watched else { return None };
        let counted = tcp_info::counted(fd)
            .inspect_err(|error| tracing::warn!(cookie = self.cookie, %error, "no TCP_INFO"))
            .ok()?;
        let tcp_info::Counted { in_bytes, out_bytes, unread_bytes, maybe_fin } = counted;
        let maybe_fin = maybe_fin && saw_end;
        Some(TcpTotals { in_bytes, out_bytes, unread_bytes, maybe_fin })
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
        if let Some(slot) = ebpf.table.read(self.cookie) {
            return Some(self.slot_totals(&slot, notices.holes()));
        }
        // Long closed: another socket has the slot.
        if let Some((in_bytes, out_bytes)) = notices.final_totals() {
            let (lost_events, seq) = (notices.holes(), notices.seq());
            return Some(KernelTotals {
                in_bytes,
                out_bytes,
                lost_events,
                seq,
                ..KernelTotals::default()
            });
        }
        match ebpf.probe.storage(fd) {
            // Adopted, and no program saw it since: nothing passed.
            Ok(storage) if storage.slot == 0 => Some(KernelTotals::default()),
            Ok(_) => {
                tracing::warn!(
                    cookie = self.cookie,
                    "the table of totals had no room for a socket"
                );
                None
            }
            Err(error) => {
                tracing::warn!(cookie = self.cookie, %error, "no totals of a witnessed socket");
                None
            }
        }
    }

    /// None once the probe is lost: what passed since was not counted.
    fn probe_totals(&self, session: &Session, notices: &SocketNotices) -> Option<KernelTotals> {
        if let Some(slot) = session.read(self.cookie) {
            return Some(self.slot_totals(&slot, notices.holes()));
        }
        if !session.lives() {
            return None;
        }
        // Long closed: another socket has the slot.
        let (in_bytes, out_bytes) = notices.final_totals()?;
        let (lost_events, seq) = (notices.holes(), notices.seq());
        Some(KernelTotals { in_bytes, out_bytes, lost_events, seq, ..KernelTotals::default() })
    }

    /// `holes` are notices known to be missing, which the kernel side may know of too.
    fn slot_totals(&self, slot: &Slot, holes: u64) -> KernelTotals {
        let wall = |ns| self.shared.anchor.wall(ns);
        KernelTotals {
            in_bytes: slot.received_bytes,
            out_bytes: slot.sent_bytes,
            first: wall(slot.first_ns),
            last: wall(slot.last_sent_ns.max(slot.last_received_ns)),
            ended: wall(slot.ended_ns),
            // The kernel knows at once what its ring refused; a hole also shows what was lost later.
            lost_events: slot.lost_notices.max(holes),
            seq: slot.seq,
        }
    }
}

impl Drop for SocketWitness {
    fn drop(&mut self) {
        self.shared.closed.fetch_add(1, Ordering::Relaxed);
        match (&self.watched, &self.shared.means) {
            (Watched::Ebpf(_), Means::Ebpf(ebpf)) => ebpf.correlator.forget(self.cookie),
            (Watched::Probe(..), Means::Probe(remote)) => remote.correlator.forget(self.cookie),
            _ => {}
        }
    }
}

fn watch(shared: &Shared, cookie: u64, fd: BorrowedFd<'_>) -> Watched {
    match &shared.means {
        Means::Off => Watched::Not("the witness is off".to_owned()),
        // What TCP_INFO is worth on this socket shows here, not only when totals are asked for.
        Means::TcpInfo(_) => match tcp_info::counted(fd) {
            Ok(_) => Watched::TcpInfo,
            Err(error) => Watched::Not(format!("no TCP_INFO: {error}")),
        },
        Means::Probe(remote) => match remote.link.session() {
            Some(session) => match session.read(cookie) {
                Some(slot) => {
                    let notices = remote.correlator.track(cookie, slot.seq);
                    Watched::Probe(session, notices)
                }
                None => Watched::Not("the probe's programs did not choose the socket".to_owned()),
            },
            None => Watched::Lost,
        },
        Means::Ebpf(ebpf) => match adopt(ebpf, cookie, fd) {
            Ok(notices) => Watched::Ebpf(notices),
            Err(why) => Watched::Not(format!("the kernel keeps no totals: {why}")),
        },
    }
}

/// Takes over a socket that the programs chose, or has them count it from now on.
fn adopt(ebpf: &Ebpf, cookie: u64, fd: BorrowedFd<'_>) -> Result<Arc<SocketNotices>, String> {
    if let Some(slot) = ebpf.table.read(cookie) {
        return Ok(ebpf.correlator.track(cookie, slot.seq));
    }
    // Tracked before adopted: no notice comes before its socket is known.
    let notices = ebpf.correlator.track(cookie, 0);
    let storage = Storage { role: role::ADOPTED, ..Storage::default() };
    let Err(error) = ebpf.probe.adopt(fd, storage) else { return Ok(notices) };
    let why = match ebpf.probe.storage(fd) {
        // Adopted a moment ago, by another handle.
        Ok(storage) if storage.slot == 0 && storage.role == role::ADOPTED => return Ok(notices),
        Ok(storage) if storage.slot == Storage::NO_SLOT => "the table of totals is full".to_owned(),
        Ok(storage) if storage.role == role::CLIENT => {
            "it is the other end of a gateway's connection".to_owned()
        }
        _ => chain(&error),
    };
    ebpf.correlator.forget(cookie);
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fin_is_left_out_unless_the_others_say_that_there_was_none() {
        let tcp = |in_bytes, maybe_fin| TcpTotals { in_bytes, maybe_fin, ..TcpTotals::default() };
        assert_eq!(tcp(101, true).in_bytes_beside([100, 100]), 100);
        assert_eq!(tcp(100, true).in_bytes_beside([100, 100]), 100, "a reset, and then an end");
        assert_eq!(tcp(100, true).in_bytes_beside([0, 100]), 100, "the hooks agree");
        assert_eq!(tcp(201, true).in_bytes_beside([100, 100]), 200, "100 taken by splice");
        assert_eq!(tcp(101, false).in_bytes_beside([100, 100]), 101, "the account's to judge");
    }
}
