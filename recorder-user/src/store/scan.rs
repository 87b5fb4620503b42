//! Reads one segment file from front to back and checks every byte of it on the way.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::format::{
    self, BadHeader, ChainHash, DecodePayloadError, HASH_BYTES, Header, Mark, PREAMBLE_BYTES,
    RECORD_FRAME_BYTES, RECORD_HEAD_BYTES, RecordHead, Stored, flag,
};
use super::{
    encryption::{Cipher, SegmentEncryption, Vault},
    queue::chain,
    signing::keys_directory,
};
use crate::model::{Kind, Record, SegmentId, SessionId};

/// How a record is not what a writer wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The file ends within it: a write was cut short, or the length is damaged.
    #[error("the file ends within the record ({have} of {need} bytes)")]
    Incomplete {
        /// Bytes from the record's first to the file's end.
        have: u64,
        /// Bytes that the record says it has.
        need: u64,
    },
    /// The length is over the bound: no writer writes such a record.
    #[error("the record's length is over the bound")]
    Length,
    /// The checksum does not fit the bytes.
    #[error("the checksum does not match")]
    Checksum,
    /// The bytes are intact but do not follow the record before: one was dropped, moved or put in.
    #[error("the hash does not continue the chain")]
    Chain,
    /// A record after the seal.
    #[error("there is a record after the seal")]
    AfterSeal,
}

/// A segment could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The system could not read the file.
    #[error("read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The header is bad.
    #[error("{}: bad header", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: BadHeader,
    },
    /// A record is bad.
    #[error("{} at offset {offset}: bad record", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Offset of the record's first byte.
        offset: u64,
        /// How.
        #[source]
        source: BadRecord,
    },
}

impl ScanError {
    /// Whether there is no such file: it was deleted meanwhile.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the file merely ends too early: on a live segment more may follow.
    pub(super) const fn is_incomplete(&self) -> bool {
        matches!(self, Self::Record { source: BadRecord::Incomplete { .. }, .. })
    }
}

/// A record as it is in the file.
#[derive(Clone, Debug)]
pub(super) struct RawRecord {
    pub(super) offset: u64,
    /// The offset after it.
    pub(super) end: u64,
    pub(super) kind: Kind,
    pub(super) flags: u16,
    payload: Bytes,
    pub(super) hash: ChainHash,
    file: Arc<SegmentFile>,
}

impl RawRecord {
    pub(super) fn decode(self) -> Result<Record, DecodePayloadError> {
        format::decode(&*self.file, (self.offset, self.kind, self.flags), self.payload)
    }

    /// The payload as the writer gave it.
    pub(super) fn payload(&self) -> Result<Bytes, DecodePayloadError> {
        format::expand(&*self.file, (self.offset, self.kind, self.flags), self.payload.clone())
    }

    /// The offset of the record that this one builds on; none where that cannot be read.
    pub(super) fn base(&self) -> Option<u64> {
        format::base(&*self.file, (self.offset, self.kind, self.flags), &self.payload)
    }

    /// The session with whose key the record is encrypted.
    pub(super) fn locked_for(&self) -> Option<SessionId> {
        let of_session = self.flags & flag::SESSION != 0 && !self.is_pruned();
        let id = self.payload.first_chunk().filter(|_| of_session)?;
        Some(SessionId::from_bytes(*id))
    }

    /// The digest that stands in the place of a deleted record.
    pub(super) fn digest_left(&self) -> Option<[u8; HASH_BYTES]> {
        self.payload.first_chunk().copied().filter(|_| self.is_pruned())
    }

    /// Whether the record was deleted and only its digest is left.
    pub(super) const fn is_pruned(&self) -> bool {
        self.flags & flag::PRUNED != 0
    }

