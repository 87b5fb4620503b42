//! Makes payloads short before they are written.
//!
//! An agent that polls gets nearly the same answer again and again. A piece of a body is therefore stored as
//! what differs from the same piece of the body before: of the same request in the same session, so that
//! no session's bytes ever depend on another's.

mod bases;

use zstd::zstd_safe;

use self::bases::{Base, Bases, Place};
use super::{HASH_BYTES, exchanges::Topic, flag};
use crate::model::{CHUNK_HEADER_BYTES, Record};

/// Compresses the payloads of one segment.
pub(super) struct Compressor {
    /// None when there was no memory for it: payloads are then stored as they are, which is as valid.
    plain: Option<zstd::bulk::Compressor<'static>>,
    against: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
    bases: Bases,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self {
            plain: zstd::bulk::Compressor::new(LEVEL).ok(),
            against: None,
            scratch: Vec::new(),
            bases: Bases::default(),
        }
    }

    /// Replaces the payload of a record, which is all of `out` from `payload` on, by its stored form; gives
    /// its flags. The record will begin at `offset` of the segment.
    pub(super) fn compress(
        &mut self,
        (record, topic): (&Record, Option<Topic>),
        offset: u64,
        payload: usize,
        out: &mut Vec<u8>,
    ) -> u16 {
        let Record::Chunk(chunk) = record else {
            let worth = out.len() - payload >= COMPRESS_BYTES_MIN;
            return if worth && self.shorten(payload, out) { flag::ZSTD } else { 0 };
        };
        let bytes = chunk.data.len();
        if bytes < COMPRESS_CHUNK_BYTES_MIN {
            return 0;
        }
        let place = topic.and_then(|topic| Place::of(topic, chunk));
        if let Some(flags) = place.and_then(|place| self.differ(place, payload, out)) {
            return flags;
        }
        if let Some(place) = place {
            self.bases.put(place, Base { offset, data: chunk.data[..].into() });
        }
        let may_gain = self.may_gain(&out[payload..]);
        if may_gain && self.shorten(payload, out) { flag::ZSTD } else { 0 }
    }

    /// Stores what differs from an earlier piece, if that is little.
    fn differ(&mut self, place: Place, payload: usize, out: &mut Vec<u8>) -> Option<u16> {
        let base = self.bases.get(place)?;
        let data = payload + CHUNK_HEADER_BYTES;
        let flags = if *base.data == out[data..] {
            out.truncate(data);
            flag::BASE
        } else {
            let against = match &mut self.against {
                Some(against) => against,
                none => none.insert(zstd::bulk::Compressor::new(LEVEL).ok()?),
            };
            against.set_dictionary(LEVEL, &base.data).ok()?;
            self.scratch.clear();
            self.scratch.reserve(zstd_safe::compress_bound(out.len() - data));
            let bytes = against.compress_to_buffer(&out[data..], &mut self.scratch).ok()?;
            if bytes > (out.len() - data) / DIFFERENCE_PART {
                return None;
            }
            out.truncate(data);
            out.extend_from_slice(&self.scratch);
            flag::BASE | flag::ZSTD
        };
        out.splice(payload..payload, base.offset.to_le_bytes());
        Some(flags)
    }

    /// Compresses the payload in place, if that saves an eighth.
    fn shorten(&mut self, payload: usize, out: &mut Vec<u8>) -> bool {
        let bytes = out.len() - payload;
        let shorter = self.compressed(&out[payload..]);
        let worth = shorter.is_some_and(|shorter| shorter <= bytes - bytes / 8);
        // A record that is to be deleted leaves its digest in its place.
        if !worth || self.scratch.len() < HASH_BYTES {
            return false;
        }
        out.truncate(payload);
        out.extend_from_slice(&self.scratch);
        true
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
        let plain = self.plain.as_mut()?;
        self.scratch.clear();
        self.scratch.reserve(zstd_safe::compress_bound(bytes.len()));
        plain.compress_to_buffer(bytes, &mut self.scratch).ok()
    }
}

/// Shorter payloads are not worth compressing: it would take about 9 µs to save a few bytes.
pub(super) const COMPRESS_BYTES_MIN: usize = 512;
/// The same for pieces of bodies. A short one, such as a watch event, has little that repeats: a quarter is
/// saved at best. Records in JSON repeat their own words.
pub(super) const COMPRESS_CHUNK_BYTES_MIN: usize = 768;
/// A longer piece of a body is tried by a sample first: streams bring many that do not gain much, and the
/// whole of one takes zstd longer than all else that is done with it.
const SAMPLED_BYTES_MIN: usize = 16 << 10;
/// From the middle, where files have no head any more.
const SAMPLE_BYTES: usize = 4 << 10;
/// What a sample may become at most. Text becomes less than half, programs about 0.6 of it.
const SAMPLE_COMPRESSED_BYTES_MAX: usize = SAMPLE_BYTES / 16 * 9;
/// A difference must be shorter than this part of the whole; else the piece is stored whole and becomes what
/// the next ones are compared with.
const DIFFERENCE_PART: usize = 8;
/// zstd's fastest ordinary level: the writer thread is on the way of every acknowledgement.
const LEVEL: i32 = 1;
