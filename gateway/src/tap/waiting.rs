//! Waiting for a recorder that is behind its bound: the stream slows, and after a while is cut.

use std::{future::Future, pin::Pin};

use recorder_user::{
    model::Record,
    store::{AppendError, Need, Recorder},
};
use tokio::time::timeout;

use crate::bounds::RECORDER_PATIENCE;

#[cfg(test)]
mod tests;

/// A queueing that has to wait for room, or to be written.
pub type Append = Pin<Box<dyn Future<Output = Result<(), NotRecorded>> + Send>>;

/// What was not passed on, since it could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] AppendError),
    /// It waited for as long as anything may.
    #[error("the recorder was behind for {RECORDER_PATIENCE:?}")]
    Behind,
}

/// Queues without waiting where there is room; else gives the future that waits, at most for
/// [`RECORDER_PATIENCE`].
pub fn queue(recorder: &Recorder, records: Vec<Record>) -> Option<Append> {
    if records.is_empty() {
        return None;
    }
    let records = recorder.try_queue(records).err()?;
    Some(append(recorder, records, Need::Queued))
}

/// Appends, and waits as long as that at most.
pub fn append(recorder: &Recorder, records: Vec<Record>, need: Need) -> Append {
    let recorder = recorder.clone();
    Box::pin(async move {
        let kept = timeout(RECORDER_PATIENCE, recorder.append_all(records, need)).await;
        Ok(kept.map_err(|_| NotRecorded::Behind)??)
    })
}
