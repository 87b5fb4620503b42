//! Outcomes of streams that the store cut, and changes of the witness meanwhile: kept until it works again, so
//! that an end record follows each stream, and no blind time goes untold.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use recorder_user::{
    model::Record,
    store::{Need, Recorder},
};
use tokio_util::sync::CancellationToken;

use crate::bounds::LATE_OUTCOMES_MAX;

/// Outcomes that are not on record yet.
#[derive(Default)]
pub struct LateOutcomes {
    waiting: Mutex<VecDeque<Record>>,
}

impl LateOutcomes {
    /// Keeps a record that the store did not take.
    pub fn keep(&self, outcome: Record) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < LATE_OUTCOMES_MAX {
            waiting.push_back(outcome);
        } else {
            // Its intent stays without an outcome, which says as much.
            tracing::error!(exchange = ?outcome.exchange(), "too many records wait for the store");
        }
    }

    /// Records them once the store works again, until `stop`; then once more.
    pub async fn record(&self, recorder: Recorder, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        while !stop.is_cancelled() {
            tokio::select! {
                // cancel-safe: both only wait.
                () = stop.cancelled() => {}
                _ = tick.tick() => {}
            }
            while let Some(outcome) = self.next() {
                if recorder.append(outcome.clone(), Need::Durable).await.is_err() {
                    let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    waiting.push_front(outcome);
                    break;
                }
                tracing::warn!(exchange = ?outcome.exchange(), "recorded late");
            }
        }
    }

    fn next(&self) -> Option<Record> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
