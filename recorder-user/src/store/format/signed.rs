//! Records that carry a signature: checkpoints and seals.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::ChainHash;
use crate::{
    model::{SegmentId, Timestamp},
    store::signing::{KeyId, SIGNATURE_BYTES, Signature, SigningKey},
};

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

/// A signed statement of how far the chain goes, made at an interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The segment.
    pub segment: SegmentId,
    /// When it was made.
    pub time: Timestamp,
    /// How many records come before this one.
    pub records: u64,
    /// How many bytes come before this record.
    pub bytes: u64,
    /// The hash before this record.
    pub hash: ChainHash,
    /// The key that signs it.
    pub key: KeyId,
}

/// The last record of a segment.
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
    /// The key that signs it; none in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
    /// How many bytes recovery cut off and kept aside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub torn_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A payload that is a signature and the JSON that it is of.
pub(in crate::store) struct Signed<T> {
    pub(in crate::store) statement: T,
    pub(in crate::store) json: bytes::Bytes,
    pub(in crate::store) signature: Signature,
}

impl<T: DeserializeOwned> Signed<T> {
    /// Reads a payload; none when it has not that form. The signature is not checked here.
    pub(in crate::store) fn read(payload: &bytes::Bytes) -> Option<Self> {
        let signature = *payload.first_chunk::<SIGNATURE_BYTES>()?;
        let json = payload.slice(SIGNATURE_BYTES..);
        let statement = serde_json::from_slice(&json).ok()?;
        Some(Self { statement, json, signature: Signature(signature) })
    }
}

/// Appends a signed statement as a payload.
pub(super) fn sign(key: &SigningKey, domain: &str, statement: &impl Serialize, out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + SIGNATURE_BYTES, 0);
    serde_json::to_writer(&mut *out, statement).expect("plain data, and a Vec cannot fail");
    let signature = key.sign(domain, &out[at + SIGNATURE_BYTES..]);
    out[at..at + SIGNATURE_BYTES].copy_from_slice(&signature.0);
}

/// A seal, signed or of version 1.
pub(in crate::store) struct ReadSeal {
    pub(in crate::store) seal: Seal,
    /// What was signed, and the signature; none in version 1.
    pub(in crate::store) signed: Option<(bytes::Bytes, Signature)>,
}

/// Reads a seal's payload; none when it has not that form.
pub(in crate::store) fn read_seal(version: u16, payload: &bytes::Bytes) -> Option<ReadSeal> {
    if version == 1 {
        let seal = serde_json::from_slice(payload).ok()?;
        return Some(ReadSeal { seal, signed: None });
    }
    let Signed { statement, json, signature } = Signed::read(payload)?;
    Some(ReadSeal { seal: statement, signed: Some((json, signature)) })
}
