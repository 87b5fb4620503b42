//! What of a segment can still be made durable after a flush has failed.

use std::io;

use super::{
    disk::DiskFile,
    format::{self, HASH_BYTES, Mark, RECORD_HEAD_BYTES, RecordHead},
};

/// Writes the records between `from` and `end` anew; gives the chain up to where they are intact.
///
/// After a failed `fdatasync` the kernel takes the pages for clean, so that a second call would prove
/// nothing: they must be written again. It may also have dropped them, so that a read gives what was on
/// the platter before: nothing is written again whose hash does not continue the chain.
pub(super) fn rewrite(file: &dyn DiskFile, version: u16, from: Mark, end: u64) -> io::Result<Mark> {
    let mut mark = from;
    let mut record = Vec::new();
    while let Some(next) = intact(file, version, mark, end, &mut record)? {
        file.write_all_at(&record, mark.offset)?;
        mark = next;
    }
    Ok(mark)
}

/// Reads the record after `mark`; gives the chain after it if it continues it.
fn intact(
    file: &dyn DiskFile,
    version: u16,
    mark: Mark,
    end: u64,
    record: &mut Vec<u8>,
) -> io::Result<Option<Mark>> {
    let left = usize::try_from(end.saturating_sub(mark.offset)).unwrap_or(usize::MAX);
    let mut head = [0; RECORD_HEAD_BYTES];
    if left < head.len() {
        return Ok(None);
    }
    file.read_exact_at(&mut head, mark.offset)?;
    let Some(head) = RecordHead::decode(&head) else { return Ok(None) };
    let need = head.record_bytes();
    if need > left {
        return Ok(None);
    }
    record.resize(need, 0);
    file.read_exact_at(record, mark.offset)?;
    let (body, stored) = record.split_at(need - HASH_BYTES);
    let hash = format::follow(version, mark.hash, head.flags, body);
    let offset = mark.offset + need as u64;
    let hash = hash.filter(|hash| hash.0 == stored);
    Ok(hash.map(|hash| Mark { hash, offset, records: mark.records + 1 }))
}
