//! The records of the ring: [`Notice`] about a witnessed socket, [`ConnectionNotice`] about who opened or
//! bound one. Both begin with the same [`Head`], and nothing else comes through the ring.
//!
//! Notices carry running totals and are numbered per socket, so that a lost one is a visible hole while
//! totals stay exact. Both kinds are counted together per socket.

use crate::ABI_VERSION;

/// What a record tells. Those below [`CONNECT`](kind::CONNECT) are [`Notice`]s, the others [`ConnectionNotice`]s.
pub mod kind {
    /// Bytes were sent through the socket.
    pub const SENT: u16 = 1;
    /// Bytes were received through the socket.
    pub const RECEIVED: u16 = 2;
    /// The TCP state changed: `detail` is the old and the new state.
    pub const STATE: u16 = 3;
    /// Segments were sent again: `detail` is how many so far.
    pub const RETRANSMIT: u16 = 4;
    /// A reset was sent: `detail` is how many so far.
    pub const RESET_SENT: u16 = 5;
    /// A reset was received: `detail` is how many so far.
    pub const RESET_RECEIVED: u16 = 6;
    /// A process that is not the owner sent or received: `detail` is its thread group and thread.
    pub const INTRUDER: u16 = 7;
    /// A process that owns sockets ended: `detail` is its thread group and the [role](crate::role) it had; no
    /// socket, so that `cookie` and `seq` are 0.
    pub const EXIT: u16 = 8;

    /// `connect` was called towards an endpoint, or by a watched cgroup. It may still fail.
    pub const CONNECT: u16 = 32;
    /// The handshake of such a connection was done: now it has a local address.
    pub const ESTABLISHED: u16 = 33;
    /// Such a connection is over; TCP's final counters are in it.
    pub const CLOSED: u16 = 34;
    /// Somebody else bound a gateway's port in its network namespace.
    pub const BIND: u16 = 35;
    /// A gateway, or somebody else on its port, began to listen.
    pub const LISTEN: u16 = 36;
}

/// What both kinds of record begin with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// [`ABI_VERSION`] of the programs.
    pub version: u16,
    /// See [`kind`].
    pub kind: u16,
    /// The CPU that made it.
    pub cpu: u32,
    /// Counts the records of one socket from 1; a hole is a lost record. 0 where there is no slot to count in.
    pub seq: u64,
    /// `CLOCK_MONOTONIC`.
    pub ktime_ns: u64,
    /// `SO_COOKIE`.
    pub cookie: u64,
}

/// A record about a witnessed socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// The common head.
    pub head: Head,
    /// Total sent, this call included.
    pub sent_bytes: u64,
    /// Total received, this call included.
    pub received_bytes: u64,
    /// See [`kind`].
    pub detail: [u32; 2],
    /// See [`role`](crate::role).
    pub role: u32,
    /// Thread group of the owner, in the initial pid namespace; 0 when unknown.
    pub owner_tgid: u32,
}

/// A record about who opened, or bound, a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionNotice {
    /// The common head.
    pub head: Head,
    /// The network namespace; 0 when unknown.
    pub netns_cookie: u64,
    /// The cgroup: the inode number of its directory below the root of cgroup2.
    pub cgroup_id: u64,
    /// Thread group, in the initial pid namespace.
    pub tgid: u32,
    /// Thread.
    pub pid: u32,
    /// Command name of the thread, NUL-padded.
    pub comm: [u8; 16],
    /// Local address; all zero before it is chosen. See [`socket_address`](crate::socket_address).
    pub local: [u32; 4],
    /// The other end's address; all zero for a bound one.
    pub remote: [u32; 4],
    /// Local port; 0 before it is chosen.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
    /// See [`role`](crate::role).
    pub role: u32,
    /// See [`flag`](crate::flag).
    pub flags: u32,
    /// The TCP state before, for [`kind::CLOSED`]: `SYN_SENT` is a connection that never came to be.
    pub old_state: u32,
    /// Total of the send calls; 0 without a slot.
    pub sent_bytes: u64,
    /// Total of the receive calls, without what left the socket by `splice`; 0 without a slot.
    pub received_bytes: u64,
    /// TCP's own count: bytes that the other end acknowledged, with one for the SYN, and one for a FIN.
    pub tcp_acked_bytes: u64,
    /// TCP's own count: bytes that arrived, with one for a FIN.
    pub tcp_received_bytes: u64,
    /// Smoothed round-trip time in µs; 0 when unknown.
    pub srtt_us: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// `CLOCK_MONOTONIC` of the call to `connect`; 0 when it was not seen.
    pub connect_ns: u64,
}

/// Size of a [`Notice`] in the ring.
pub const NOTICE_BYTES: usize = 64;
/// Size of a [`ConnectionNotice`] in the ring.
pub const CONNECTION_NOTICE_BYTES: usize = 168;

