//! Turns records into the bytes of one segment.

use std::sync::Arc;

use serde::Serialize;

use super::{
    Checkpoint, Header, Mark, PAYLOAD_BYTES_MAX, RECORD_HEAD_BYTES, RecordTooLarge, Seal, SealedBy,
    Tombstone, VERSION, compress::Compressor, exchanges::Exchanges, header::encode_header, link,
    signed,
};
use crate::{
    model::{Kind, Record, SegmentId, Timestamp},
    store::{
        encryption::{Cipher, EncryptionError, KeyOf},
        head::Head,
        signing::{self, SigningKey},
    },
};

/// A record that was not appended.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum EncodeError {
    /// It is too large.
    #[error(transparent)]
    TooLarge(#[from] RecordTooLarge),
    /// The key of its session could not be had.
    #[error("encrypt the record")]
    Encryption(#[from] EncryptionError),
}

/// Continues a chain, record by record.
pub(in crate::store) struct Encoder {
    segment: SegmentId,
    mark: Mark,
    key: Arc<SigningKey>,
    compressor: Compressor,
    /// None where nothing is encrypted.
    cipher: Option<Cipher>,
    exchanges: Exchanges,
}

impl Encoder {
    /// Begins a segment: appends its header to `out`, and how its key follows from those before it.
    pub(in crate::store) fn begin(
        header: &Header,
        key: Arc<SigningKey>,
        cipher: Option<Cipher>,
        out: &mut Vec<u8>,
    ) -> Self {
        let hash = encode_header(header, out);
        let mark = Mark { hash, offset: out.len() as u64, records: 0 };
        let mut encoder = Self { cipher, ..Self::resume(header.segment, mark, key) };
        encoder.endorsements(out);
        encoder
    }

    /// Goes on after a record of an existing segment, to end it: nothing but signed statements follows.
    pub(in crate::store) fn resume(segment: SegmentId, mark: Mark, key: Arc<SigningKey>) -> Self {
        let (compressor, exchanges) = (Compressor::new(), Exchanges::default());
        Self { segment, mark, key, compressor, cipher: None, exchanges }
    }

    /// Goes on with what was under way in the segment before.
    pub(in crate::store) fn follow(&mut self, before: &mut Self) {
        self.exchanges = std::mem::take(&mut before.exchanges);
    }

    pub(in crate::store) const fn mark(&self) -> Mark {
        self.mark
    }

    /// Appends a record to `out`; gives the offset in the file where it begins.
    pub(in crate::store) fn record(
        &mut self,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<u64, EncodeError> {
        if let Record::Unknown { kind: Kind::TOMBSTONE, payload } = record {
            return Ok(self.tombstone(payload, out)?);
        }
        let begin = out.len();
        out.resize(begin + RECORD_HEAD_BYTES, 0);
        let payload = begin + RECORD_HEAD_BYTES;
        record.encode(out);
        let bytes = out.len() - payload;
        if bytes > PAYLOAD_BYTES_MAX {
            out.truncate(begin);
            return Err(RecordTooLarge { bytes }.into());
        }
        let (kind, offset) = (record.kind(), self.mark.offset);
        self.exchanges.see(record);
        let topic = record.exchange().and_then(|exchange| self.exchanges.topic(exchange));
        let session = self.exchanges.session(record);
        let mut flags = self.compressor.compress((record, topic), offset, payload, out);
        if let Some(cipher) = &self.cipher {
            let of = session.map_or(KeyOf::Segment, KeyOf::Session);
            let encrypted = cipher.encrypt(of, (offset, kind, flags), payload, out);
            flags = encrypted.inspect_err(|_| out.truncate(begin))?;
        }
        Ok(self.frame(kind, flags, begin, out))
    }

    /// Appends a tombstone, which comes without its signature: this segment's key is put in, and signs it.
    fn tombstone(&mut self, json: &[u8], out: &mut Vec<u8>) -> Result<u64, RecordTooLarge> {
        let too_large = RecordTooLarge { bytes: json.len() };
        let mut statement: Tombstone = serde_json::from_slice(json).map_err(|_| too_large)?;
        statement.key = Some(self.key.id());
        let offset = self.mark.offset;
        self.signed(Kind::TOMBSTONE, signing::TOMBSTONE, &statement, out);
        Ok(offset)
    }

    /// Appends the endorsements of this segment's key, oldest first.
    pub(in crate::store) fn endorsements(&mut self, out: &mut Vec<u8>) {
        let key = Arc::clone(&self.key);
        for endorsement in key.endorsements() {
            let begin = out.len();
            out.resize(begin + RECORD_HEAD_BYTES, 0);
            out.extend_from_slice(&endorsement.payload());
            self.frame(Kind::KEY, 0, begin, out);
        }
    }

    /// Appends a signed statement of how far the chain goes.
    pub(in crate::store) fn checkpoint(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        let Mark { hash, offset: bytes, records } = self.mark;
        let (segment, key) = (self.segment, self.key.id());
        let statement = Checkpoint { segment, time, records, bytes, hash, key };
        self.signed(Kind::CHECKPOINT, signing::CHECKPOINT, &statement, out);
    }

    /// The state of the chain, signed.
    pub(in crate::store) fn head(&self, time: Timestamp) -> Head {
        Head::sign(&self.key, self.segment, self.mark, time)
    }

    /// Appends the seal.
    pub(in crate::store) fn seal(
        &mut self,
        time: Timestamp,
        by: SealedBy,
        torn_bytes: u64,
        out: &mut Vec<u8>,
    ) {
        let Mark { hash, offset: bytes, records } = self.mark;
        let (segment, key) = (self.segment, Some(self.key.id()));
        let seal = Seal { segment, time, by, records, bytes, hash, key, torn_bytes };
        self.signed(Kind::SEAL, signing::SEAL, &seal, out);
    }

    fn signed(&mut self, kind: Kind, domain: &str, statement: &impl Serialize, out: &mut Vec<u8>) {
        let begin = out.len();
        out.resize(begin + RECORD_HEAD_BYTES, 0);
        signed::sign(&self.key, domain, statement, out);
        self.frame(kind, 0, begin, out);
    }

    /// Completes the record whose payload, as stored, follows the empty head at `begin`.
    fn frame(&mut self, kind: Kind, flags: u16, begin: usize, out: &mut Vec<u8>) -> u64 {
        let length = out.len() - begin - RECORD_HEAD_BYTES;
        let length = u32::try_from(length).expect("the bound is below 4 GiB");
        out[begin + 8..begin + 10].copy_from_slice(&kind.0.to_le_bytes());
        out[begin + 10..begin + 12].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32c::crc32c(&out[begin + 8..]);
        out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
        out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
        let hash = link(VERSION, self.mark.hash, &out[begin..]);
        out.extend_from_slice(&hash.0);
        let offset = self.mark.offset;
        self.mark = Mark {
            hash,
            offset: offset + (out.len() - begin) as u64,
            records: self.mark.records + 1,
        };
        offset
    }
}
