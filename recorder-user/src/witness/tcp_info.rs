//! The witness without eBPF: the TCP stack's own counters of a socket, by file descriptor.
//!
//! What the gateway wrote is `bytes_sent − bytes_retrans + notsent_bytes`: everything that TCP took from
//! it, sent or still queued. What it read is `bytes_received` less what waits unread in the queue and less
//! the FIN, which the kernel counts as a byte. All of it needs kernel 4.19.

use std::{io, os::fd::BorrowedFd};

use recorder_ebpf::tcp_state;

use super::sys;

/// Bytes through a socket since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) in_bytes: u64,
    pub(super) out_bytes: u64,
    /// Arrived and not read; not in `in_bytes`.
    pub(super) unread_bytes: u64,
    /// The connection is closed: a FIN, if there was one, is still in `in_bytes`.
    pub(super) maybe_fin: bool,
}

/// Reads a socket's counters.
///
/// # Errors
/// When the descriptor is not a TCP socket, or the kernel is too old to count.
pub(super) fn counted(fd: BorrowedFd<'_>) -> io::Result<Counted> {
    let mut info = Info::read(fd)?;
    // The queue's length and the counters are two calls: they belong together when no byte arrived
    // between. A stream that never pauses gets the last attempt, which may be short of the newest bytes.
    for _ in 0..ATTEMPTS {
        let unread = sys::unread(fd)?;
        let again = Info::read(fd)?;
        let stable = again.received == info.received;
        info = again;
        if stable {
            return Ok(info.counted(unread));
        }
    }
    let unread = sys::unread(fd)?;
    Ok(info.counted(unread))
}

/// Bytes sent and received (also those that nobody has read yet) by a `struct tcp_info` that the kernel gave; none
/// where it does not count.
pub(super) fn totals(bytes: &[u8]) -> Option<(u64, u64)> {
    let info = Info::parse(bytes)?;
    Some((info.sent_bytes(), info.received_bytes()))
}

const ATTEMPTS: u32 = 8;

/// The fields of `struct tcp_info` used here.
#[derive(Clone, Copy, Debug, Default)]
struct Info {
    state: u8,
    received: u64,
    not_sent: u64,
    sent: u64,
    retransmitted: u64,
}

// Offsets in `struct tcp_info` (include/uapi/linux/tcp.h), which only ever grows at its end.
const STATE: usize = 0;
const BYTES_RECEIVED: usize = 128;
const NOTSENT_BYTES: usize = 144;
const BYTES_SENT: usize = 200;
const BYTES_RETRANS: usize = 208;
const END: usize = 216;

impl Info {
    fn read(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (bytes, length) = sys::tcp_info(fd)?;
        Self::parse(bytes.get(..length).unwrap_or(&bytes)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "TCP_INFO has no byte counts on this kernel")
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..END)?;
        let double = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u64::from_ne_bytes(*b));
        let word = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b));
        Some(Self {
            state: *bytes.get(STATE)?,
            received: double(BYTES_RECEIVED)?,
            not_sent: word(NOTSENT_BYTES)?.into(),
            sent: double(BYTES_SENT)?,
            retransmitted: double(BYTES_RETRANS)?,
        })
    }

    fn counted(&self, unread_bytes: u64) -> Counted {
        Counted {
            in_bytes: self.received_bytes().saturating_sub(unread_bytes),
            out_bytes: self.sent_bytes(),
            unread_bytes,
            maybe_fin: self.state == tcp_state::CLOSE,
        }
    }

    /// Payload received. In state CLOSE the kernel does not tell whether there was a FIN: the account
    /// allows for that byte.
    fn received_bytes(&self) -> u64 {
        let fin = matches!(
            self.state,
            tcp_state::CLOSE_WAIT | tcp_state::LAST_ACK | tcp_state::CLOSING | tcp_state::TIME_WAIT
        );
        self.received.saturating_sub(fin.into())
    }

    /// Payload taken from the writer. A FIN that waits behind unsent bytes is counted among them.
    fn sent_bytes(&self) -> u64 {
        let fin = self.not_sent > 0
            && matches!(
                self.state,
                tcp_state::FIN_WAIT1 | tcp_state::LAST_ACK | tcp_state::CLOSING
            );
        let sent = self.sent.saturating_sub(self.retransmitted);
        sent.saturating_add(self.not_sent - u64::from(fin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_at_their_offsets() {
        let mut bytes = [0; END];
        bytes[0] = tcp_state::ESTABLISHED;
        bytes[BYTES_RECEIVED..][..8].copy_from_slice(&500u64.to_ne_bytes());
        bytes[NOTSENT_BYTES..][..4].copy_from_slice(&30u32.to_ne_bytes());
        bytes[BYTES_SENT..][..8].copy_from_slice(&1_000u64.to_ne_bytes());
        bytes[BYTES_RETRANS..][..8].copy_from_slice(&100u64.to_ne_bytes());
        let info = Info::parse(&bytes).expect("long enough");
        assert_eq!((info.received_bytes(), info.sent_bytes()), (500, 930));
        assert!(Info::parse(&bytes[..END - 1]).is_none(), "kernels before 4.19");
    }

    #[test]
    fn a_fin_is_no_byte() {
        let peer_left = Info { state: tcp_state::CLOSE_WAIT, received: 501, ..Info::default() };
        assert_eq!(peer_left.received_bytes(), 500);
        let we_left =
            Info { state: tcp_state::FIN_WAIT1, sent: 100, not_sent: 21, ..Info::default() };
        assert_eq!(we_left.sent_bytes(), 120);
        let delivered = Info { state: tcp_state::FIN_WAIT1, sent: 120, ..Info::default() };
        assert_eq!(delivered.sent_bytes(), 120);
    }
}