const _: () = assert!(size_of::<Head>() == 32 && align_of::<Head>() == 8);
const _: () = assert!(size_of::<Notice>() == NOTICE_BYTES && align_of::<Notice>() == 8);
const _: () = assert!(size_of::<ConnectionNotice>() == CONNECTION_NOTICE_BYTES);

/// A record of the ring, whichever kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingRecord {
    /// About a witnessed socket.
    Socket(Notice),
    /// About who opened, or bound, one.
    Connection(ConnectionNotice),
}

impl RingRecord {
    /// Reads a record from the bytes of the ring, whatever their alignment. None when they are too few, or
    /// of another ABI version.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields { rest: bytes };
        let head = Head {
            version: fields.half()?,
            kind: fields.half()?,
            cpu: fields.word()?,
            seq: fields.double()?,
            ktime_ns: fields.double()?,
            cookie: fields.double()?,
        };
        if head.version != ABI_VERSION {
            return None;
        }
        if head.kind < kind::CONNECT {
            fields.notice(head).map(Self::Socket)
        } else {
            fields.connection(head).map(Self::Connection)
        }
    }
}

/// Bytes that are taken from the front, field by field.
struct Fields<'b> {
    rest: &'b [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn half(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn double(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    fn address(&mut self) -> Option<[u32; 4]> {
        Some([self.word()?, self.word()?, self.word()?, self.word()?])
    }

    fn notice(&mut self, head: Head) -> Option<Notice> {
        Some(Notice {
            head,
            sent_bytes: self.double()?,
            received_bytes: self.double()?,
            detail: [self.word()?, self.word()?],
            role: self.word()?,
            owner_tgid: self.word()?,
        })
    }

    fn connection(&mut self, head: Head) -> Option<ConnectionNotice> {
        Some(ConnectionNotice {
            head,
            netns_cookie: self.double()?,
            cgroup_id: self.double()?,
            tgid: self.word()?,
            pid: self.word()?,
            comm: self.array()?,
            local: self.address()?,
            remote: self.address()?,
            local_port: self.half()?,
            remote_port: self.half()?,
            role: self.word()?,
            flags: self.word()?,
            old_state: self.word()?,
            sent_bytes: self.double()?,
            received_bytes: self.double()?,
            tcp_acked_bytes: self.double()?,
            tcp_received_bytes: self.double()?,
            srtt_us: self.word()?,
            retransmits: self.word()?,
            connect_ns: self.double()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        version: ABI_VERSION,
        kind: kind::STATE,
        cpu: 3,
        seq: 7,
        ktime_ns: 1 << 40,
        cookie: 42,
    };

    fn bytes_of<T: Copy, const N: usize>(record: T) -> [u8; N] {
        assert_eq!(size_of::<T>(), N);
        // SAFETY: the same size, and the records have no padding (asserted by the sizes of their fields).
        unsafe { core::mem::transmute_copy(&record) }
    }

    #[test]
    fn a_notice_is_read_back_field_by_field() {
        let notice = Notice {
            head: HEAD,
            sent_bytes: 1 << 33,
            received_bytes: 9,
            detail: [1, 8],
            role: crate::role::UPSTREAM,
            owner_tgid: 4_711,
        };
        let mut bytes: [u8; NOTICE_BYTES] = bytes_of(notice);
        assert_eq!(RingRecord::parse(&bytes), Some(RingRecord::Socket(notice)));
        for short in 0..NOTICE_BYTES {
            assert_eq!(RingRecord::parse(&bytes[..short]), None, "{short} bytes");
        }
        bytes[0] ^= 0x40;
        assert_eq!(RingRecord::parse(&bytes), None, "another version");
    }

    #[test]
    fn a_connection_notice_is_read_back_field_by_field() {
        let notice = ConnectionNotice {
            head: Head { kind: kind::CLOSED, ..HEAD },
            netns_cookie: 1,
            cgroup_id: 2,
            tgid: 3,
            pid: 4,
            comm: *b"kubectl\0\0\0\0\0\0\0\0\0",
            local: [5, 6, 7, 8],
            remote: [9, 10, 11, 12],
            local_port: 13,
            remote_port: 14,
            role: 15,
            flags: 16,
            old_state: 17,
            sent_bytes: 18,
            received_bytes: 19,
            tcp_acked_bytes: 20,
            tcp_received_bytes: 21,
            srtt_us: 22,
            retransmits: 23,
            connect_ns: 24,
        };
        let bytes: [u8; CONNECTION_NOTICE_BYTES] = bytes_of(notice);
        assert_eq!(RingRecord::parse(&bytes), Some(RingRecord::Connection(notice)));
        for short in 0..CONNECTION_NOTICE_BYTES {
            assert_eq!(RingRecord::parse(&bytes[..short]), None, "{short} bytes");
        }
    }
}
