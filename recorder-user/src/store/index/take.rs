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
                Some(covered) if covered.segment == segment => Scan::open_at(&path, covered.offset),
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
                    Overlay::new(&*self.table, self.next).commit(covered)?;
                    self.covered = Some(covered);
                }
                return Ok(());
            }
        }
    }

    /// Takes in records, in transactions of bounded size.
    pub(super) fn take(&mut self, items: &[Item]) -> Result<(), IndexError> {
        let mut overlay = Overlay::new(&*self.table, self.next);
        let (mut last, mut committed, mut bytes) = (None, None, 0);
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
            if overlay.len() >= ROWS_MAX {
                let done = overlay.commit(end)?;
                (self.next, committed) = (done.next, Some(end));
                bytes += done.bytes;
                overlay = Overlay::new(&*self.table, self.next);
            }
        }
        if last != committed
            && let Some(end) = last
        {
            let done = overlay.commit(end)?;
            self.next = done.next;
            bytes += done.bytes;
        }
        self.covered = last.or(self.covered);
        self.bound_recovery(bytes)
    }

    /// What was written since the database was opened may be what its recovery reads, and what was written
    /// since it was durable what it keeps of older pages.
    fn bound_recovery(&mut self, bytes: u64) -> Result<(), IndexError> {
        self.put_bytes += bytes;
        self.volatile_bytes += bytes;
        if self.put_bytes >= REOPEN_BYTES {
            (self.put_bytes, self.volatile_bytes) = (0, 0);
            self.table.reopen()?;
        } else if self.volatile_bytes >= VOLATILE_BYTES_MAX {
            self.volatile_bytes = 0;
            self.table.durable()?;
        }
        Ok(())
    }
}

/// Rows in one transaction, about.
const ROWS_MAX: usize = 1024;
/// Records that are read at once while catching up.
const ITEMS_MAX: usize = 1024;
/// After so many bytes put the database is closed and opened again.
const REOPEN_BYTES: u64 = 1 << 30;
/// After so many bytes put they are made durable.
const VOLATILE_BYTES_MAX: u64 = 64 << 20;
