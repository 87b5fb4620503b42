//! The shared table: one [`Slot`] per witnessed socket, written by the programs, mapped read-only by user
//! space. A socket's slot is found by its cookie on both sides, so that neither has to tell the other.
//!
//! Life of a slot: free (`cookie` 0) → claimed (the cookie, by compare-and-swap) → published (`role` not 0)
//! → closed (`closed_ns` not 0) → claimed anew once [`GRACE_NS`] have passed. Readers ignore a slot that is
//! not published, and read the cookie again after the rest: another cookie then means that it was taken over.

/// Slots of the table by default: 16 MiB. Always a power of two.
pub const SLOTS: u32 = 65_536;
/// Slots that are looked at, one after the other, for one cookie.
pub const PROBES: u32 = 8;
/// The `cookie` of a slot that is being emptied for another socket.
pub const BUSY: u64 = u64::MAX;
/// How long the totals of a closed socket stay readable.
pub const GRACE_NS: u64 = 10_000_000_000;

/// A run of calls in one direction makes one notice per this many bytes …
pub const COALESCE_BYTES: u64 = 64 * 1024;
/// … or per this time, whichever comes first; a change of direction makes one at once.
pub const COALESCE_NS: u64 = 10_000_000;

/// Whose socket it is, seen from the gateway. Zero is no role: the slot is not published.
pub mod role {
    /// Accepted by a gateway from a client.
    pub const ACCEPTED: u32 = 1;
    /// Opened by a gateway to an API endpoint.
    pub const UPSTREAM: u32 = 2;
    /// Opened to an API endpoint by somebody who is no gateway: traffic that goes round it.
    pub const FOREIGN: u32 = 3;
    /// Opened to a gateway's listener: the other end of an accepted one on this node. It has no slot.
    pub const CLIENT: u32 = 4;
    /// Opened by a process of a watched cgroup, to anywhere else.
    pub const WATCHED: u32 = 5;
    /// Chosen by user space, by its file descriptor.
    pub const ADOPTED: u32 = 6;
    /// One end of the pair that the witness's heartbeat runs through.
    pub const HEARTBEAT: u32 = 7;
    /// A gateway's listening socket; what it accepts inherits this and becomes [`ACCEPTED`]. It has no slot.
    pub const LISTENER: u32 = 8;
}

/// Bits of `flags`, in slots, in socket storage and in connection notices.
pub mod flag {
    /// Opened from a gateway's own cgroup, by another process than the gateway.
    pub const GATEWAY_CGROUP: u32 = 1;
    /// Chosen without a look at its `connect` call: what is known of the process is who ran then.
    pub const NO_CONNECT: u32 = 2;
    /// A Multipath TCP socket: its bytes travel on subflows that are not counted.
    pub const MPTCP: u32 = 4;
    /// No slot was free: the socket has no totals but TCP's own at its end.
    pub const NO_SLOT: u32 = 8;
}

