//! What the kernel told of a connection that is not the gateway's, in one form for all ways in which it does. Pure.

use std::net::SocketAddr;

use recorder_ebpf::{ConnectionNotice, RingRecord, flag, kind, role, socket_address, tcp_state};

use crate::{
    model::{SeenBy, Timestamp},
    witness::origin::Subject,
};

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Happened {
    /// A connection is being made; it may fail.
    #[default]
    Opening,
    /// It was made.
    Established,
    /// It is over.
    Closed,
    /// It never came to be.
    Failed,
    /// Somebody took a port.
    TookPort,
    /// Somebody moved bytes through a socket that is another's.
    Intruded,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// It goes round the gateway.
    #[default]
    Foreign,
    /// It comes to the gateway.
    Client,
    /// It goes elsewhere, from a cgroup that is watched.
    Watched,
    /// It is the gateway's own.
    Gateway,
}

/// One thing that the kernel told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// What happened.
    pub happened: Happened,
    /// Whose connection it is.
    pub whose: Whose,
    /// Who is at it.
    pub subject: Subject,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// The network namespace; 0 when unknown.
    pub netns_cookie: u64,
    /// When it happened.
    pub at: Timestamp,
    /// When the connection was begun, where that was seen.
    pub begun: Option<Timestamp>,
    /// This end.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub remote: Option<SocketAddr>,
    /// Bytes that this end sent, where they were counted.
    pub sent_bytes: Option<u64>,
    /// Bytes that this end received, where they were counted.
    pub received_bytes: Option<u64>,
    /// How it came to be known.
    pub seen_by: SeenBy,
    /// What else to know.
    pub remark: Option<&'static str>,
}

impl Sighting {
    /// Reads a record of the programs' ring; `wall` turns their times into the wall clock's. None for what is not looked
    /// after here. The addresses of a socket with a stranger on it are not in the ring.
    #[must_use]
    pub fn of_record(
        record: &RingRecord,
        now: Timestamp,
        wall: impl Fn(u64) -> Option<Timestamp>,
    ) -> Option<Self> {
        match record {
            RingRecord::Connection(notice) => Self::of_notice(notice, now, wall),
            RingRecord::Socket(notice) if notice.head.kind == kind::INTRUDER => {
                let [tgid, _] = notice.detail;
                Some(Self {
                    happened: Happened::Intruded,
                    subject: Subject { tgid, ..Subject::default() },
                    cookie: notice.head.cookie,
                    at: wall(notice.head.ktime_ns).unwrap_or(now),
                    ..Self::default()
                })
            }
            RingRecord::Socket(_) => None,
        }
    }

    /// Reads a notice of the programs; `wall` turns their times into the wall clock's. None for what is not looked
    /// after here.
    fn of_notice(
        notice: &ConnectionNotice,
        now: Timestamp,
        wall: impl Fn(u64) -> Option<Timestamp>,
    ) -> Option<Self> {
        let whose = match notice.role {
            role::CLIENT => Whose::Client,
            role::WATCHED => Whose::Watched,
            role::FOREIGN => Whose::Foreign,
            _ => Whose::Gateway,
        };
        let happened = match notice.head.kind {
            kind::CONNECT => Happened::Opening,
            kind::ESTABLISHED => Happened::Established,
            kind::CLOSED if notice.old_state == u32::from(tcp_state::SYN_SENT) => Happened::Failed,
            kind::CLOSED => Happened::Closed,
            kind::BIND | kind::LISTEN => Happened::TookPort,
            _ => return None,
        };
        // A gateway's own listener, and its own connections, are told of too.
        if whose == Whose::Gateway && (happened != Happened::TookPort || notice.role != 0) {
            return None;
        }
        let (sent_bytes, received_bytes) = totals(notice, happened);
        Some(Self {
            happened,
            whose,
            subject: Subject {
                tgid: notice.tgid,
                comm: comm(&notice.comm),
                cgroup_id: notice.cgroup_id,
            },
            cookie: notice.head.cookie,
            netns_cookie: notice.netns_cookie,
            at: wall(notice.head.ktime_ns).unwrap_or(now),
            begun: wall(notice.connect_ns),
            local: address(notice.local, notice.local_port),
            remote: address(notice.remote, notice.remote_port),
            sent_bytes,
            received_bytes,
            seen_by: SeenBy::Hooks,
            remark: remark(notice.flags),
        })
    }
}

/// The calls' totals are exact for what calls moved, TCP's own also count what left by `splice`, and a byte for the SYN
/// and one for a FIN: whichever is more. So many were sent or arrived, up to one byte where the calls count
/// less than TCP does.
fn totals(notice: &ConnectionNotice, happened: Happened) -> (Option<u64>, Option<u64>) {
    if happened != Happened::Closed {
        return (None, None);
    }
    let sent = notice.sent_bytes.max(notice.tcp_acked_bytes.saturating_sub(2));
    let received = notice.received_bytes.max(notice.tcp_received_bytes.saturating_sub(1));
    (Some(sent), Some(received))
}

