//! Takes records into the index: from the writer, or from the segments.

use super::{Covered, Index, IndexError, Item, Overlay, Position, Scan, ScanError, scan};
use crate::{model::SegmentId, store::queue::chain};

impl Index {
    /// Takes in what the segments have beyond the rows, at most up to `until`.
    pub(super) fn catch_up(&mut self, until: Option<Position>) -> Result<(), IndexError> {
        for (segment, path) in scan::list_segments(&self.store)? {
            if self.covered.is_some_and(|covered| segment < covered.segment)
                || until.is_some_and(|until| segment > until.segment)
            {
                continue;
            }
            let opened = match self.covered {
                Some(covered) if covered.segment == segment => {
                    Scan::open_at(&path, covered.offset)
                }
                _ => Scan::open(&path).map(|(scan, _)| scan),
            };
            let mut scan = match opened {
                // Deleted since the directory was read.
                Err(error) if error.is_gone() => continue,
                opened => opened?,
            };
            self.take_segment(segment, &mut scan, until)?;
        }
        Ok(())
    }

    fn take_segment(
        &mut self,
        segment: SegmentId,
        scan: &mut Scan,
        until: Option<Position>,
    ) -> Result<(), IndexError> {
        loop {
            let mut items = Vec::new();
            while items.len() < ITEMS_MAX {
                let offset = scan.mark().offset;
                let at = Position { segment, offset };
                if until.is_some_and(|until| at >= until) {
                    break;
                }
                let raw = match scan.next() {
                    Ok(Some(raw)) => raw,
                    Ok(None) => break,
                    Err(error) if error.is_incomplete() => break,
                    Err(error @ ScanError::Io { .. }) => return Err(error.into()),
                    Err(error) => {
                        // Damage is for `verify` to report; rows go as far as records can be trusted.
                        tracing::warn!(error = %chain(&error), "indexing passes over the rest of a segment");
                        break;
                    }
                };
                let (end, hash) = (raw.end, raw.hash);
                // A payload that cannot be read has no row, and is passed over.
                let Ok(record) = raw.decode() else { continue };
                items.push(Item { at, end, hash, record });
            }
            let done = items.len() < ITEMS_MAX;
            self.take(&items)?;
            if done {
                let mark = scan.mark();
                let covered = Covered { segment, offset: mark.offset, hash: mark.hash };
                if self.covered != Some(covered) {
                    Overlay::new(&self.table).commit(covered)?;
                    self.covered = Some(covered);
                }
                return Ok(());
            }
        }
    }

    /// Takes in records, in transactions of bounded size.
    pub(super) fn take(&mut self, items: &[Item]) -> Result<(), IndexError> {
        let mut overlay = Overlay::new(&self.table);
        let (mut last, mut committed) = (None, None);
        for item in items {
            let known = self.covered.is_some_and(|covered| {
                (item.at.segment, item.at.offset) < (covered.segment, covered.offset)
            });
            if known {
                continue;
            }
            self.fold.apply(&mut overlay, item.at, &item.record);
            let end = Covered { segment: item.at.segment, offset: item.end, hash: item.hash };
            last = Some(end);
            if overlay.len() >= OPERATIONS_MAX {
                let full = std::mem::replace(&mut overlay, Overlay::new(&self.table));
                self.put_bytes += full.commit(end)?;
                committed = Some(end);
            }
        }
        if last != committed
            && let Some(end) = last
        {
            self.put_bytes += overlay.commit(end)?;
        }
        self.covered = last.or(self.covered);
        self.reopen_when_large()
    }

    /// sled's recovery takes as long as all that was written since it was last opened.
    fn reopen_when_large(&mut self) -> Result<(), IndexError> {
        if self.put_bytes >= REOPEN_BYTES {
            self.put_bytes = 0;
            self.table.reopen()?;
        }
        Ok(())
    }
}

/// Rows in one transaction.
const OPERATIONS_MAX: usize = 256;
/// Records that are read at once while catching up.
const ITEMS_MAX: usize = 1024;
/// After so many bytes put the database is closed and opened again.
const REOPEN_BYTES: u64 = 1 << 30;
