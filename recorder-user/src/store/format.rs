//! The bytes of a segment: header, records, hash chain, seal. `docs/format.md` says the same to outsiders.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zstd::zstd_safe;

use crate::model::{BootId, DecodeRecordError, GatewayId, Kind, Record, SegmentId, Timestamp};

/// The first bytes of every segment.
pub(super) const MAGIC: [u8; 8] = *b"DECKLOG\0";
/// The version of the format that this code writes; no other is read.
pub(super) const VERSION: u16 = 1;
/// Magic, version and header length.
pub(super) const PREAMBLE_BYTES: usize = 8 + 2 + 4;
/// A longer header JSON is not ours: the file is refused.
pub(super) const HEADER_JSON_BYTES_MAX: usize = 64 << 10;
/// A longer payload, stored or decompressed, is refused when written and is damage when read.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// Shorter payloads are not worth compressing: it would take about 9 µs to save a few bytes.
const COMPRESS_BYTES_MIN: usize = 512;
/// The same for pieces of bodies. A short one, such as a watch event, has little that repeats: a quarter is
/// saved at best. Records in JSON repeat their own words.
const COMPRESS_CHUNK_BYTES_MIN: usize = 768;
/// A longer piece of a body is tried by a sample first: streams bring many that do not gain much, and the
/// whole of one takes zstd longer than all else that is done with it.
const SAMPLED_BYTES_MIN: usize = 16 << 10;
/// From the middle, where files have no head any more.
const SAMPLE_BYTES: usize = 4 << 10;
/// What a sample may become at most. Text becomes less than half, programs about 0.6 of it.
const SAMPLE_COMPRESSED_BYTES_MAX: usize = SAMPLE_BYTES / 16 * 9;
/// zstd's fastest ordinary level: the writer thread is on the way of every acknowledgement.
const COMPRESS_LEVEL: i32 = 1;
/// `payload_len`, `crc32c`, `kind`, `flags`.
pub(super) const RECORD_HEAD_BYTES: usize = 4 + 4 + 2 + 2;
/// What a record has besides its payload.
pub(super) const RECORD_FRAME_BYTES: usize = RECORD_HEAD_BYTES + HASH_BYTES;
pub(super) const HASH_BYTES: usize = 32;
/// Bit 0 of the flags: the payload is one zstd frame.
const FLAG_ZSTD: u16 = 1;

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

/// The segment before, and its last hash: what makes a missing or foreign segment visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// The segment before.
    pub segment: SegmentId,
    /// The hash of its last record, or of its header if it has none.
    pub hash: ChainHash,
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// This segment; also the file's name.
    pub segment: SegmentId,
    /// The gateway that writes it.
    pub gateway: GatewayId,
    /// The boot of the machine that it was made in: socket cookies in it are unique within that boot.
    pub boot: BootId,
    /// The id of the key that signs checkpoints and seals; empty while there is none.
    pub key: String,
    /// When it was made.
    pub created: Timestamp,
    /// None in the first segment of a store.
    pub previous: Option<Previous>,
}

/// Why a segment was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SealedBy {
    /// It was full.
    Rotation,
    /// The gateway stopped in order.
    Close,
    /// The next start found it unsealed.
    Recovery,
    /// A write or a flush failed and the writer went on in a new segment.
    Failure,
}

