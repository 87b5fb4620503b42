//! ABI version 1, until the programs and the loader are of version 2.

/// Raised on any change of layout or meaning; every notice carries it.
pub const ABI_VERSION: u16 = 1;

/// Names of the maps and of the programs in the object: the loader looks them up by these.
pub mod name {
    /// `BPF_MAP_TYPE_SK_STORAGE` of [`SocketState`](super::SocketState).
    pub const SOCKETS: &str = "SOCKETS";
    /// `BPF_MAP_TYPE_RINGBUF` of [`Notice`](super::Notice).
    pub const NOTICES: &str = "NOTICES";
    /// `BPF_MAP_TYPE_PERCPU_ARRAY` of `u64`, indexed by [`count`](super::count).
    pub const COUNTS: &str = "COUNTS";
    /// The program on `sock_send_length`.
    pub const SOCK_SEND_LENGTH: &str = "sock_send_length";
    /// The program on `sock_recv_length`.
    pub const SOCK_RECV_LENGTH: &str = "sock_recv_length";
    /// The program on `inet_sock_set_state`.
    pub const INET_SOCK_SET_STATE: &str = "inet_sock_set_state";
}

/// What a [`Notice`] tells.
pub mod kind {
    /// Bytes were sent through the socket.
    pub const SENT: u16 = 1;
    /// Bytes were received through the socket.
    pub const RECEIVED: u16 = 2;
    /// The TCP state changed.
    pub const STATE: u16 = 3;
}

/// Indexes of the per-CPU counters.
pub mod count {
    /// Notices handed to the ring.
    pub const EMITTED: u32 = 0;
    /// Notices that the full ring did not take.
    pub const RING_FULL: u32 = 1;
    /// Length of the array.
    pub const LEN: usize = 2;
}

/// What the kernel keeps with every adopted socket. All zero at adoption.
///
/// Byte and sequence counters only grow and are updated atomically; the times and the notice
/// book-keeping are plain writes, since a race there costs at most one notice too many or too few.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// Notices made for this socket, emitted or lost.
    pub seq: u64,
    /// Bytes that send calls took.
    pub sent_bytes: u64,
    /// Bytes that receive calls gave, without those only peeked at.
    pub received_bytes: u64,
    /// Send calls that took something.
    pub sent_calls: u64,
    /// Receive calls that gave something.
    pub received_calls: u64,
    /// `CLOCK_MONOTONIC` of the first counted call; 0 before it.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` of the last counted call; 0 before the first.
    pub last_ns: u64,
    /// Notices of this socket that the full ring did not take.
    pub lost_notices: u64,
    /// When the last notice was made.
    pub notice_ns: u64,
    /// Sent and received bytes together at the last notice.
    pub notice_bytes: u64,
    /// Kind of the last notice.
    pub notice_kind: u64,
}

/// A run of calls in one direction makes one notice per this many bytes …
pub const COALESCE_BYTES: u64 = 64 * 1024;
/// … or per this time, whichever comes first; a change of direction makes one at once.
pub const COALESCE_NS: u64 = 10_000_000;

impl SocketState {
    /// Whether a call that was just counted is worth a notice. What it leaves out is in the totals of the
    /// next notice, and always in this state.
    #[inline(always)]
    #[must_use]
    pub const fn notice_due(&self, kind: u16, now_ns: u64) -> bool {
        let bytes = self.sent_bytes.wrapping_add(self.received_bytes);
        self.notice_kind != kind as u64
            || bytes.wrapping_sub(self.notice_bytes) >= COALESCE_BYTES
            || now_ns.wrapping_sub(self.notice_ns) >= COALESCE_NS
    }
}

/// One record of the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// [`ABI_VERSION`] of the programs.
    pub version: u16,
    /// See [`kind`].
    pub kind: u16,
    /// The CPU that made it.
    pub cpu: u32,
    /// Counts the notices of one socket from 1; a hole is a lost notice.
    pub seq: u64,
    /// `CLOCK_MONOTONIC`.
    pub ktime_ns: u64,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// Total sent, this call included.
    pub sent_bytes: u64,
    /// Total received, this call included.
    pub received_bytes: u64,
    /// Old TCP state, for [`kind::STATE`].
    pub old_state: u32,
    /// New TCP state, for [`kind::STATE`].
    pub new_state: u32,
}

const _: () = assert!(size_of::<SocketState>() == 88 && align_of::<SocketState>() == 8);
const _: () = assert!(size_of::<Notice>() == NOTICE_BYTES && align_of::<Notice>() == 8);

/// Size of a [`Notice`] in the ring.
pub const NOTICE_BYTES: usize = 56;

impl Notice {
    /// Reads a notice from the bytes of the ring, whatever their alignment. None when they are too few or
    /// of another ABI version.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..NOTICE_BYTES)?;
        let half = |at| Some(u16::from_ne_bytes(*array(bytes, at)?));
        let word = |at| Some(u32::from_ne_bytes(*array(bytes, at)?));
        let double = |at| Some(u64::from_ne_bytes(*array(bytes, at)?));
        let notice = Self {
            version: half(0)?,
            kind: half(2)?,
            cpu: word(4)?,
            seq: double(8)?,
            ktime_ns: double(16)?,
            cookie: double(24)?,
            sent_bytes: double(32)?,
            received_bytes: double(40)?,
            old_state: word(48)?,
            new_state: word(52)?,
        };
        (notice.version == ABI_VERSION).then_some(notice)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}
