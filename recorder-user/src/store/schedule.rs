//! What the writer does at its time: it signs what is not signed, and seals what is old.

use std::time::{Duration, Instant};

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A signed statement of how far the chain goes.
    Checkpoint,
    /// The end of the segment, and a new one.
    Rotation,
}

/// When something is to be done. An empty segment is neither signed nor sealed.
pub(super) struct Schedule {
    checkpoint_interval: Duration,
    segment_age_max: Duration,
    /// When the first record that no signature covers was written.
    unsigned: Option<Instant>,
    /// When the first record of the segment was written.
    first: Option<Instant>,
}

impl Schedule {
    pub(super) const fn new(checkpoint_interval: Duration, segment_age_max: Duration) -> Self {
        Self { checkpoint_interval, segment_age_max, unsigned: None, first: None }
    }

    /// Records were written.
    pub(super) fn wrote(&mut self) {
        if self.unsigned.is_none() {
            let now = Instant::now();
            self.unsigned = Some(now);
            self.first.get_or_insert(now);
        }
    }

    /// Everything written is signed.
    pub(super) fn signed(&mut self) {
        self.unsigned = None;
    }

    /// A new segment begins; the one before was sealed, which signs it.
    pub(super) fn begun(&mut self) {
        (self.unsigned, self.first) = (None, None);
    }

    /// When there will be something to do; none before anything is written.
    pub(super) fn next(&self) -> Option<Instant> {
        let signing = self.unsigned.map(|since| since + self.checkpoint_interval);
        let ageing = self.first.map(|since| since + self.segment_age_max);
        signing.into_iter().chain(ageing).min()
    }

    /// What is to be done now.
    pub(super) fn due(&self) -> Option<Due> {
        let over =
            |since: Option<Instant>, limit| since.is_some_and(|since| since.elapsed() >= limit);
        if over(self.first, self.segment_age_max) {
            Some(Due::Rotation)
        } else if over(self.unsigned, self.checkpoint_interval) {
            Some(Due::Checkpoint)
        } else {
            None
        }
    }
}
