//! The handle of the data path: queues records for the writer and waits for what was asked.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use tokio::sync::oneshot;

use super::format::EncodeError;
use super::{
    disk::Space,
    format::PAYLOAD_BYTES_MAX,
    index::IndexHealth,
    queue::{Answer, Entry, Room, Shared, Waiter},
    sync::SyncHealth,
};
use crate::model::{Record, SegmentId};

/// What an append waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// In memory: lost if the process dies now.
    Queued,
    /// `write(2)` returned: survives the process, not a power cut.
    Written,
    /// `fdatasync(2)` returned: survives a power cut. One call serves all who wait.
    Durable,
}

/// A record was not taken, or it is not certain that it is kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// A write or flush failed. Nothing is taken until a new segment file has proven writable.
    #[error("the store does not work: {step} failed")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The record is over the format's bound.
    #[error("a record of {bytes} bytes is over the bound of {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// [`Recorder::try_append`] found the queue and its reserve full.
    #[error("the queue and its reserve are full")]
    Full,
    /// The free space is below the floor: nothing new may begin, what is under way is recorded on.
    #[error(
        "{free_bytes} bytes are free for the store, below its floor of {floor_bytes}: make room, or \
         lower store.freeSpaceFloor"
    )]
    LowSpace {
        /// Bytes that are free.
        free_bytes: u64,
        /// The floor.
        floor_bytes: u64,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl From<EncodeError> for AppendError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge(too_large) => Self::TooLarge { bytes: too_large.bytes },
            EncodeError::Encryption(error) => Self::Failed {
                step: "encrypting a record",
                source: Arc::new(io::Error::other(error)),
            },
        }
    }
}

/// How the store fares; for `/readyz` and metrics.
#[derive(Clone, Debug)]
pub struct StoreHealth {
    /// Whether records are taken and acknowledged.
    pub writable: bool,
    /// The last error with its cause; kept after the store works again.
    pub error: Option<String>,
    /// How often the store failed: see [`Recorder::epoch`].
    pub epoch: u64,
    /// Bytes written to segments since the start.
    pub written_bytes: u64,
    /// Records written since the start.
    pub records: u64,
    /// Write calls since the start; records over writes is how well they batch.
    pub writes: u64,
    /// Bytes that wait for the writer, as the bound counts them.
    pub queue_bytes: usize,
    /// The queue's bound.
    pub queue_bytes_max: usize,
    /// The segment that is written now.
    pub segment: SegmentId,
    /// How long it is.
    pub segment_bytes: u64,
    /// The flushes.
    pub sync: SyncHealth,
    /// The index.
    pub index: IndexHealth,
    /// When the segment was begun; it is sealed when it is full.
    pub segment_begun: Instant,
    /// The space on the file system of the store; none if it cannot be told.
    pub space: Option<Space>,
    /// Below so many free bytes nothing new may begin.
    pub floor_bytes: u64,
    /// Whether that is so.
    pub low_space: bool,
}

/// A cheap handle that appends records. Clones share one queue.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

impl Recorder {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Appends a record: waits for room in the queue, then for the need.
    ///
    /// # Errors
    /// When the record was not taken, or it is not certain that it is kept.
    // Cancel-safe: room is given back if the future is dropped while it waits for it; queueing does not
    // wait; and what is queued is written whether or not anyone waits for the answer.
    pub async fn append(&self, record: Record, need: Need) -> Result<(), AppendError> {
        let weight = weigh(&record)?;
        self.shared.floor.admit(std::slice::from_ref(&record))?;
        let room = self.room(weight).await?;
        let (waiter, answer) = waiter(need);
        self.shared.push(Entry { record, room, reserved: 0, waiter })?;
        wait(answer).await
    }

    /// Appends records that stay together, with one wake-up of the writer.
    ///
    /// # Errors
    /// As [`Recorder::append`]; then some of them may be kept.
    // Cancel-safe as `append` is.
    pub async fn append_all(&self, records: Vec<Record>, need: Need) -> Result<(), AppendError> {
        let weight = weigh_all(&records)?;
        if records.is_empty() {
            return Ok(());
        }
        self.shared.floor.admit(&records)?;
        let room = self.room(weight).await?;
        let (waiter, answer) = waiter(need);
        let room = Room { permits: room, reserved: 0 };
        self.shared.push_all(records, room, waiter).map_err(|refused| refused.error)?;
        wait(answer).await
    }

    /// Queues a record without waiting, for `Drop`. It may exceed the queue's bound by [`RESERVE_BYTES`].
    ///
    /// # Errors
    /// When it was not taken.
    pub fn try_append(&self, record: Record) -> Result<(), AppendError> {
        let shared = &self.shared;
        let weight = weigh(&record)?;
        let Room { permits: room, reserved } = shared.room_or_reserve(weight)?;
        shared.push(Entry { record, room, reserved, waiter: None })
    }

