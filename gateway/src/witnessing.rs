//! Changes of the witness's health, on record and in the metrics. The gateway goes on with what it has.

use std::sync::Arc;

use recorder_user::{
    model::{Record, WitnessChanged},
    store::Recorder,
    witness::{Follower, HealthEvent, Witness},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{late::LateOutcomes, metrics::Metrics};

/// Where changes of the witness go.
pub struct Witnessing {
    witness: Witness,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    late: Arc<LateOutcomes>,
}

impl Witnessing {
    /// For this witness.
    #[must_use]
    pub fn new(
        witness: &Witness,
        recorder: &Recorder,
        metrics: &Arc<Metrics>,
        late: &Arc<LateOutcomes>,
    ) -> Self {
        let (witness, recorder) = (witness.clone(), recorder.clone());
        Self { witness, recorder, metrics: Arc::clone(metrics), late: Arc::clone(late) }
    }

    /// Takes changes until `stop`. To be called once, after the gateway's start is on record.
    pub async fn follow(self, mut changes: mpsc::Receiver<HealthEvent>, stop: CancellationToken) {
        let mut follower = Follower::new(self.witness.capability().tier);
        loop {
            let told = tokio::select! {
                // cancel-safe: a change that was received is taken in.
                () = stop.cancelled() => return,
                told = changes.recv() => told,
            };
            let Some(told) = told else { return };
            self.changed(follower.follow(told));
        }
    }

    /// Takes one change in. Accounts know of it first: none that is made from now on is thought undisturbed.
    pub fn changed(&self, changed: WitnessChanged) {
        self.witness.sight().note(&changed);
        self.metrics.witness_changed(&changed);
        let (event, detail) = (changed.event.as_str(), changed.detail.as_str());
        tracing::warn!(
            event,
            blind = changed.blind,
            lost = changed.lost,
            detail,
            "witness changed"
        );
        let record = Record::WitnessChanged(changed);
        if self.recorder.try_append(record.clone()).is_err() {
            self.late.keep(record);
        }
    }
}
