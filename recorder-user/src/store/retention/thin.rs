//! A segment without some of its records: each is stood for by its digest, and nothing moves.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::{
    model::SegmentId,
    store::{
        disk,
        format::{ChainHash, HASH_BYTES, RECORD_HEAD_BYTES, flag},
        scan::{Scan, ScanError},
    },
};

/// All that is deleted of a segment: how many records, the bytes of their payloads, the hash of their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Missing {
    pub(in crate::store) count: u64,
    pub(in crate::store) bytes: u64,
    pub(in crate::store) digest_of: ChainHash,
}

/// Sums up what is missing.
#[derive(Default)]
pub(in crate::store) struct Missed {
    count: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Missed {
    pub(in crate::store) fn add(&mut self, digest: &[u8; HASH_BYTES], bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        self.hasher.update(digest);
    }

    /// None if nothing is missing.
    pub(in crate::store) fn sum(&self) -> Option<Missing> {
        let digest_of = ChainHash(*self.hasher.finalize().as_bytes());
        let missing = Missing { count: self.count, bytes: self.bytes, digest_of };
        (self.count > 0).then_some(missing)
    }
}

/// The name of a segment's thinner successor until a tombstone is durable.
pub(super) fn thinner_path(segment: &Path) -> PathBuf {
    segment.with_extension(THINNER_EXTENSION)
}

/// Writes the thinner segment beside the old one, durable, and checks it; gives what is missing in all.
pub(super) fn write_thinner(
    (segment, path): (SegmentId, &Path),
    offsets: &[u64],
) -> Result<Missing, ScanError> {
    let new = thinner_path(path);
    let io = |source| ScanError::Io { path: new.clone(), source };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let goes: HashSet<u64> = offsets.iter().copied().collect();
    let old = File::open(path).map_err(io)?;
    let file = disk::create_new(&new).map_err(io)?;
    let (mut scan, _) = Scan::open(path)?;
    copy(&old, &file, 0, scan.mark().offset).map_err(io)?;
    while let Some(raw) = scan.next()? {
        let (offset, end) = (raw.offset, raw.end);
        if raw.is_pruned() {
            // What is behind the digest stays a hole.
            let digest = offset + (RECORD_HEAD_BYTES + HASH_BYTES) as u64;
            copy(&old, &file, offset, digest).map_err(io)?;
        } else if goes.contains(&offset) {
            let kept = end - HASH_BYTES as u64;
            let mut record = vec![0; usize::try_from(kept - offset).unwrap_or(0)];
            old.read_exact_at(&mut record, offset).map_err(io)?;
            file.write_all_at(&stub(&record), offset).map_err(io)?;
        } else {
            copy(&old, &file, offset, end).map_err(io)?;
            continue;
        }
        copy(&old, &file, end - HASH_BYTES as u64, end).map_err(io)?;
    }
    file.set_len(scan.mark().offset).and_then(|()| file.sync_all()).map_err(io)?;
    let missing = check(&new, scan.mark().hash)?;
    let lost = || ScanError::Io { path: new.clone(), source: io::ErrorKind::InvalidData.into() };
    tracing::debug!(%segment, records = missing.map_or(0, |m| m.count), "a thinner segment is ready");
    missing.ok_or_else(lost)
}

/// Head and digest of a record without its payload.
fn stub(record: &[u8]) -> Vec<u8> {
    let digest = *blake3::hash(record).as_bytes();
    let mut bytes = record.to_vec();
    let payload = &mut bytes[RECORD_HEAD_BYTES..];
    payload.fill(0);
    payload[..HASH_BYTES].copy_from_slice(&digest);
    let flags = u16::from_le_bytes([bytes[10], bytes[11]]) | flag::PRUNED;
    bytes[10..12].copy_from_slice(&flags.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes.truncate(RECORD_HEAD_BYTES + HASH_BYTES);
    bytes
}

/// Whether the chain ends as it did; gives what is missing.
pub(super) fn check(path: &Path, hash: ChainHash) -> Result<Option<Missing>, ScanError> {
    let (mut scan, _) = Scan::open(path)?;
    let mut missed = Missed::default();
    while let Some(raw) = scan.next()? {
        if let Some(digest) = raw.digest_left() {
            missed.add(&digest, raw.stored_bytes());
        }
    }
    if scan.mark().hash != hash {
        let source = io::ErrorKind::InvalidData.into();
        return Err(ScanError::Io { path: path.to_owned(), source });
    }
    Ok(missed.sum())
}

fn copy(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = begin;
    while at < end {
        let bytes = usize::try_from(end - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        from.read_exact_at(&mut buffer[..bytes], at)?;
        to.write_all_at(&buffer[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

const COPY_BYTES: usize = 64 << 10;
pub(super) const THINNER_EXTENSION: &str = "thin";