    /// Queues records without waiting where there is room; else gives them back, for
    /// [`Recorder::append_all`] to wait with or to say why not.
    ///
    /// # Errors
    /// The records, untouched.
    pub fn try_queue(&self, records: Vec<Record>) -> Result<(), Vec<Record>> {
        if records.is_empty() {
            return Ok(());
        }
        let Ok(weight) = weigh_all(&records) else { return Err(records) };
        let permits = self.shared.permits(weight);
        match self.shared.room.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(records),
        }
        let room = Room { permits, reserved: 0 };
        self.shared.push_all(records, room, None).map_err(|refused| refused.records)
    }

    /// Queues records at once, into the reserve if need be, and tells when the need is met. Dropping the
    /// answer drops no record.
    pub fn enqueue(&self, records: Vec<Record>, need: Need) -> Ack {
        if records.is_empty() {
            return Ack::done();
        }
        let result = self.shared.floor.admit(&records).and_then(|()| weigh_all(&records));
        let result = result.and_then(|weight| self.shared.room_or_reserve(weight));
        let queued = result.and_then(|room| {
            let (waiter, answer) = waiter(need);
            let pushed = self.shared.push_all(records, room, waiter);
            pushed.map(|()| answer).map_err(|refused| refused.error)
        });
        Ack(match queued {
            Ok(Some(answer)) => AckState::Waiting(answer),
            Ok(None) => AckState::Ready(Ok(())),
            Err(error) => AckState::Ready(Err(error)),
        })
    }

    /// Counts the failures of the store, and the records that it had to refuse after they were queued.
    ///
    /// A record that was only [`Need::Queued`] may be lost with a failure. Whoever relies on several
    /// records together compares this before the first and after the last.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// How the store fares.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        self.shared.health()
    }

    /// Whether the store works. After a failure the writer tries a new segment at once and says what
    /// came of it; otherwise it does so on its own at intervals.
    ///
    /// # Errors
    /// When the store does not work.
    // Cancel-safe: the attempt is made in any case.
    pub async fn probe(&self) -> Result<(), AppendError> {
        match self.shared.probe() {
            Ok(answer) => answer.await.unwrap_or(Err(AppendError::Closed)),
            Err(state) => state,
        }
    }

    async fn room(&self, weight: usize) -> Result<u32, AppendError> {
        let permits = self.shared.permits(weight);
        self.shared.acquire(permits).await?;
        Ok(permits)
    }
}

/// The answer to [`Recorder::enqueue`].
#[must_use = "whoever does not wait does not know whether the records are kept"]
pub struct Ack(AckState);

enum AckState {
    Ready(Answer),
    Waiting(oneshot::Receiver<Answer>),
}

impl Ack {
    /// Nothing was to be kept.
    pub const fn done() -> Self {
        Self(AckState::Ready(Ok(())))
    }
}

impl Ack {
    /// Waits for it. Not for a thread that runs futures.
    pub(super) fn wait(self) -> Answer {
        match self.0 {
            AckState::Ready(answer) => answer,
            AckState::Waiting(answer) => answer.blocking_recv().unwrap_or(Err(AppendError::Closed)),
        }
    }
}

impl Future for Ack {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.0 {
            AckState::Ready(answer) => Poll::Ready(answer.clone()),
            AckState::Waiting(answer) => {
                Pin::new(answer).poll(cx).map(|said| said.unwrap_or(Err(AppendError::Closed)))
            }
        }
    }
}

fn waiter(need: Need) -> (Option<Waiter>, Option<oneshot::Receiver<Answer>>) {
    if need == Need::Queued {
        return (None, None);
    }
    let (answer, receiver) = oneshot::channel();
    (Some(Waiter { durable: need == Need::Durable, answer }), Some(receiver))
}

async fn wait(answer: Option<oneshot::Receiver<Answer>>) -> Answer {
    match answer {
        // The writer ended without an answer: it is not certain that the record is kept.
        Some(answer) => answer.await.unwrap_or(Err(AppendError::Closed)),
        None => Ok(()),
    }
}

fn weigh_all(records: &[Record]) -> Result<usize, AppendError> {
    records.iter().try_fold(0_usize, |sum, record| Ok(sum.saturating_add(weigh(record)?)))
}

/// What a record takes in the queue: close to its memory, cheap to find.
fn weigh(record: &Record) -> Result<usize, AppendError> {
    let headers = |headers: &[(String, String)]| -> usize {
        headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum()
    };
    let bytes = match record {
        Record::Chunk(chunk) => chunk.data.len() + 64,
        Record::Unknown { payload, .. } => payload.len(),
        Record::ExchangeOpened(opened) => {
            let head = opened.head.as_ref();
            1024 + head.map_or(0, |head| head.target.len() * 2 + headers(&head.headers))
        }
        Record::ResponseStarted(started) => headers(&started.head.headers),
        Record::ConnectionSeen(_) => 1024,
        Record::ExchangeSettled(settled) => 1024 + settled.objects.len() * 256,
        _ => 512,
    };
    // Only chunks can come near: this refuses them before they are queued.
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(AppendError::TooLarge { bytes });
    }
    Ok(bytes + 256)
}

/// How far [`Recorder::try_append`] may exceed the queue's bound; beyond it a record is refused.
pub const RESERVE_BYTES: usize = 4 << 20;
