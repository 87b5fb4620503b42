//! The writer thread: encodes, chains and writes batches; rotates; finds its way after a failure.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    disk::DiskFile,
    format::{Encoder, Mark, Previous, SealedBy, VERSION},
    index::{Feed, Item},
    queue::{Answer, Entry, Shared, Waiter, Work, chain},
    recorder::AppendError,
    rows::Position,
    salvage,
    schedule::{Due, Schedule},
    segment::{Maker, Segment},
    sync::Syncer,
};
use crate::model::{Kind, Record};

/// The thread's state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) sync: Arc<Syncer>,
    pub(super) index: Arc<Feed>,
    maker: Maker,
    segment: Segment,
    segment_bytes_max: u64,
    schedule: Schedule,
    /// Encoded and not yet written, with those who wait, the room to give back, and what the index gets.
    buffer: Vec<u8>,
    written_waiters: Vec<Waiter>,
    durable_waiters: Vec<Waiter>,
    room: u32,
    reserved: usize,
    items: Vec<Item>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        maker: Maker,
        segment: Segment,
        segment_bytes_max: u64,
        schedule: Schedule,
    ) -> Self {
        let (sync, index) = (Arc::clone(&shared.sync), Arc::clone(&shared.index));
        sync.begin(Arc::clone(&segment.file), segment.written);
        shared.at(segment.id, segment.written.offset);
        Self {
            shared,
            sync,
            index,
            maker,
            segment,
            segment_bytes_max,
            schedule,
            buffer: Vec::new(),
            written_waiters: Vec::new(),
            durable_waiters: Vec::new(),
            room: 0,
            reserved: 0,
            items: Vec::new(),
        }
    }

    /// The thread.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        let closing = loop {
            let done = match self.shared.take(&mut batch, self.schedule.next()) {
                Work::Batch => self.write(&mut batch).and_then(|()| self.punctual()),
                Work::Due => self.punctual(),
                Work::SyncFailed(source) => Err(AppendError::Failed { step: "fdatasync", source }),
                Work::Stop(closing) => break closing,
            };
            if let Err(error) = done
                && !self.outlast(&error, &mut batch)
            {
                // Asked to stop while the disk does not work: there is nothing to seal.
                self.end(None, &Err(error));
                return;
            }
            shrink(&mut self.buffer);
        };
        // Without someone who closes it the store was dropped: that is not an orderly end.
        let result = match &closing {
            // The next start relies on it that a seal of this kind follows what is durable.
            Some(_) => self.flush().and_then(|()| self.seal(SealedBy::Close)),
            None => self.flush(),
        };
        self.end(closing, &result);
    }

    fn end(&self, closing: Option<oneshot::Sender<Answer>>, result: &Answer) {
        if let Some(closing) = closing.or(self.shut()) {
            drop(closing.send(result.clone()));
        }
    }

    /// Refuses what is queued and lets the flusher end; gives whoever waits for the end.
    fn shut(&self) -> Option<oneshot::Sender<Answer>> {
        self.sync.stop();
        let (rest, closing) = self.shared.close();
        for waiter in rest.into_iter().filter_map(|entry| entry.waiter) {
            waiter.settle(Err(AppendError::Closed));
        }
        closing
    }

    /// Encodes and writes a batch, in one write if it is not very long.
    fn write(&mut self, batch: &mut Vec<Entry>) -> Answer {
        let mut entries = batch.drain(..);
        let done = loop {
            let Some(entry) = entries.next() else { break self.put() };
            self.encode(entry);
            if self.buffer.len() >= WRITE_BYTES_MAX {
                let done = self.put();
                if done.is_err() {
                    break done;
                }
            }
        };
        if done.is_err() {
            // The rest was never tried. It is refused with what is queued, once nothing more is taken.
            let rest: Vec<_> = entries.collect();
            batch.extend(rest);
        }
        done
    }

    fn encode(&mut self, entry: Entry) {
        let Entry { record, room, reserved, waiter } = entry;
        self.room += room;
        self.reserved += reserved;
        match self.segment.encoder.record(&record, &mut self.buffer) {
            Ok(offset) => {
                let Mark { hash, offset: end, .. } = self.segment.encoder.mark();
                let at = Position { segment: self.segment.id, offset };
                self.items.push(Item { at, end, hash, record: lighten(record) });
                match waiter {
                    Some(waiter) if waiter.durable => self.durable_waiters.push(waiter),
                    Some(waiter) => self.written_waiters.push(waiter),
                    None => {}
                }
            }
            Err(error) => {
                let error = AppendError::from(error);
                tracing::error!(error = %error, "a record was not kept");
                self.shared.refused(&error);
                if let Some(waiter) = waiter {
                    waiter.settle(Err(error));
                }
            }
        }
    }

    /// Writes what is encoded and tells everyone.
    fn put(&mut self) -> Answer {
        if self.buffer.is_empty() {
            self.shared.free(std::mem::take(&mut self.room), std::mem::take(&mut self.reserved));
            return Ok(());
        }
        let from = self.segment.written;
        let written = self.segment.write(&self.buffer);
        written.map_err(|source| AppendError::Failed {
            step: "writing a segment",
            source: Arc::new(source),
        })?;
        if self.sync.is_failed() {
            // The flusher found out meanwhile: from there on nothing is acknowledged.
            let source = Arc::new(io::Error::other("the segment's last flush failed"));
            return Err(AppendError::Failed { step: "fdatasync", source });
        }
        let mark = self.segment.encoder.mark();
        self.segment.written = mark;
        // First: whoever hears that a record is kept, and asks for its row, finds it. This does not wait.
        self.index.push(&mut self.items);
        self.sync.wrote(mark, &mut self.durable_waiters);
        for waiter in self.written_waiters.drain(..) {
            waiter.settle(Ok(()));
        }
        self.shared.free(std::mem::take(&mut self.room), std::mem::take(&mut self.reserved));
        self.shared.written_bytes.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        self.shared.records.fetch_add(mark.records - from.records, Ordering::Relaxed);
        self.shared.writes.fetch_add(1, Ordering::Relaxed);
        self.shared.at(self.segment.id, mark.offset);
        self.buffer.clear();
        self.schedule.wrote();
        if mark.offset >= self.segment_bytes_max { self.rotate() } else { Ok(()) }
    }

    /// What is to be done at its time: a new segment, or a signature.
    fn punctual(&mut self) -> Answer {
        match self.schedule.due() {
            Some(Due::Rotation) => self.rotate(),
            Some(Due::Checkpoint) => self.checkpoint(),
            None => Ok(()),
        }
    }

    /// Signs how far the chain goes.
    fn checkpoint(&mut self) -> Answer {
        let at = Position { segment: self.segment.id, offset: self.segment.written.offset };
        self.segment.encoder.checkpoint((self.maker.clock)(), &mut self.buffer);
        self.push_signed(at, Kind::CHECKPOINT);
        self.sync.announce(self.segment.encoder.head((self.maker.clock)()));
        let done = self.put();
        self.schedule.signed();
        done
    }

    /// Nothing is derived from what is signed, but the index must say that it covers it.
    fn push_signed(&mut self, at: Position, kind: Kind) {
        let Mark { hash, offset: end, .. } = self.segment.encoder.mark();
        let record = Record::Unknown { kind, payload: bytes::Bytes::new() };
        self.items.push(Item { at, end, hash, record });
    }

    fn rotate(&mut self) -> Answer {
        self.seal(SealedBy::Rotation)?;
        let previous = Previous { segment: self.segment.id, hash: self.segment.written.hash };
        let next = self.maker.segment(Some(previous))?;
        self.begin(next);
        Ok(())
    }

    fn begin(&mut self, mut segment: Segment) {
        segment.encoder.follow(&mut self.segment.encoder);
        self.segment = segment;
        self.schedule.begun();
        self.sync.begin(Arc::clone(&self.segment.file), self.segment.written);
        self.shared.at(self.segment.id, self.segment.written.offset);
    }

    /// Ends the segment; returns when all of it is durable.
    fn seal(&mut self, by: SealedBy) -> Answer {
        let at = Position { segment: self.segment.id, offset: self.segment.written.offset };
        self.segment.encoder.seal((self.maker.clock)(), by, 0, &mut self.buffer);
        self.segment.write(&self.buffer).map_err(|source| AppendError::Failed {
            step: "writing a seal",
            source: Arc::new(source),
        })?;
        self.segment.written = self.segment.encoder.mark();
        self.segment.sealed = true;
        self.buffer.clear();
        self.sync.announce(self.segment.encoder.head((self.maker.clock)()));
        self.sync.wrote(self.segment.written, &mut self.durable_waiters);
        self.shared.at(self.segment.id, self.segment.written.offset);
        self.push_signed(at, Kind::SEAL);
        self.index.push(&mut self.items);
        self.flush()?;
        self.segment.trim();
        Ok(())
    }

    fn flush(&self) -> Answer {
        let failed = |source| AppendError::Failed { step: "fdatasync", source };
        self.sync.flush().map_err(failed)
    }

    /// After a failure: refuses everything until a new segment has proven writable. False when it is
    /// asked to stop before that.
    fn outlast(&mut self, error: &AppendError, batch: &mut Vec<Entry>) -> bool {
        tracing::error!(error = %chain(error), "the store failed; nothing is recorded until it works");
        self.shared.fail(error, batch);
        let (durable, flushing) = self.sync.abandon();
        let queued = batch.drain(..).filter_map(|entry| {
            self.shared.free(entry.room, entry.reserved);
            entry.waiter
        });
        let waiting = self.written_waiters.drain(..).chain(self.durable_waiters.drain(..));
        for waiter in waiting.chain(flushing).chain(queued) {
            waiter.settle(Err(error.clone()));
        }
        self.shared.free(std::mem::take(&mut self.room), std::mem::take(&mut self.reserved));
        self.buffer.clear();
        self.items.clear();
        let mut old = Unfinished { durable, is_clean: self.sync.is_failed(), ended: false };
        let mut attempts = 0;
        loop {
            let result = self.go_on(&mut old);
            if let Err(error) = &result {
                tracing::warn!(error = %chain(error), attempts, "the store does not work yet");
            } else {
                tracing::info!(attempts, "the store works again, in a new segment");
            }
            self.shared.attempted(&result);
            if result.is_ok() {
                return true;
            }
            attempts += 1;
            if self.shared.pause(RETRY) {
                return false;
            }
        }
    }

    fn go_on(&mut self, old: &mut Unfinished) -> Answer {
        // A bad file must not keep a good disk from being used. The next start seals it.
        if !old.ended
            && let Err(error) = self.finish(old)
        {
            tracing::warn!(error = %error, "the failed segment could not be sealed");
        }
        // The link names what survives a power cut, or the chain would break with the next one.
        let previous = Previous { segment: self.segment.id, hash: old.durable.hash };
        let next = self.maker.segment(Some(previous))?;
        self.begin(next);
        Ok(())
    }

    /// Makes what was acknowledged durable, cuts the rest, and seals.
    fn finish(&mut self, old: &mut Unfinished) -> io::Result<()> {
        let Segment { id, file, written, sealed, .. } = &mut self.segment;
        if old.durable != *written {
            let kept = if old.is_clean {
                salvage::rewrite(file.as_ref(), VERSION, old.durable, written.offset)?
            } else {
                *written
            };
            old.sync(file.as_ref(), kept)?;
            if kept != *written {
                let bytes = written.offset - kept.offset;
                tracing::error!(
                    bytes,
                    "the disk lost records that were written and not yet flushed"
                );
                (*written, *sealed) = (kept, false);
            }
        }
        file.set_len(written.offset)?;
        if !*sealed {
            let mut encoder = Encoder::resume(*id, *written, Arc::clone(&self.maker.key));
            let mut seal = Vec::new();
            encoder.seal((self.maker.clock)(), SealedBy::Failure, 0, &mut seal);
            let done = file.write_all_at(&seal, written.offset);
            if let Err(error) = done.and_then(|()| old.sync(file.as_ref(), encoder.mark())) {
                // A part of a seal must not stay, or the file would end in a torn record.
                file.set_len(written.offset)?;
                return Err(error);
            }
        }
        old.ended = true;
        Ok(())
    }
}

impl Drop for Writer {
    /// Also after a panic nobody may wait for an answer that never comes.
    fn drop(&mut self) {
        drop(self.shut());
    }
}

/// The segment that failed.
struct Unfinished {
    /// Up to here it is certainly durable.
    durable: Mark,
    /// Whether a flush failed, after which the kernel takes pages for clean that are not on the platter.
    is_clean: bool,
    /// Whether it is sealed.
    ended: bool,
}

impl Unfinished {
    fn sync(&mut self, file: &dyn DiskFile, mark: Mark) -> io::Result<()> {
        match file.sync_data() {
            Ok(()) => self.durable = mark,
            Err(error) => {
                self.is_clean = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The index needs the time of a chunk, not its bytes.
fn lighten(mut record: Record) -> Record {
    if let Record::Chunk(chunk) = &mut record {
        chunk.data = bytes::Bytes::new();
    }
    record
}

/// A rare large batch must not keep its memory for ever.
fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity() > 4 * WRITE_BYTES_MAX {
        buffer.shrink_to(WRITE_BYTES_MAX);
    }
}

/// A longer batch is written in parts, so that the first of it is acknowledged early.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// How long the writer waits between attempts to write again; a probe asks for one at once.
const RETRY: Duration = Duration::from_millis(250);
