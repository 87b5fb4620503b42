//! What is left of a record that is taken out: its digest, so that nothing moves and the chain holds.

use std::io;

use super::{
    disk::DiskFile,
    format::{HASH_BYTES, RECORD_HEAD_BYTES, flag},
    scan::RawRecord,
};

/// Copies a range of a segment to the same place in another file.
pub(super) fn copy_range(
    from: &dyn DiskFile,
    to: &dyn DiskFile,
    begin: u64,
    end: u64,
) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(end - begin).map_err(io::Error::other)?];
    from.read_exact_at(&mut bytes, begin)?;
    to.write_all_at(&bytes, begin)
}

/// Writes what is left of a record without its payload. The zeros are a hole where the file system has them.
pub(super) fn write_stub(
    from: &dyn DiskFile,
    to: &dyn DiskFile,
    raw: &RawRecord,
) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(raw.end - raw.offset).map_err(io::Error::other)?];
    from.read_exact_at(&mut bytes, raw.offset)?;
    let end = bytes.len() - HASH_BYTES;
    let digested = RECORD_HEAD_BYTES + HASH_BYTES;
    // One that is a stub already keeps its digest.
    if !raw.is_pruned() {
        let digest = blake3::hash(&bytes[..end]);
        bytes[10..12].copy_from_slice(&(raw.flags | flag::PRUNED).to_le_bytes());
        bytes[RECORD_HEAD_BYTES..digested].copy_from_slice(digest.as_bytes());
        bytes[digested..end].fill(0);
        let crc = crc32c::crc32c(&bytes[8..end]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    to.write_all_at(&bytes[..digested], raw.offset)?;
    to.write_all_at(&bytes[end..], raw.end - HASH_BYTES as u64)
}
