//! What the tombstones of a store say is gone.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use bytes::Bytes;

use super::thin::Missing;
use crate::{
    model::{HoldChanged, Kind, Record, SegmentId},
    store::{
        format::{
            self, DeletedRecords, DeletedSegments, HASH_BYTES, Previous, RECORD_HEAD_BYTES,
            RecordHead, Signed, Tombstone, flag,
        },
        scan::{self, RawRecord, Scan, ScanError},
        signing::{self, Endorsement, Trust},
    },
};

/// Where a tombstone was found, and what it says.
pub(in crate::store) struct FoundTombstone {
    pub(in crate::store) segment: SegmentId,
    pub(in crate::store) statement: Tombstone,
}

/// What is gone, by signed statements of keys that are trusted.
#[derive(Default)]
pub(in crate::store) struct Gone {
    pub(in crate::store) tombstones: Vec<FoundTombstone>,
}

impl Gone {
    /// Reads the tombstones of a store, and nothing else of it. Without a key to trust each is believed, as
    /// every other signature is.
    pub(in crate::store) fn read(store: &Path, trust: &Trust) -> Result<Self, ScanError> {
        let mut trust = trust.clone();
        let mut found = Vec::new();
        for (segment, path) in scan::list_segments(store)? {
            let io = |source| ScanError::Io { path: path.clone(), source };
            match Scan::open(&path) {
                Ok((scan, _)) => {
                    let begin = scan.mark().offset;
                    walk(&path, begin, &[Kind::KEY, Kind::TOMBSTONE], |seen| {
                        if seen.kind == Kind::TOMBSTONE {
                            let read = Signed::<Tombstone>::read(&seen.payload);
                            found.extend(read.map(|signed| (segment, signed)));
                        } else if let Some(endorsement) = Endorsement::read(&seen.payload) {
                            // One that is not the key's makes nothing trusted; it is found where records are checked.
                            trust.endorse(&endorsement);
                        }
                    })
                    .map_err(io)?;
                }
                Err(error) if error.is_gone() => {}
                Err(error @ ScanError::Io { .. }) => return Err(error),
                // The one who goes through the records says what is wrong.
                Err(_) => {}
            }
        }
        // A key may be endorsed only after what it signed.
        let mut tombstones = Vec::new();
        for (segment, signed) in found {
            if is_trusted(&trust, &signed) {
                tombstones.push(FoundTombstone { segment, statement: signed.statement });
            }
        }
        Ok(Self { tombstones })
    }

    /// All runs of segments that were deleted.
    pub(in crate::store) fn segments(&self) -> impl Iterator<Item = &DeletedSegments> {
        self.tombstones.iter().flat_map(|found| &found.statement.segments)
    }

    /// What is said of records of a segment, oldest first.
    pub(in crate::store) fn records(
        &self,
        segment: SegmentId,
    ) -> impl Iterator<Item = &DeletedRecords> {
        let all = self.tombstones.iter().flat_map(|found| &found.statement.records);
        all.filter(move |records| records.segment == segment)
    }

    /// The latest tombstone that says exactly this of a segment's deleted records.
    pub(in crate::store) fn says(
        &self,
        segment: SegmentId,
        missing: Missing,
    ) -> Option<&DeletedRecords> {
        let Missing { count, digest_of, .. } = missing;
        let said = self.records(segment);
        said.filter(|said| (said.count, said.digest_of) == (count, digest_of)).last()
    }

    /// The runs of deleted segments that lead from a segment's predecessor back to one that is there, or to
    /// the store's beginning; none if something is missing that no tombstone speaks of.
    pub(in crate::store) fn bridge(
        &self,
        from: Previous,
        to: Option<Previous>,
    ) -> Option<Vec<DeletedSegments>> {
        let mut runs = Vec::new();
        let mut at = Some(from);
        while at != to {
            let end = at?;
            let ends_here = |run: &&DeletedSegments| {
                let sound = run.previous.is_none_or(|previous| previous.segment < run.first);
                (run.last, run.hash) == (end.segment, end.hash) && run.first <= run.last && sound
            };
            let beyond = |run: &DeletedSegments| to.is_none_or(|to| run.first > to.segment);
            let run = self
                .segments()
                .filter(ends_here)
                .max_by_key(|run| (beyond(run), std::cmp::Reverse(run.first)))?;
            runs.push(run.clone());
            if !beyond(run) {
                // A later deletion joined both sides of one that is still there: it is as good as gone.
                return to.filter(|to| run.spans(to.segment)).map(|_| runs);
            }
            at = run.previous;
        }
        runs.reverse();
        Some(runs)
    }
}

/// The holds of a store, as the last record of each says, oldest first.
pub(super) fn holds(store: &Path) -> Result<Vec<HoldChanged>, ScanError> {
    let mut holds = BTreeMap::new();
    for (_, path) in scan::list_segments(store)? {
        let io = |source| ScanError::Io { path: path.clone(), source };
        let begin = match Scan::open(&path) {
            Ok((scan, _)) => scan.mark().offset,
            Err(error) if !error.is_gone() && matches!(error, ScanError::Io { .. }) => {
                return Err(error);
            }
            Err(_) => continue,
        };
        let mut offsets = Vec::new();
        walk(&path, begin, &[Kind::HOLD_CHANGED], |seen| offsets.push(seen.offset)).map_err(io)?;
        for offset in offsets {
            let raw = Scan::open_at(&path, offset)?.next()?;
            if let Some(Ok(Record::HoldChanged(changed))) = raw.map(RawRecord::decode) {
                holds.insert(changed.hold, changed);
            }
        }
    }
    Ok(holds.into_values().collect())
}

/// Whether a tombstone is signed by a key that is trusted.
pub(in crate::store) fn is_trusted(trust: &Trust, signed: &Signed<Tombstone>) -> bool {
    if trust.is_empty() {
        return true;
    }
    let key = signed.statement.key.and_then(|key| trust.key(key));
    key.is_some_and(|key| key.verifies(signing::TOMBSTONE, &signed.json, &signed.signature))
}

/// A record that was passed on the way.
struct Seen {
    kind: Kind,
    offset: u64,
    payload: Bytes,
}

/// Shows the records of these kinds. Neither checksums nor the chain are checked here. Ends where a length
/// makes no sense.
fn walk(path: &Path, begin: u64, kinds: &[Kind], mut show: impl FnMut(Seen)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(64 << 10, File::open(path)?);
    let end = file.get_ref().metadata()?.len();
    let mut at = file.seek(SeekFrom::Start(begin))?;
    while at + format::RECORD_FRAME_BYTES as u64 <= end {
        let mut head = [0; RECORD_HEAD_BYTES];
        file.read_exact(&mut head)?;
        let Some(head) = RecordHead::decode(&head) else { return Ok(()) };
        let offset = at;
        at += head.record_bytes() as u64;
        if at > end {
            return Ok(());
        }
        let mut rest = head.payload_bytes + HASH_BYTES;
        if kinds.contains(&head.kind) && head.flags & flag::PRUNED == 0 {
            let mut payload = vec![0; head.payload_bytes];
            file.read_exact(&mut payload)?;
            show(Seen { kind: head.kind, offset, payload: payload.into() });
            rest = HASH_BYTES;
        }
        file.seek_relative(i64::try_from(rest).unwrap_or(i64::MAX))?;
    }
    Ok(())
}
