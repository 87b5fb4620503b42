//! The one exception to "never forward what cannot be recorded": reads under a permit annotated
//! `@unrecorded("allow")`. Their count and time span are recorded as soon as the store works.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use recorder_user::{
    model::{Record, Timestamp, UnrecordedSpan},
    store::{Need, Recorder},
};
use tokio_util::sync::CancellationToken;

/// What passed unrecorded and is not stated in the record yet.
#[derive(Default)]
pub struct Unrecorded {
    span: Mutex<Option<UnrecordedSpan>>,
}

impl Unrecorded {
    /// A read passed at `time`.
    pub fn passed(&self, time: Timestamp) {
        let mut span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        let span = span.get_or_insert(UnrecordedSpan { from: time, to: time, exchanges: 0 });
        span.from = span.from.min(time);
        span.to = span.to.max(time);
        span.exchanges += 1;
    }

    /// States the gap once the store works again, until `stop`.
    pub async fn report(&self, recorder: Recorder, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        while !stop.is_cancelled() {
            tokio::select! {
                // cancel-safe: both only wait.
                () = stop.cancelled() => {}
                _ = tick.tick() => {}
            }
            self.report_once(&recorder).await;
        }
    }

    async fn report_once(&self, recorder: &Recorder) {
        let span = self.span.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(span) = span else { return };
        let record = Record::UnrecordedSpan(span.clone());
        if recorder.append(record, Need::Durable).await.is_err() {
            let mut kept = self.span.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some(match kept.take() {
                Some(later) => UnrecordedSpan {
                    from: span.from.min(later.from),
                    to: span.to.max(later.to),
                    exchanges: span.exchanges + later.exchanges,
                },
                None => span,
            });
        } else {
            tracing::warn!(
                exchanges = span.exchanges,
                "reads passed unrecorded; the record says so"
            );
        }
    }
}