    /// Whether there is a digest and nothing else.
    pub(super) fn is_stub(&self) -> bool {
        self.is_pruned()
            && self.payload.get(HASH_BYTES..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    }

    /// How long the payload is, as stored.
    pub(super) const fn payload_bytes(&self) -> usize {
        self.payload.len()
    }
}

/// A segment's file, and what opens its payloads.
#[derive(Debug)]
struct SegmentFile {
    path: PathBuf,
    file: File,
    encryption: OnceLock<(SegmentId, SegmentEncryption)>,
    cipher: OnceLock<Option<Cipher>>,
}

impl SegmentFile {
    /// Made when the first encrypted payload is read; none where the keys are not at hand.
    fn cipher(&self) -> Option<&Cipher> {
        let open = || {
            let (segment, encryption) = self.encryption.get()?;
            let store = self.path.parent()?.parent()?;
            let opened = Vault::open(&keys_directory(store)).and_then(|vault| {
                vault.map(|vault| vault.resume(*segment, encryption)).transpose()
            });
            opened.unwrap_or_else(|error| {
                tracing::warn!(error = %chain(&error), "encrypted records cannot be read");
                None
            })
        };
        self.cipher.get_or_init(open).as_ref()
    }
}

impl Stored for SegmentFile {
    fn decrypt(
        &self,
        record: (u64, Kind, u16),
        payload: &[u8],
    ) -> Result<Bytes, DecodePayloadError> {
        self.cipher().ok_or(DecodePayloadError::Decryption)?.decrypt(record, payload)
    }

    fn record_at(&self, offset: u64) -> Option<(Kind, u16, Bytes)> {
        let mut head = [0; RECORD_HEAD_BYTES];
        self.file.read_exact_at(&mut head, offset).ok()?;
        let head_bytes = head;
        let head = RecordHead::decode(&head)?;
        let left = self.file.metadata().ok()?.len().checked_sub(offset)?;
        if left < head.record_bytes() as u64 {
            return None;
        }
        let mut payload = vec![0; head.payload_bytes];
        self.file.read_exact_at(&mut payload, offset + RECORD_HEAD_BYTES as u64).ok()?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head_bytes[8..]), &payload);
        (crc == head.crc).then(|| (head.kind, head.flags, payload.into()))
    }
}

/// Goes through a segment.
pub(super) struct Scan {
    path: PathBuf,
    file: Arc<SegmentFile>,
    version: u16,
    mark: Mark,
    sealed: bool,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    /// Reads the header.
    pub(super) fn open(path: &Path) -> Result<(Self, Header), ScanError> {
        let io = |source| ScanError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let (encryption, cipher) = (OnceLock::new(), OnceLock::new());
        let file = Arc::new(SegmentFile { path: path.to_owned(), file, encryption, cipher });
        let mark = Mark::NONE;
        let (window, window_at) = (Vec::new(), 0);
        let path_buf = path.to_owned();
        let mut scan =
            Self { path: path_buf, file, version: 0, mark, sealed: false, window, window_at };
        let bad = |source| ScanError::Header { path: path.to_owned(), source };
        let length = format::header_bytes(scan.see(PREAMBLE_BYTES)?).map_err(bad)?;
        let read = format::decode_header(scan.see(length)?).map_err(bad)?;
        scan.version = read.version;
        if let Some(encryption) = &read.header.encryption {
            // The header is read once: there is nothing in it yet.
            drop(scan.file.encryption.set((read.header.segment, encryption.clone())));
        }
        scan.mark = Mark { hash: read.hash, offset: read.bytes as u64, records: 0 };
        Ok((scan, read.header))
    }

    /// Begins at a record. Its link to the one before is checked, what lies before is not.
    pub(super) fn open_at(path: &Path, offset: u64) -> Result<Self, ScanError> {
        let (mut scan, _) = Self::open(path)?;
        if offset > scan.mark.offset {
            let hash = hash_before(&scan.file.file, offset);
            scan.mark = Mark {
                hash: hash.map_err(|source| ScanError::Io { path: path.to_owned(), source })?,
                offset,
                records: 0,
            };
        }
        Ok(scan)
    }

