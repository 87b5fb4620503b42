//! Streaming gzip decoding with a bound on what comes out.

use flate2::{Decompress, FlushDecompress, Status};

/// Plain bytes one body may inflate to; more is an error, so a bomb costs at most this much work.
pub const INFLATED_BYTES_MAX: u64 = 256 << 20;

/// Plain bytes below which the ratio is not looked at: short repetitive lists compress very well.
const RATIO_FREE_BYTES: u64 = 8 << 20;

/// Plain bytes per compressed byte above [`RATIO_FREE_BYTES`]; more is taken for a bomb. It also bounds
/// what one push can produce.
const RATIO_MAX: u64 = 200;

/// Members (concatenated gzip files) per body; a body of more is taken for malformed.
const MEMBERS_MAX: u32 = 64;

const BUFFER_BYTES: usize = 32 << 10;

/// The largest window that gzip knows: 2^15 bytes.
const WINDOW_BITS: u8 = 15;

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GunzipError {
    /// The bytes are not gzip.
    #[error("malformed gzip")]
    Malformed,
    /// More plain bytes than allowed, in all or for the bytes received.
    #[error("gzip inflates to more than allowed")]
    OverBound,
}

/// Inflates one gzip body as it arrives.
pub struct Gunzip {
    inflater: Decompress,
    buffer: Box<[u8]>,
    consumed: u64,
    produced: u64,
    members: u32,
    member_ended: bool,
}

impl Default for Gunzip {
    fn default() -> Self {
        Self::new()
    }
}

impl Gunzip {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inflater: Decompress::new_gzip(WINDOW_BITS),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            consumed: 0,
            produced: 0,
            members: 1,
            member_ended: false,
        }
    }

    /// Inflates `input` and gives the plain bytes to `sink` in pieces. Stops at the first error of
    /// either; after an error nothing further may be pushed.
    ///
    /// # Errors
    /// When the bytes are not gzip, inflate to too much, or `sink` refuses.
    pub fn push<E: From<GunzipError>>(
        &mut self,
        mut input: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            if self.member_ended {
                if input.is_empty() {
                    return Ok(());
                }
                self.next_member()?;
            }
            let before = (self.inflater.total_in(), self.inflater.total_out());
            let status = self
                .inflater
                .decompress(input, &mut self.buffer, FlushDecompress::None)
                .map_err(|_| GunzipError::Malformed)?;
            // Both differences are bounded by the lengths of the slices given.
            let consumed = (self.inflater.total_in() - before.0) as usize;
            let produced = (self.inflater.total_out() - before.1) as usize;
            input = input.get(consumed..).unwrap_or_default();
            self.consumed += consumed as u64;
            self.produced += produced as u64;
            self.check_bounds()?;
            if produced > 0 {
                sink(&self.buffer[..produced])?;
            }
            match status {
                Status::StreamEnd => self.member_ended = true,
                _ if consumed == 0 && produced == 0 && input.is_empty() => return Ok(()),
                _ if consumed == 0 && produced == 0 => return Err(GunzipError::Malformed.into()),
                _ => {}
            }
        }
    }

    /// Whether the bytes so far are whole gzip members (or nothing at all).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.member_ended || self.consumed == 0
    }

    fn next_member(&mut self) -> Result<(), GunzipError> {
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(GunzipError::Malformed);
        }
        self.inflater = Decompress::new_gzip(WINDOW_BITS);
        self.member_ended = false;
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), GunzipError> {
        let by_ratio = RATIO_FREE_BYTES.saturating_add(self.consumed.saturating_mul(RATIO_MAX));
        if self.produced > by_ratio.min(INFLATED_BYTES_MAX) {
            return Err(GunzipError::OverBound);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory")
    }

    fn inflate(bytes: &[u8], chunk: usize) -> Result<(Vec<u8>, bool), GunzipError> {
        let mut gunzip = Gunzip::new();
        let mut plain = Vec::new();
        for part in bytes.chunks(chunk) {
            gunzip.push(part, |piece| {
                plain.extend_from_slice(piece);
                Ok::<_, GunzipError>(())
            })?;
        }
        Ok((plain, gunzip.is_complete()))
    }

    #[test]
    fn every_chunking_and_several_members() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut bytes = gzip(&text);
        bytes.extend(gzip(b"second"));
        for chunk in [1, 7, 4096, usize::MAX] {
            let (plain, complete) = inflate(&bytes, chunk).expect("gzip");
            assert!(complete);
            assert_eq!(plain.len(), text.len() + 6);
            assert!(plain.ends_with(b"second"));
        }
    }

    #[test]
    fn truncated_and_malformed() {
        let bytes = gzip(b"some text that is long enough to be cut");
        for end in 1..bytes.len() {
            let (_, complete) = inflate(&bytes[..end], 5).expect("a prefix is no error");
            assert!(!complete, "{end}");
        }
        assert_eq!(inflate(b"plain text", 3), Err(GunzipError::Malformed));
        let mut trailing = bytes;
        trailing.extend_from_slice(b"garbage");
        assert_eq!(inflate(&trailing, usize::MAX), Err(GunzipError::Malformed));
    }

    #[test]
    fn a_bomb_stops_early() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let mut seen = 0;
        let error = Gunzip::new()
            .push(&bomb, |piece| {
                seen += piece.len() as u64;
                Ok::<_, GunzipError>(())
            })
            .expect_err("over the ratio");
        assert_eq!(error, GunzipError::OverBound);
        assert!(seen <= RATIO_FREE_BYTES + bomb.len() as u64 * RATIO_MAX);
    }
}