/// What is known of one socket. Times are `CLOCK_MONOTONIC` in nanoseconds, 0 for never.
///
/// Byte and sequence counters only grow and are updated atomically; times and the notice book-keeping are
/// plain writes, since a race there costs at most one notice too many or too few.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// `SO_COOKIE` of the socket; 0 when the slot is free, [`BUSY`] while it changes hands.
    pub cookie: u64,
    /// See [`role`]; 0 until the slot may be read.
    pub role: u32,
    /// See [`flag`].
    pub flags: u32,
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
    /// The first counted call.
    pub first_ns: u64,
    /// The return of the latest send call that took something.
    pub last_sent_ns: u64,
    /// The return of the latest receive call that gave something.
    pub last_received_ns: u64,
    /// The start of the latest run of sends: the first one after a receive.
    pub sent_run_ns: u64,
    /// The start of the latest run of receives: the first one after a send.
    pub received_run_ns: u64,
    /// Arrival of the oldest data that nobody read yet. What a read left behind counts from the next
    /// arrival: a lower bound.
    pub ready_ns: u64,
    /// Arrival of the data that the latest run of receives began with; 0 when it was not seen.
    pub run_ready_ns: u64,
    /// Sum of the waits in the receive queue, from arrival to the call that read it.
    pub queue_ns: u64,
    /// `connect` was called, for sockets that were seen there.
    pub connect_ns: u64,
    /// The handshake was done.
    pub established_ns: u64,
    /// The connection left the state in which data flows both ways: FIN from either side, or a reset.
    pub ended_ns: u64,
    /// The connection was closed in the kernel: no byte follows.
    pub closed_ns: u64,
    /// TCP state as the kernel numbers it (`crate::tcp_state`); 0 when none was seen.
    pub tcp_state: u32,
    /// Smoothed round-trip time in µs, as of the latest change of state; 0 when unknown.
    pub srtt_us: u32,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Resets that were sent.
    pub resets_sent: u32,
    /// Resets that were received.
    pub resets_received: u32,
    /// TCP's own count at the end: bytes that the peer acknowledged, SYN and FIN included; 0 before.
    pub tcp_acked_bytes: u64,
    /// TCP's own count at the end: bytes that arrived, FIN included, read or not; 0 before.
    pub tcp_received_bytes: u64,
    /// Notices of this socket that the full ring did not take.
    pub lost_notices: u64,
    /// When the last notice was made.
    pub notice_ns: u64,
    /// Sent and received bytes together at the last notice.
    pub notice_bytes: u64,
    /// Kind of the last notice of bytes.
    pub notice_kind: u64,
    /// Bytes sent or received by calls of a process that is not the owner.
    pub other_bytes: u64,
    /// The latest such process (thread group, initial pid namespace).
    pub other_tgid: u32,
    /// The owner: who connected or listens, else who made the first call (thread group, initial pid
    /// namespace).
    pub owner_tgid: u32,
    /// The owner's cgroup: the inode number of its directory; 0 when unknown.
    pub cgroup_id: u64,
    /// When the last notice of segments sent again was made.
    pub retransmit_notice_ns: u64,
}

/// Size of a [`Slot`], a power of two.
pub const SLOT_BYTES: usize = 256;
/// The same in words.
pub const SLOT_WORDS: usize = SLOT_BYTES / 8;
const _: () = assert!(size_of::<Slot>() == SLOT_BYTES && align_of::<Slot>() == 8);

/// Whether a slot may be claimed for another socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It belongs to nobody.
    Free,
    /// Its socket was closed long enough ago; it has to be emptied first.
    Expired,
    /// It is in use.
    Taken,
}

impl Slot {
    /// The slot to look at for a cookie, at the given attempt of [`PROBES`]; `mask` is the table's size
    /// less one.
    #[inline(always)]
    #[must_use]
    pub const fn index(cookie: u64, attempt: u32, mask: u32) -> u32 {
        (cookie as u32).wrapping_add(attempt) & mask
    }

    /// What a slot held by the socket `held` is to the socket `cookie`, which looks for room. A socket that
    /// was closed and connects once more gets its own slot again.
    #[inline(always)]
    #[must_use]
    pub const fn claim(held: u64, closed_ns: u64, cookie: u64, now_ns: u64) -> Claim {
        if held == 0 {
            Claim::Free
        } else if held != BUSY
            && closed_ns != 0
            && (held == cookie || now_ns.wrapping_sub(closed_ns) >= GRACE_NS)
        {
            Claim::Expired
        } else {
            Claim::Taken
        }
    }

    /// Whether a call that was just counted is worth a notice. What it leaves out is in the totals of the
    /// next notice, and always in this slot.
    #[inline(always)]
    #[must_use]
    pub const fn notice_due(&self, kind: u16, now_ns: u64) -> bool {
        let bytes = self.sent_bytes.wrapping_add(self.received_bytes);
        self.notice_kind != kind as u64
            || self.role == role::HEARTBEAT
            || bytes.wrapping_sub(self.notice_bytes) >= COALESCE_BYTES
            || now_ns.wrapping_sub(self.notice_ns) >= COALESCE_NS
    }

