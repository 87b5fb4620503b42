//! Reads payloads as they were before they were stored.

use std::cell::RefCell;

use bytes::{BufMut as _, Bytes, BytesMut};
use zstd::zstd_safe;

use super::{DecodePayloadError, PAYLOAD_BYTES_MAX, flag};
use crate::model::{CHUNK_HEADER_BYTES, Kind, Record};

/// Where earlier records of the same segment can be had.
pub(in crate::store) trait Stored {
    /// Kind, flags and stored payload of the record that begins at this offset; none when there is none
    /// whose checksum fits.
    fn record_at(&self, offset: u64) -> Option<(Kind, u16, Bytes)>;

    /// An encrypted payload as it was before.
    fn decrypt(
        &self,
        record: (u64, Kind, u16),
        payload: &[u8],
    ) -> Result<Bytes, DecodePayloadError>;
}

/// Reads a stored payload.
pub(in crate::store) fn decode(
    segment: &impl Stored,
    (offset, kind, flags): (u64, Kind, u16),
    payload: Bytes,
) -> Result<Record, DecodePayloadError> {
    Ok(Record::decode(kind, expand(segment, (offset, kind, flags), payload)?)?)
}

/// The payload as the writer gave it.
pub(in crate::store) fn expand(
    segment: &impl Stored,
    (offset, kind, flags): (u64, Kind, u16),
    payload: Bytes,
) -> Result<Bytes, DecodePayloadError> {
    const BASE_ZSTD: u16 = flag::BASE | flag::ZSTD;
    let (flags, payload) = plain(segment, (offset, kind, flags), payload)?;
    match flags {
        0 => Ok(payload),
        flag::ZSTD => decompress(&payload, None),
        flag::BASE | BASE_ZSTD if kind == Kind::CHUNK => {
            let (base, payload) = payload.split_first_chunk().ok_or(DecodePayloadError::Base)?;
            let base_at = u64::from_le_bytes(*base);
            // Backwards only, and one step: a damaged file cannot lead round in a circle.
            let base = if base_at < offset { segment.record_at(base_at) } else { None };
            let base = base.and_then(|(kind, flags, payload)| {
                let (flags, payload) = plain(segment, (base_at, kind, flags), payload).ok()?;
                match (kind, flags) {
                    (Kind::CHUNK, 0) => Some(payload),
                    (Kind::CHUNK, flag::ZSTD) => decompress(&payload, None).ok(),
                    _ => None,
                }
            });
            let base = base.filter(|base| base.len() >= CHUNK_HEADER_BYTES);
            let base = base.ok_or(DecodePayloadError::Base)?.slice(CHUNK_HEADER_BYTES..);
            let (head, rest) =
                payload.split_at_checked(CHUNK_HEADER_BYTES).ok_or(DecodePayloadError::Base)?;
            let data = match flags {
                BASE_ZSTD => decompress(rest, Some(&base))?,
                _ if rest.is_empty() => base,
                _ => return Err(DecodePayloadError::Base),
            };
            let mut whole = BytesMut::with_capacity(head.len() + data.len());
            whole.put_slice(head);
            whole.put_slice(&data);
            Ok(whole.freeze())
        }
        flags => Err(DecodePayloadError::Flags { flags }),
    }
}

/// The offset of the record that this one builds on; none if it builds on none, or cannot be read.
pub(in crate::store) fn base(
    segment: &impl Stored,
    record: (u64, Kind, u16),
    payload: &Bytes,
) -> Option<u64> {
    if record.2 & flag::BASE == 0 {
        return None;
    }
    let (_, payload) = plain(segment, record, payload.clone()).ok()?;
    payload.first_chunk().map(|base| u64::from_le_bytes(*base))
}

/// Flags and payload without encryption.
fn plain(
    segment: &impl Stored,
    (offset, kind, flags): (u64, Kind, u16),
    payload: Bytes,
) -> Result<(u16, Bytes), DecodePayloadError> {
    const ENCRYPTION: u16 = flag::ENCRYPTED | flag::SESSION;
    if flags & flag::PRUNED != 0 {
        return Err(DecodePayloadError::Pruned);
    }
    if flags & flag::ENCRYPTED == 0 {
        return Ok((flags, payload));
    }
    Ok((flags & !ENCRYPTION, segment.decrypt((offset, kind, flags), &payload)?))
}

thread_local! {
    /// Making one anew for each payload took a tenth of the time that building an index takes.
    static PLAIN: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn decompress(frame: &[u8], base: Option<&[u8]>) -> Result<Bytes, DecodePayloadError> {
    let bad = |_| DecodePayloadError::Compression;
    // The length comes from the frame itself, so the bound is checked before anything is taken.
    let length = zstd_safe::get_frame_content_size(frame).ok().flatten();
    let length = length.and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| *length <= PAYLOAD_BYTES_MAX) else {
        return Err(DecodePayloadError::Compression);
    };
    match base {
        None => PLAIN.with_borrow_mut(|plain| {
            let plain = match plain {
                Some(plain) => plain,
                none => none.insert(zstd::bulk::Decompressor::new().map_err(bad)?),
            };
            plain.decompress(frame, length).map(Bytes::from).map_err(bad)
        }),
        Some(base) => {
            let mut against = zstd::bulk::Decompressor::with_dictionary(base).map_err(bad)?;
            against.decompress(frame, length).map(Bytes::from).map_err(bad)
        }
    }
}
