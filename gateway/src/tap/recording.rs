//! One direction of an exchange on its way to the recorder.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use bytes::Bytes;
use recorder_user::{
    effect::{EffectResult, Observer},
    model::{BodyFacts, Chunk, Direction, ExchangeId, Record},
    redact::{BodyPlan, RedactKey, Redactor},
    witness::Pace,
};

use crate::bounds::REPLAY_BYTES_MAX;

/// A body being redacted and cut into records.
pub struct Recording {
    exchange: ExchangeId,
    direction: Direction,
    received: Instant,
    state: State,
    offset: u64,
    out: Vec<Bytes>,
}

enum State {
    Running(Box<Redactor>),
    Ended(BodyFacts),
}

impl Recording {
    /// A body that has no byte yet.
    #[must_use]
    pub fn new(
        exchange: ExchangeId,
        direction: Direction,
        received: Instant,
        plan: BodyPlan,
        key: &Arc<RedactKey>,
    ) -> Self {
        let redactor = Redactor::new(plan, Arc::clone(key));
        let state = State::Running(Box::new(redactor));
        Self { exchange, direction, received, state, offset: 0, out: Vec::new() }
    }

    /// A body that has no bytes at all.
    #[must_use]
    pub fn empty(exchange: ExchangeId, direction: Direction, received: Instant) -> Self {
        let state = State::Ended(BodyFacts { ended: true, ..BodyFacts::default() });
        Self { exchange, direction, received, state, offset: 0, out: Vec::new() }
    }

    /// Takes bytes that pass `now`; gives the records that hold them.
    pub fn push(&mut self, bytes: &Bytes, now: Instant, records: &mut Vec<Record>) {
        if let State::Running(redactor) = &mut self.state {
            redactor.push(bytes, &mut self.out);
            self.cut(now, records);
        }
    }

    /// The body is over, by its own end or not. Again is harmless.
    pub fn finish(&mut self, ended: bool, records: &mut Vec<Record>) -> BodyFacts {
        let ended_before = State::Ended(BodyFacts::default());
        match std::mem::replace(&mut self.state, ended_before) {
            State::Running(redactor) => {
                let facts = redactor.finish(ended, &mut self.out);
                self.cut(Instant::now(), records);
                self.state = State::Ended(facts.clone());
                facts
            }
            State::Ended(facts) => {
                self.state = State::Ended(facts.clone());
                facts
            }
        }
    }

    fn cut(&mut self, now: Instant, records: &mut Vec<Record>) {
        let at_us = micros(now.saturating_duration_since(self.received));
        for data in self.out.drain(..).filter(|data| !data.is_empty()) {
            let offset = self.offset;
            self.offset += data.len() as u64;
            let (exchange, direction) = (self.exchange, self.direction);
            records.push(Record::Chunk(Chunk { exchange, direction, at_us, offset, data }));
        }
    }
}

/// What both taps of an exchange, and its settling, work on.
pub struct Shared {
    /// The request's body.
    pub request: Recording,
    /// The response's body; none before its head.
    pub response: Option<Recording>,
    /// Time that the request waited for its record.
    pub open_us: u64,
    /// How the request's body came and went.
    pub request_pace: Pace,
    /// When its last byte was handed to the HTTP layer, by the kernel's clock.
    pub handed_ns: Option<u64>,
    /// Why the request's body was cut, if it was.
    pub request_cut: Option<RequestCut>,
    /// What the exchange does to the cluster; none once that is told.
    observer: Option<Observer>,
    replay: Option<Vec<Bytes>>,
    replay_bytes: usize,
    request_complete: bool,
}

/// Why a request's body did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestCut {
    /// The client left.
    Client,
    /// The recorder could not write.
    Recorder,
}

impl Shared {
    /// For a request whose body is `request`.
    #[must_use]
    pub fn new(request: Recording, observer: Observer) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            request,
            response: None,
            observer: Some(observer),
            open_us: 0,
            request_pace: Pace::default(),
            handed_ns: None,
            request_cut: None,
            replay: Some(Vec::new()),
            replay_bytes: 0,
            request_complete: false,
        }))
    }

    /// Shows something to the observer.
    pub fn observe(&mut self, show: impl FnOnce(&mut Observer)) {
        if let Some(observer) = &mut self.observer {
            show(observer);
        }
    }

    /// What the exchange did, as far as it was seen.
    pub fn finish_observer(&mut self) -> EffectResult {
        self.observer.take().map(Observer::finish).unwrap_or_default()
    }

    pub(super) fn keep_for_replay(&mut self, bytes: &Bytes) {
        self.replay_bytes += bytes.len();
        if self.replay_bytes > REPLAY_BYTES_MAX {
            self.replay = None;
        } else if let Some(kept) = &mut self.replay {
            kept.push(bytes.clone());
        }
    }

    /// Frames that passed and were kept, without the last where it is still held back.
    pub(super) fn sent(&self, held: bool) -> Option<std::collections::VecDeque<Bytes>> {
        let kept = self.replay.as_ref()?;
        Some(
            kept.iter().take(kept.len() - usize::from(held && !kept.is_empty())).cloned().collect(),
        )
    }

    /// The whole request body passed, or there is none.
    pub fn complete_request(&mut self) {
        self.request_complete = true;
    }

    /// The whole request body, if it passed and was small: to send again what was not processed.
    #[must_use]
    pub fn replay(&self) -> Option<Bytes> {
        let kept = self.replay.as_ref().filter(|_| self.request_complete)?;
        Some(match kept.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        })
    }
}

/// The shared state, also after a panic elsewhere: it is only counted and recorded.
pub fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whole microseconds, saturating.
pub fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