/// The last record of a segment. Unsigned for now: it proves an orderly end, not who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seal {
    /// The segment.
    pub segment: SegmentId,
    /// When it was sealed.
    pub time: Timestamp,
    /// Why.
    pub by: SealedBy,
    /// How many records come before this one.
    pub records: u64,
    /// How many bytes come before this record.
    pub bytes: u64,
    /// The hash before this record.
    pub hash: ChainHash,
    /// How many bytes recovery cut off and kept aside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub torn_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
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
    /// The zstd frame is malformed, or says no length, or one over the bound.
    #[error("the compressed payload could not be expanded")]
    Compression,
    /// The payload does not have the form of its kind.
    #[error(transparent)]
    Record(#[from] DecodeRecordError),
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

/// Turns records into the bytes of one segment.
pub(super) struct Encoder {
    mark: Mark,
    scratch: Vec<u8>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl Encoder {
    /// Begins a segment: appends its header to `out`.
    pub(super) fn begin(header: &Header, out: &mut Vec<u8>) -> Self {
        let hash = encode_header(header, out);
        Self::resume(Mark { hash, offset: out.len() as u64, records: 0 })
    }

    /// Goes on after a record of an existing segment.
    pub(super) fn resume(mark: Mark) -> Self {
        // Without a compressor (out of memory) payloads are stored as they are, which is as valid.
        let compressor = zstd::bulk::Compressor::new(COMPRESS_LEVEL).ok();
        Self { mark, scratch: Vec::new(), compressor }
    }

    pub(super) const fn mark(&self) -> Mark {
        self.mark
    }

    /// Appends a record to `out`; gives the offset in the file where it begins.
    pub(super) fn record(
        &mut self,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<u64, RecordTooLarge> {
        let begin = out.len();
        out.resize(begin + RECORD_HEAD_BYTES, 0);
        record.encode(out);
        self.frame(record.kind(), begin, out)
    }

    /// Appends the seal.
    pub(super) fn seal(
        &mut self,
        segment: SegmentId,
        time: Timestamp,
        by: SealedBy,
        torn_bytes: u64,
        out: &mut Vec<u8>,
    ) {
        let Mark { hash, offset, records } = self.mark;
        let seal = Seal { segment, time, by, records, bytes: offset, hash, torn_bytes };
        let begin = out.len();
        out.resize(begin + RECORD_HEAD_BYTES, 0);
        serde_json::to_writer(&mut *out, &seal)
            .expect("a seal is plain data and a Vec cannot fail");
        self.frame(Kind::SEAL, begin, out).expect("a seal is shorter than the bound");
    }

    /// Completes the record whose payload follows the empty head at `begin`.
    fn frame(
        &mut self,
        kind: Kind,
        begin: usize,
        out: &mut Vec<u8>,
    ) -> Result<u64, RecordTooLarge> {
        let payload_at = begin + RECORD_HEAD_BYTES;
        let bytes = out.len() - payload_at;
        if bytes > PAYLOAD_BYTES_MAX {
            out.truncate(begin);
            return Err(RecordTooLarge { bytes });
        }
        let mut flags = 0;
        let compress_min =
            if kind == Kind::CHUNK { COMPRESS_CHUNK_BYTES_MIN } else { COMPRESS_BYTES_MIN };
        let payload = &out[payload_at..];
        let worth = bytes >= compress_min && (kind != Kind::CHUNK || self.may_gain(payload));
        if worth && self.compress(payload) {
            out.truncate(payload_at);
            out.extend_from_slice(&self.scratch);
            flags = FLAG_ZSTD;
        }
        let length = u32::try_from(out.len() - payload_at).expect("the bound is below 4 GiB");
        out[begin + 8..begin + 10].copy_from_slice(&kind.0.to_le_bytes());
        out[begin + 10..begin + 12].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32c::crc32c(&out[begin + 8..]);
        out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
        out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
        let hash = link(self.mark.hash, &out[begin..]);
        out.extend_from_slice(&hash.0);
        let offset = self.mark.offset;
        self.mark = Mark {
            hash,
            offset: offset + (out.len() - begin) as u64,
            records: self.mark.records + 1,
        };
        Ok(offset)
    }

    /// Compresses into the scratch buffer; false if that does not save an eighth.
    fn compress(&mut self, payload: &[u8]) -> bool {
        self.compressed(payload).is_some_and(|bytes| bytes <= payload.len() - payload.len() / 8)
    }

    /// Whether a piece of a body is short, or such that compressing it is worth the time.
    fn may_gain(&mut self, payload: &[u8]) -> bool {
        if payload.len() < SAMPLED_BYTES_MIN {
            return true;
        }
        let middle = (payload.len() - SAMPLE_BYTES) / 2;
        self.compressed(&payload[middle..middle + SAMPLE_BYTES])
            .is_some_and(|bytes| bytes <= SAMPLE_COMPRESSED_BYTES_MAX)
    }

    /// Compresses into the scratch buffer; gives the length there.
    fn compressed(&mut self, bytes: &[u8]) -> Option<usize> {
        let compressor = self.compressor.as_mut()?;
        self.scratch.clear();
        self.scratch.reserve(zstd_safe::compress_bound(bytes.len()));
        compressor.compress_to_buffer(bytes, &mut self.scratch).ok()
    }
}

/// Appends a header to `out`; gives the first hash of the chain.
fn encode_header(header: &Header, out: &mut Vec<u8>) -> ChainHash {
    let json = serde_json::to_vec(header).expect("a header is plain data");
    let begin = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&u32::try_from(json.len()).expect("a header is short").to_le_bytes());
    out.extend_from_slice(&json);
    let crc = crc32c::crc32c(&out[begin..]);
    out.extend_from_slice(&crc.to_le_bytes());
    ChainHash(*blake3::hash(&out[begin..]).as_bytes())
}

/// What is wrong with a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// The file ends within it.
    #[error("the file ends within the header")]
    Incomplete,
    /// The first bytes are not ours.
    #[error("not a Decklog segment")]
    Magic,
    /// Written by another version.
    #[error("format version {0} is not known")]
    Version(u16),
    /// The header says a length over the bound.
    #[error("the header's length {0} is over the bound")]
    Length(u32),
    /// The checksum does not fit the bytes.
    #[error("the header's checksum does not match")]
    Checksum,
    /// The JSON is not a header's.
    #[error("the header is not the expected JSON")]
    Json,
}

/// A header, its first hash and its length.
pub(super) struct ReadHeader {
    pub(super) header: Header,
    pub(super) hash: ChainHash,
    pub(super) bytes: usize,
}

/// How long the whole header is, from its first [`PREAMBLE_BYTES`].
pub(super) fn header_bytes(preamble: &[u8]) -> Result<usize, BadHeader> {
    let magic = &preamble[..preamble.len().min(MAGIC.len())];
    if magic != &MAGIC[..magic.len()] {
        return Err(BadHeader::Magic);
    }
    let Some(preamble) = preamble.first_chunk::<PREAMBLE_BYTES>() else {
        return Err(BadHeader::Incomplete);
    };
    let version = u16::from_le_bytes([preamble[8], preamble[9]]);
    if version != VERSION {
        return Err(BadHeader::Version(version));
    }
    let length = u32_at(preamble, 10);
    match usize::try_from(length) {
        Ok(bytes) if bytes <= HEADER_JSON_BYTES_MAX => Ok(PREAMBLE_BYTES + bytes + 4),
        _ => Err(BadHeader::Length(length)),
    }
}

/// Reads a header that is wholly in `bytes`.
pub(super) fn decode_header(bytes: &[u8]) -> Result<ReadHeader, BadHeader> {
    let length = header_bytes(bytes)?;
    let Some(bytes) = bytes.get(..length) else { return Err(BadHeader::Incomplete) };
    let (covered, crc) = bytes.split_at(length - 4);
    if crc32c::crc32c(covered) != u32_at(crc, 0) {
        return Err(BadHeader::Checksum);
    }
    let header = serde_json::from_slice(&covered[PREAMBLE_BYTES..]).map_err(|_| BadHeader::Json)?;
    Ok(ReadHeader { header, hash: ChainHash(*blake3::hash(bytes).as_bytes()), bytes: length })
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

/// The next hash of the chain: over the one before and all of a record but its own hash.
pub(super) fn link(previous: ChainHash, record: &[u8]) -> ChainHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.0);
    hasher.update(record);
    ChainHash(*hasher.finalize().as_bytes())
}

/// The payload as the writer gave it.
pub(super) fn expand(flags: u16, payload: Bytes) -> Result<Bytes, DecodePayloadError> {
    match flags {
        0 => Ok(payload),
        FLAG_ZSTD => {
            // The length comes from the frame itself, so the bound is checked before anything is taken.
            let length = zstd_safe::get_frame_content_size(&payload).ok().flatten();
            let length = length.and_then(|length| usize::try_from(length).ok());
            match length {
                Some(length) if length <= PAYLOAD_BYTES_MAX => {
                    zstd::bulk::decompress(&payload, length)
                        .map(Bytes::from)
                        .map_err(|_| DecodePayloadError::Compression)
                }
                _ => Err(DecodePayloadError::Compression),
            }
        }
        flags => Err(DecodePayloadError::Flags { flags }),
    }
}

/// Reads a stored payload.
pub(super) fn decode(kind: Kind, flags: u16, payload: Bytes) -> Result<Record, DecodePayloadError> {
    Ok(Record::decode(kind, expand(flags, payload)?)?)
}

/// Four bytes at an offset that the caller has checked.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_le_bytes(*four))
}

#[cfg(test)]
mod tests;
