//! A segment without some of its records: each is stood for by its digest, and nothing moves.

use std::{
    collections::HashSet,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::store::{
    disk::{self, Disk},
    format::{ChainHash, HASH_BYTES},
    scan::{Scan, ScanError},
    stub::{copy_range, write_stub},
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
    disk: &dyn Disk,
    path: &Path,
    offsets: &[u64],
) -> Result<Missing, ScanError> {
    let new = thinner_path(path);
    let io = |source| ScanError::Io { path: new.clone(), source };
    disk::remove_any(disk, &new).map_err(io)?;
    let goes: HashSet<u64> = offsets.iter().copied().collect();
    let old = File::open(path).map_err(io)?;
    let file = disk.create(&new).map_err(io)?;
    let (mut scan, _) = Scan::open(path)?;
    copy_range(&old, &*file, 0, scan.mark().offset).map_err(io)?;
    while let Some(raw) = scan.next()? {
        if raw.is_pruned() || goes.contains(&raw.offset) {
            write_stub(&old, &*file, &raw).map_err(io)?;
        } else {
            copy_range(&old, &*file, raw.offset, raw.end).map_err(io)?;
        }
    }
    file.set_len(scan.mark().offset).and_then(|()| file.sync_data()).map_err(io)?;
    let nothing = || io(io::ErrorKind::InvalidData.into());
    check(&new, scan.mark().hash)?.ok_or_else(nothing)
}

/// Whether the chain ends as it did; gives what is missing.
pub(super) fn check(path: &Path, hash: ChainHash) -> Result<Option<Missing>, ScanError> {
    let (mut scan, _) = Scan::open(path)?;
    let mut missed = Missed::default();
    while let Some(raw) = scan.next()? {
        if let Some(digest) = raw.digest_left() {
            missed.add(&digest, raw.payload_bytes());
        }
    }
    if scan.mark().hash != hash {
        let source = io::ErrorKind::InvalidData.into();
        return Err(ScanError::Io { path: path.to_owned(), source });
    }
    Ok(missed.sum())
}

pub(super) const THINNER_EXTENSION: &str = "thin";
