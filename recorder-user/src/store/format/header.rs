//! What a segment says of itself before its first record.

use serde::{Deserialize, Serialize};

use super::{ChainHash, MAGIC, VERSION, VERSIONS_READ, u32_at};
use crate::{
    model::{BootId, GatewayId, SegmentId, Timestamp},
    store::{encryption::SegmentEncryption, signing::KeyId},
};

/// Magic, version and header length.
pub(in crate::store) const PREAMBLE_BYTES: usize = 8 + 2 + 4;
/// A longer header JSON is not ours: the file is refused.
const HEADER_JSON_BYTES_MAX: usize = 64 << 10;

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
    /// The key that signs checkpoints and the seal; none in version 1, which signed nothing.
    #[serde(deserialize_with = "key_or_none")]
    pub key: Option<KeyId>,
    /// When it was made.
    pub created: Timestamp,
    /// None in the first segment of a store.
    pub previous: Option<Previous>,
    /// How payloads are encrypted; none where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<SegmentEncryption>,
}

/// Appends a header to `out`; gives the first hash of the chain.
pub(super) fn encode_header(header: &Header, out: &mut Vec<u8>) -> ChainHash {
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
pub(in crate::store) struct ReadHeader {
    pub(in crate::store) header: Header,
    pub(in crate::store) version: u16,
    pub(in crate::store) hash: ChainHash,
    pub(in crate::store) bytes: usize,
}

/// How long the whole header is, from its first [`PREAMBLE_BYTES`].
pub(in crate::store) fn header_bytes(preamble: &[u8]) -> Result<usize, BadHeader> {
    let magic = &preamble[..preamble.len().min(MAGIC.len())];
    if magic != &MAGIC[..magic.len()] {
        return Err(BadHeader::Magic);
    }
    let Some(preamble) = preamble.first_chunk::<PREAMBLE_BYTES>() else {
        return Err(BadHeader::Incomplete);
    };
    let version = u16::from_le_bytes([preamble[8], preamble[9]]);
    if !VERSIONS_READ.contains(&version) {
        return Err(BadHeader::Version(version));
    }
    let length = u32_at(preamble, 10);
    match usize::try_from(length) {
        Ok(bytes) if bytes <= HEADER_JSON_BYTES_MAX => Ok(PREAMBLE_BYTES + bytes + 4),
        _ => Err(BadHeader::Length(length)),
    }
}

/// Reads a header that is wholly in `bytes`.
pub(in crate::store) fn decode_header(bytes: &[u8]) -> Result<ReadHeader, BadHeader> {
    let length = header_bytes(bytes)?;
    let Some(bytes) = bytes.get(..length) else { return Err(BadHeader::Incomplete) };
    let (covered, crc) = bytes.split_at(length - 4);
    if crc32c::crc32c(covered) != u32_at(crc, 0) {
        return Err(BadHeader::Checksum);
    }
    let header = serde_json::from_slice(&covered[PREAMBLE_BYTES..]).map_err(|_| BadHeader::Json)?;
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    Ok(ReadHeader {
        header,
        version,
        hash: ChainHash(*blake3::hash(bytes).as_bytes()),
        bytes: length,
    })
}

/// Version 1 wrote an empty text.
fn key_or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<KeyId>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}