    /// A slot from the words of the table, as they lie in memory.
    #[must_use]
    pub const fn from_words(words: &[u64; SLOT_WORDS]) -> Self {
        let (role, flags) = halves(words[1]);
        let (tcp_state, srtt_us) = halves(words[19]);
        let (resets_sent, resets_received) = halves(words[21]);
        let (other_tgid, owner_tgid) = halves(words[29]);
        Self {
            cookie: words[0],
            role,
            flags,
            seq: words[2],
            sent_bytes: words[3],
            received_bytes: words[4],
            sent_calls: words[5],
            received_calls: words[6],
            first_ns: words[7],
            last_sent_ns: words[8],
            last_received_ns: words[9],
            sent_run_ns: words[10],
            received_run_ns: words[11],
            ready_ns: words[12],
            run_ready_ns: words[13],
            queue_ns: words[14],
            connect_ns: words[15],
            established_ns: words[16],
            ended_ns: words[17],
            closed_ns: words[18],
            tcp_state,
            srtt_us,
            retransmits: words[20],
            resets_sent,
            resets_received,
            tcp_acked_bytes: words[22],
            tcp_received_bytes: words[23],
            lost_notices: words[24],
            notice_ns: words[25],
            notice_bytes: words[26],
            notice_kind: words[27],
            other_bytes: words[28],
            other_tgid,
            owner_tgid,
            cgroup_id: words[30],
            retransmit_notice_ns: words[31],
        }
    }
}

/// Two `u32` that lie one behind the other in memory.
const fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind;

    #[test]
    fn a_slot_is_read_back_word_by_word() {
        // Every u32 of the table another value: a field at the wrong place shows.
        let mut words = [0; SLOT_WORDS];
        for (at, word) in (0u32..).zip(&mut words) {
            let (low, high) = ((2 * at + 1).to_ne_bytes(), (2 * at + 2).to_ne_bytes());
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&low);
            bytes[4..].copy_from_slice(&high);
            *word = u64::from_ne_bytes(bytes);
        }
        let slot = Slot::from_words(&words);
        // SAFETY: both are 256 bytes of plain integers.
        let laid_out: [u64; SLOT_WORDS] = unsafe { core::mem::transmute(slot) };
        assert_eq!(laid_out, words);
        assert_eq!((slot.role, slot.flags), (3, 4));
        assert_eq!((slot.other_tgid, slot.owner_tgid), (59, 60));
    }

    #[test]
    fn a_cookies_slots_follow_each_other_and_wrap_around() {
        let mask = SLOTS - 1;
        let slots: [u32; 8] =
            core::array::from_fn(|attempt| Slot::index(0x7_0000_fffe, attempt as u32, mask));
        assert_eq!(slots, [65_534, 65_535, 0, 1, 2, 3, 4, 5]);
        assert_eq!(Slot::index(u64::from(u32::MAX), 1, mask), 0);
        assert_eq!(PROBES, 8);
    }

    #[test]
    fn a_slot_is_given_away_only_after_its_time() {
        assert_eq!(Slot::claim(0, 0, 9, 5), Claim::Free);
        assert_eq!(Slot::claim(7, 0, 9, u64::MAX), Claim::Taken, "still open");
        assert_eq!(Slot::claim(7, 100, 9, 99 + GRACE_NS), Claim::Taken, "still readable");
        assert_eq!(Slot::claim(7, 100, 9, 100 + GRACE_NS), Claim::Expired);
        assert_eq!(Slot::claim(BUSY, 100, 9, 100 + GRACE_NS), Claim::Taken, "somebody is at it");
        assert_eq!(Slot::claim(7, 100, 7, 101), Claim::Expired, "its own, from before");
        assert_eq!(Slot::claim(7, 0, 7, 101), Claim::Taken, "its own, claimed a moment ago");
    }

    #[test]
    fn a_run_in_one_direction_is_coalesced_by_bytes_and_time() {
        let mut slot = Slot { role: role::ACCEPTED, ..Slot::default() };
        assert!(slot.notice_due(kind::SENT, 5), "the first call makes a notice");
        slot.notice_kind = kind::SENT.into();
        slot.notice_ns = 1_000;
        slot.sent_bytes = COALESCE_BYTES - 1;
        assert!(!slot.notice_due(kind::SENT, 1_001));
        assert!(slot.notice_due(kind::RECEIVED, 1_001), "a change of direction");
        assert!(slot.notice_due(kind::SENT, 1_000 + COALESCE_NS), "time");
        slot.sent_bytes += 1;
        assert!(slot.notice_due(kind::SENT, 1_001), "bytes");
        slot.sent_bytes -= 1;
        slot.role = role::HEARTBEAT;
        assert!(slot.notice_due(kind::SENT, 1_001), "a beat is never left out");
    }
}
