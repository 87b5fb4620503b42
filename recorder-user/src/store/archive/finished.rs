//! Which segments get no more records.

use std::path::{Path, PathBuf};

use super::super::{
    format::Previous,
    lock,
    open::LOCK_FILE,
    reader::{ReadError, Reader},
    scan::{self, Scan},
};
use crate::model::{GatewayId, SegmentId};

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentEnd {
    /// The next segment begins with the hash that this one ends with.
    Linked,
    /// It is sealed, and there is no next one to compare with: none at all, or none with a sound header.
    Sealed,
    /// The next segment does not follow from its last byte: there is damage, or a failed write that the
    /// next start of the gateway mends.
    Broken,
}

/// A segment that gets no more records.
#[derive(Clone, Debug)]
pub struct FinishedSegment {
    /// The segment.
    pub segment: SegmentId,
    /// The gateway that wrote it; none if not even its header can be read.
    pub gateway: Option<GatewayId>,
    /// The segment before it, which may be gone from here; none also if the header cannot be read.
    pub previous: Option<SegmentId>,
    /// Its file.
    pub path: PathBuf,
    /// The file's length.
    pub bytes: u64,
    /// How it ends.
    pub end: SegmentEnd,
}

impl Reader {
    /// The segments that get no more records, in the order in which they were written. What is within them
    /// is not read.
    ///
    /// # Errors
    /// When the directory cannot be read. A damaged segment is not an error but [`SegmentEnd::Broken`].
    pub fn finished_segments(&self) -> Result<Vec<FinishedSegment>, ReadError> {
        let segments = scan::list_segments(self.directory())?;
        let mut finished = Vec::new();
        for pair in segments.windows(2) {
            let [(segment, path), (_, next)] = pair else { continue };
            let end = match Scan::open(next).ok().map(|(_, header)| header.previous) {
                Some(Some(previous)) if ends_as(path, *segment, previous) => SegmentEnd::Linked,
                // The next one's damage is not this one's.
                None if is_sealed(path) => SegmentEnd::Sealed,
                _ => SegmentEnd::Broken,
            };
            finished.push(described(*segment, path, end)?);
        }
        if let Some((segment, path)) = segments.last()
            && !lock::is_held(&self.directory().join(LOCK_FILE))
            && is_sealed(path)
        {
            finished.push(described(*segment, path, SegmentEnd::Sealed)?);
        }
        Ok(finished)
    }
}

fn described(
    segment: SegmentId,
    path: &Path,
    end: SegmentEnd,
) -> Result<FinishedSegment, ReadError> {
    let header = Scan::open(path).ok().map(|(_, header)| header);
    let bytes = std::fs::metadata(path)
        .map_err(|source| scan::ScanError::Io { path: path.to_owned(), source })?
        .len();
    Ok(FinishedSegment {
        segment,
        gateway: header.as_ref().map(|header| header.gateway),
        previous: header.and_then(|header| header.previous).map(|previous| previous.segment),
        path: path.to_owned(),
        bytes,
        end,
    })
}

fn ends_as(path: &Path, segment: SegmentId, previous: Previous) -> bool {
    let last_hash = || {
        let file = std::fs::File::open(path)?;
        let bytes = file.metadata()?.len();
        scan::hash_before(&file, bytes)
    };
    previous.segment == segment && last_hash().is_ok_and(|hash| hash == previous.hash)
}

/// Reads the whole segment: after a stop, and beside damage.
fn is_sealed(path: &Path) -> bool {
    let Ok((mut scan, _)) = Scan::open(path) else { return false };
    while let Ok(Some(_)) = scan.next() {}
    scan.is_sealed()
}
