//! Makes segments: none is used before its header and its name are durable.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Clock,
    disk::{self, Disk, DiskFile},
    encryption::Vault,
    format::{EncodeError, Encoder, Header, Mark, Previous},
    index::Item,
    queue::chain,
    recorder::AppendError,
    rows::Position,
    scan::{segment_path, segments_directory},
    signing::{self, SigningKey},
};
use crate::model::{BootId, GatewayId, Record, SegmentId};

/// What makes segments.
pub(super) struct Maker {
    pub(super) store: PathBuf,
    pub(super) keys: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Clock,
    pub(super) gateway: GatewayId,
    pub(super) boot: BootId,
    pub(super) key: Arc<SigningKey>,
    /// None where nothing is encrypted.
    pub(super) vault: Option<Arc<Vault>>,
    /// The greatest id so far: ids must sort in the order of the chain, whatever the clock does.
    pub(super) last: Option<SegmentId>,
    /// What an attempt that failed may have left: it must be gone before the next segment has a name, or
    /// two would follow the same one.
    pub(super) leftovers: Vec<PathBuf>,
}

/// The segment that is written.
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) encoder: Encoder,
    /// The chain after the last successful write; the encoder may be ahead of it.
    pub(super) written: Mark,
    pub(super) sealed: bool,
    /// Up to this length space is set aside.
    allocated: u64,
}

/// Space is set aside in steps of this size, so that a full disk is found before a record is begun, and extents
/// are long. A disk with less room than that counts as full.
const ALLOCATE_BYTES: u64 = 1 << 20;

/// Sets space aside for at least so many bytes; up to which length, it returns.
fn set_aside(file: &dyn DiskFile, bytes: u64) -> io::Result<u64> {
    let until = bytes.next_multiple_of(ALLOCATE_BYTES);
    match file.allocate(until) {
        // Then a write finds out.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(u64::MAX),
        done => done.map(|()| until),
    }
}

impl Segment {
    /// Writes what comes next, where there is room for all of it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written.offset + bytes.len() as u64;
        if end > self.allocated {
            self.allocated = set_aside(&*self.file, end)?;
        }
        self.file.write_all_at(bytes, self.written.offset)
    }

    /// Gives back what was set aside and is not needed, once all that was written is durable.
    pub(super) fn trim(&self) {
        if let Err(error) = self.file.set_len(self.written.offset) {
            tracing::warn!(error = %error, "a finished segment keeps space that it does not need");
        }
    }

    /// Writes records before the writer runs; they are durable when it returns.
    pub(super) fn write_now(&mut self, records: Vec<Record>) -> Result<Vec<Item>, AppendError> {
        let mut bytes = Vec::new();
        let mut items = Vec::new();
        for record in records {
            let offset = self.encoder.record(&record, &mut bytes)?;
            let Mark { hash, offset: end, .. } = self.encoder.mark();
            let at = Position { segment: self.id, offset };
            items.push(Item { at, end, hash, record });
        }
        let written = self.write(&bytes);
        written.and_then(|()| self.file.sync_data()).map_err(|source| AppendError::Failed {
            step: "writing the first records",
            source: Arc::new(source),
        })?;
        self.written = self.encoder.mark();
        Ok(items)
    }
}

impl Maker {
    /// Makes a segment and proves that it can be written: space, header, `fdatasync`, name, directory. Without
    /// the space a full disk with room for a header would seem to work, and fail again with the next record.
    pub(super) fn segment(&mut self, previous: Option<Previous>) -> Result<Segment, AppendError> {
        let failed = |step| move |source| AppendError::Failed { step, source: Arc::new(source) };
        self.take_up_new_key();
        let id = next_id(self.last);
        let sealed = self.vault.as_ref().map(|vault| vault.begin(id)).transpose();
        let sealed = sealed.map_err(|error| AppendError::from(EncodeError::from(error)))?;
        let (encryption, cipher) = sealed.unzip();
        let header = Header {
            encryption,
            segment: id,
            gateway: self.gateway,
            boot: self.boot,
            key: Some(self.key.id()),
            created: (self.clock)(),
            previous,
        };
        let mut bytes = Vec::new();
        let encoder = Encoder::begin(&header, Arc::clone(&self.key), cipher, &mut bytes);
        let path = segment_path(&self.store, id);
        let new = path.with_extension(NEW_EXTENSION);
        while let Some(leftover) = self.leftovers.last() {
            disk::remove_any(&*self.disk, leftover).map_err(failed("removing a failed segment"))?;
            self.leftovers.pop();
        }
        let made: Result<_, AppendError> = (|| {
            let file = self.disk.create(&new).map_err(failed("creating a segment"))?;
            let allocated = set_aside(&*file, bytes.len() as u64);
            let allocated = allocated.map_err(failed("setting space aside for a segment"))?;
            file.write_all_at(&bytes, 0).map_err(failed("writing a segment's header"))?;
            file.sync_data().map_err(failed("fdatasync of a segment's header"))?;
            let named = disk::publish(&*self.disk, &new, &path);
            named.map_err(failed("naming a segment"))?;
            Ok((file, allocated))
        })();
        // A leftover holds a header and nothing else, under whichever name.
        let (file, allocated) = made.inspect_err(|_| {
            self.leftovers = vec![new, path];
            self.leftovers.retain(|leftover| disk::remove_any(&*self.disk, leftover).is_err());
        })?;
        self.last = Some(id);
        let written = encoder.mark();
        Ok(Segment { id, file, encoder, written, sealed: false, allocated })
    }
}

impl Maker {
    /// A key that was exchanged meanwhile. Without it the old one goes on: it is as good.
    fn take_up_new_key(&mut self) {
        match signing::load_or_create(&self.keys) {
            Ok(key) => self.key = key,
            Err(error) => tracing::warn!(error = %chain(&error), "the signing key stays as it was"),
        }
    }
}

fn next_id(last: Option<SegmentId>) -> SegmentId {
    let id = SegmentId::new();
    match last {
        Some(last) if id <= last => {
            let next = u128::from_be_bytes(*last.as_bytes()).saturating_add(1);
            SegmentId::from_bytes(next.to_be_bytes())
        }
        _ => id,
    }
}

/// Removes what a crash left of making a segment: it holds nothing that was acknowledged.
pub(super) fn remove_leftovers(disk: &dyn Disk, store: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(segments_directory(store))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == NEW_EXTENSION) {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

/// A segment's name until its header is durable.
const NEW_EXTENSION: &str = "new";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_in_the_order_of_the_chain_when_the_clock_goes_back() {
        let future = SegmentId::from_bytes([0xff; 16]);
        let last = SegmentId::from_bytes({
            let mut bytes = [0xff; 16];
            bytes[15] = 0;
            bytes
        });
        let next = next_id(Some(last));
        assert!(last < next && next < future);
        assert!(next_id(Some(next)) > next);
        assert!(next_id(None) < last, "the clock is not that far");
    }
}
