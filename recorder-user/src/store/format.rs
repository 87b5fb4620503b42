//! The bytes of a segment: header, records, hash chain, seal. `docs/format.md` says the same to outsiders.

mod compress;
mod encoder;
mod exchanges;
mod header;
mod payload;
mod signed;
mod tombstone;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{DecodeRecordError, Kind};

pub(super) use encoder::{EncodeError, Encoder};
pub use header::{BadHeader, Header, Previous};
pub(super) use header::{PREAMBLE_BYTES, decode_header, header_bytes};
pub(super) use payload::{Stored, base, decode, expand};
pub use signed::{Checkpoint, Seal, SealedBy};
pub(super) use signed::{Signed, read_seal};
pub use tombstone::{DeletedRecords, DeletedSegments, DeletionCause, Tombstone};

/// The first bytes of every segment.
pub(super) const MAGIC: [u8; 8] = *b"DECKLOG\0";
/// The version of the format that this code writes.
pub(super) const VERSION: u16 = 2;
/// The versions that it reads. Version 1 has neither signatures nor digests.
pub(super) const VERSIONS_READ: std::ops::RangeInclusive<u16> = 1..=VERSION;
/// A longer payload, stored or decompressed, is refused when written and is damage when read.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// `payload_len`, `crc32c`, `kind`, `flags`.
pub(super) const RECORD_HEAD_BYTES: usize = 4 + 4 + 2 + 2;
/// What a record has besides its payload.
pub(super) const RECORD_FRAME_BYTES: usize = RECORD_HEAD_BYTES + HASH_BYTES;
pub(super) const HASH_BYTES: usize = 32;

/// What the bits of a record's flags say of its payload.
pub(super) mod flag {
    /// The payload, or what of it the other flags leave, is one zstd frame.
    pub(in crate::store) const ZSTD: u16 = 1;
    /// The payload is told by an earlier record of the segment that holds nearly the same.
    pub(in crate::store) const BASE: u16 = 1 << 1;
    /// The payload is encrypted, after everything else was done to it.
    pub(in crate::store) const ENCRYPTED: u16 = 1 << 2;
    /// The payload is encrypted with the key of the session whose id precedes it.
    pub(in crate::store) const SESSION: u16 = 1 << 3;
    /// The record was deleted: of it only its digest is left.
    pub(in crate::store) const PRUNED: u16 = 1 << 4;
}

/// A link of the chain: BLAKE3, as 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash(pub(super) [u8; HASH_BYTES]);

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChainHash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let hash = blake3::Hash::from_hex(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// A record that a segment cannot hold.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a record of {bytes} bytes is over the bound of {PAYLOAD_BYTES_MAX}")]
pub struct RecordTooLarge {
    /// The payload's length.
    pub bytes: usize,
}

/// A payload could not be read although its bytes are intact.
#[derive(Debug, thiserror::Error)]
pub enum DecodePayloadError {
    /// Flag bits that this version does not know.
    #[error("unknown flags {flags:#06x}")]
    Flags {
        /// All flags.
        flags: u16,
    },
    /// The record was deleted; only its digest is left.
    #[error("the record was deleted")]
    Pruned,
    /// The record is of a session that was erased.
    #[error("the session was erased")]
    Erased,
    /// The keys are not here, or are not those that it was encrypted with.
    #[error("the record is encrypted, and its key is not here")]
    Decryption,
    /// The earlier record that it builds on is not what it must be.
    #[error("the record that it builds on cannot be read")]
    Base,
    /// The zstd frame is malformed, or says no length, or one over the bound.
    #[error("the compressed payload could not be expanded")]
    Compression,
    /// The payload does not have the form of its kind.
    #[error(transparent)]
    Record(#[from] DecodeRecordError),
}

impl DecodePayloadError {
    /// Whether the record was deleted on purpose, and is not damaged.
    #[must_use]
    pub const fn is_deletion(&self) -> bool {
        matches!(self, Self::Pruned | Self::Erased)
    }
}

/// The state of a chain after a record: enough to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) hash: ChainHash,
    /// The offset after the record.
    pub(super) offset: u64,
    /// How many records there are up to here.
    pub(super) records: u64,
}

impl Mark {
    /// Before anything.
    pub(super) const NONE: Self = Self { hash: ChainHash([0; HASH_BYTES]), offset: 0, records: 0 };
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHead {
    pub(super) payload_bytes: usize,
    pub(super) crc: u32,
    pub(super) kind: Kind,
    pub(super) flags: u16,
}

impl RecordHead {
    /// None when the payload is over the bound, which no writer produces.
    pub(super) fn decode(bytes: &[u8; RECORD_HEAD_BYTES]) -> Option<Self> {
        let payload_bytes = usize::try_from(u32_at(bytes, 0)).ok()?;
        (payload_bytes <= PAYLOAD_BYTES_MAX).then(|| Self {
            payload_bytes,
            crc: u32_at(bytes, 4),
            kind: Kind(u16::from_le_bytes([bytes[8], bytes[9]])),
            flags: u16::from_le_bytes([bytes[10], bytes[11]]),
        })
    }

    /// The record's whole length.
    pub(super) const fn record_bytes(&self) -> usize {
        RECORD_FRAME_BYTES + self.payload_bytes
    }
}

/// The next hash of the chain. From version 2 on it covers a record's digest, so that a record can be taken
/// out, or left out of a bundle, and the chain still be checked.
pub(super) fn link(version: u16, previous: ChainHash, record: &[u8]) -> ChainHash {
    if version == 1 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&previous.0);
        hasher.update(record);
        return ChainHash(*hasher.finalize().as_bytes());
    }
    link_digest(previous, blake3::hash(record).as_bytes())
}

/// The next hash of the chain over a record of which only the digest is left.
pub(super) fn link_digest(previous: ChainHash, digest: &[u8; HASH_BYTES]) -> ChainHash {
    let mut both = [0; 2 * HASH_BYTES];
    both[..HASH_BYTES].copy_from_slice(&previous.0);
    both[HASH_BYTES..].copy_from_slice(digest);
    ChainHash(*blake3::hash(&both).as_bytes())
}

/// The next hash of the chain over a record as it is stored, deleted or not; none if it cannot be one.
pub(super) fn follow(
    version: u16,
    previous: ChainHash,
    flags: u16,
    record: &[u8],
) -> Option<ChainHash> {
    // Version 1 has no digests: nothing can be taken out of it.
    if version == 1 || flags & flag::PRUNED == 0 {
        return Some(link(version, previous, record));
    }
    let digest = record.get(RECORD_HEAD_BYTES..).and_then(<[u8]>::first_chunk)?;
    Some(link_digest(previous, digest))
}

/// Four bytes at an offset that the caller has checked.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_le_bytes(*four))
}

#[cfg(test)]
mod tests;