fn address(address: [u32; 4], port: u16) -> Option<SocketAddr> {
    (port != 0).then(|| socket_address(address, port))
}

/// The name up to its first NUL; bytes that are no text are replaced.
fn comm(bytes: &[u8]) -> String {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

const fn remark(flags: u32) -> Option<&'static str> {
    if flags & flag::GATEWAY_CGROUP != 0 {
        Some("from the gateway's own cgroup, by another process")
    } else if flags & flag::MPTCP != 0 {
        Some("Multipath TCP: its bytes travel on other sockets, which are not counted")
    } else if flags & flag::NO_SLOT != 0 {
        Some("the table of totals was full: counted by TCP alone")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use recorder_ebpf::{ABI_VERSION, Endpoint, Head};

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

    fn wall(ns: u64) -> Option<Timestamp> {
        (ns != 0).then(|| Timestamp::from_micros(i64::try_from(ns / 1000).expect("small")))
    }

    fn notice(kind: u16, role: u32) -> ConnectionNotice {
        let remote = Endpoint::of("10.0.0.1:6443".parse().expect("an address"), 0).address;
        ConnectionNotice {
            head: Head {
                version: ABI_VERSION,
                kind,
                cookie: 7,
                ktime_ns: 9_000,
                ..Head::default()
            },
            role,
            comm: *b"curl\0garbage\0\0\0\0",
            remote,
            remote_port: 6443,
            ..ConnectionNotice::default()
        }
    }

    fn read(notice: &ConnectionNotice) -> Option<Sighting> {
        Sighting::of_notice(notice, NOW, wall)
    }

    #[test]
    fn a_connection_is_told_from_its_opening_to_its_end() {
        let opening = read(&notice(kind::CONNECT, role::FOREIGN)).expect("told");
        assert_eq!((opening.happened, opening.whose), (Happened::Opening, Whose::Foreign));
        assert_eq!((opening.subject.comm.as_str(), opening.local), ("curl", None));
        assert_eq!(opening.remote, Some("10.0.0.1:6443".parse().expect("an address")));
        assert_eq!((opening.at.as_micros(), opening.begun), (9, None));
        let client = read(&notice(kind::ESTABLISHED, role::CLIENT)).expect("told");
        assert_eq!((client.happened, client.whose), (Happened::Established, Whose::Client));
        let failed = ConnectionNotice { old_state: 2, ..notice(kind::CLOSED, role::FOREIGN) };
        assert_eq!(read(&failed).expect("told").happened, Happened::Failed);
    }

    #[test]
    fn totals_are_the_calls_or_tcps_whichever_is_more() {
        let closed = |sent, acked, received, arrived| {
            let told = read(&ConnectionNotice {
                sent_bytes: sent,
                tcp_acked_bytes: acked,
                received_bytes: received,
                tcp_received_bytes: arrived,
                ..notice(kind::CLOSED, role::FOREIGN)
            });
            let told = told.expect("told");
            (told.sent_bytes, told.received_bytes)
        };
        assert_eq!(closed(100, 102, 50, 51), (Some(100), Some(50)), "SYN and FIN are no bytes");
        assert_eq!(closed(100, 101, 50, 50), (Some(100), Some(50)), "reset");
        assert_eq!(closed(0, 5_002, 0, 701), (Some(5_000), Some(700)), "spliced");
        assert_eq!(closed(0, 0, 0, 0), (Some(0), Some(0)));
    }

    #[test]
    fn what_is_the_gateways_own_is_not_told_again() {
        assert_eq!(read(&notice(kind::CLOSED, role::UPSTREAM)), None);
        assert_eq!(read(&notice(kind::LISTEN, role::LISTENER)), None);
        assert_eq!(read(&notice(99, role::FOREIGN)), None);
        let stranger = recorder_ebpf::Notice {
            head: Head { version: ABI_VERSION, kind: kind::INTRUDER, cookie: 7, ..Head::default() },
            detail: [4_711, 4_712],
            ..recorder_ebpf::Notice::default()
        };
        let told = Sighting::of_record(&RingRecord::Socket(stranger), NOW, wall).expect("told");
        assert_eq!((told.happened, told.cookie, told.subject.tgid), (Happened::Intruded, 7, 4_711));
        let exit = Head { kind: kind::EXIT, ..stranger.head };
        let exit = RingRecord::Socket(recorder_ebpf::Notice { head: exit, ..stranger });
        assert_eq!(Sighting::of_record(&exit, NOW, wall), None);
        let taken = read(&notice(kind::BIND, 0)).expect("told");
        assert_eq!(taken.happened, Happened::TookPort);
    }
}