    /// The state of the chain after the last record read.
    pub(super) const fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether the last record read was the seal.
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The version of the segment's format.
    pub(super) const fn version(&self) -> u16 {
        self.version
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How long the file is now.
    pub(super) fn file_bytes(&self) -> Result<u64, ScanError> {
        self.file.file.metadata().map(|metadata| metadata.len()).map_err(|source| self.io(source))
    }

    /// How much of the disk the file takes: less than its length where it has holes.
    pub(super) fn disk_bytes(&self) -> Result<u64, ScanError> {
        let metadata = self.file.file.metadata().map_err(|source| self.io(source))?;
        Ok(metadata.blocks().saturating_mul(512))
    }

    /// The next record, or none at the end of the file. After an error the same record is tried again.
    pub(super) fn next(&mut self) -> Result<Option<RawRecord>, ScanError> {
        let Mark { hash, offset, records } = self.mark;
        let version = self.version;
        let head = self.see(RECORD_HEAD_BYTES)?;
        if head.is_empty() {
            return Ok(None);
        }
        let have = head.len() as u64;
        let head = head.first_chunk::<RECORD_HEAD_BYTES>().copied();
        if self.sealed {
            return Err(self.bad(BadRecord::AfterSeal));
        }
        let Some(head) = head else {
            let need = RECORD_FRAME_BYTES as u64;
            return Err(self.bad(BadRecord::Incomplete { have, need }));
        };
        let Some(head) = RecordHead::decode(&head) else {
            return Err(self.bad(BadRecord::Length));
        };
        let need = head.record_bytes();
        let bytes = self.see(need)?;
        if bytes.len() < need {
            let (have, need) = (bytes.len() as u64, need as u64);
            return Err(self.bad(BadRecord::Incomplete { have, need }));
        }
        let (record, stored) = bytes.split_at(need - HASH_BYTES);
        if crc32c::crc32c(&record[8..]) != head.crc {
            return Err(self.bad(BadRecord::Checksum));
        }
        let Some(hash) = format::follow(version, hash, head.flags, record) else {
            return Err(self.bad(BadRecord::Length));
        };
        if hash.0 != stored {
            return Err(self.bad(BadRecord::Chain));
        }
        let payload = Bytes::copy_from_slice(&record[RECORD_HEAD_BYTES..]);
        let end = offset + need as u64;
        self.mark = Mark { hash, offset: end, records: records + 1 };
        self.sealed = head.kind == Kind::SEAL;
        let (kind, flags, file) = (head.kind, head.flags, Arc::clone(&self.file));
        Ok(Some(RawRecord { offset, end, kind, flags, payload, hash, file }))
    }

    /// Up to `bytes` bytes from where the scan stands; fewer only where the file ends.
    fn see(&mut self, bytes: usize) -> Result<&[u8], ScanError> {
        let from = self.mark.offset;
        let at = usize::try_from(from.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        let inside = from >= self.window_at && at.saturating_add(bytes) <= self.window.len();
        let at = if inside {
            at
        } else {
            self.fill(from, bytes.max(WINDOW_BYTES))?;
            0
        };
        let end = at.saturating_add(bytes).min(self.window.len());
        Ok(self.window.get(at..end).unwrap_or_default())
    }

    fn fill(&mut self, from: u64, wanted: usize) -> Result<(), ScanError> {
        // The file's length bounds what a damaged record can make us take.
        let left = self.file_bytes()?.saturating_sub(from);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        self.window.resize(wanted, 0);
        self.window_at = from;
        let mut have = 0;
        while have < wanted {
            let offset = from + have as u64;
            match self.file.file.read_at(&mut self.window[have..], offset) {
                Ok(0) => break,
                Ok(bytes) => have += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    self.window.clear();
                    return Err(self.io(source));
                }
            }
        }
        self.window.truncate(have);
        Ok(())
    }

    fn io(&self, source: io::Error) -> ScanError {
        ScanError::Io { path: self.path.clone(), source }
    }

    fn bad(&self, source: BadRecord) -> ScanError {
        ScanError::Record { path: self.path.clone(), offset: self.mark.offset, source }
    }
}

/// The hash that ends at this offset.
pub(super) fn hash_before(file: &File, offset: u64) -> io::Result<ChainHash> {
    let mut hash = [0; HASH_BYTES];
    let at = offset.checked_sub(HASH_BYTES as u64).ok_or(io::ErrorKind::InvalidInput)?;
    file.read_exact_at(&mut hash, at)?;
    Ok(ChainHash(hash))
}

/// The directory of segments in a store.
pub(super) fn segments_directory(store: &Path) -> PathBuf {
    store.join("segments")
}

/// The file of a segment.
pub(super) fn segment_path(store: &Path, segment: SegmentId) -> PathBuf {
    segments_directory(store).join(format!("{segment}.{SEGMENT_EXTENSION}"))
}

/// All segments of a store in the order in which they were written.
pub(super) fn list_segments(store: &Path) -> Result<Vec<(SegmentId, PathBuf)>, ScanError> {
    let directory = segments_directory(store);
    let io = |source| ScanError::Io { path: directory.clone(), source };
    let mut segments = Vec::new();
    for entry in fs::read_dir(&directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_none_or(|extension| extension != SEGMENT_EXTENSION) {
            continue;
        }
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(id) = id {
            segments.push((id, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// How much is read at once.
const WINDOW_BYTES: usize = 256 << 10;
pub(super) const SEGMENT_EXTENSION: &str = "seg";
