//! What became of the witness since it started: one place where the loader and the drain thread tell it, and
//! from which accounts and the record learn it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::model::WitnessChanged;

/// Changes kept while nobody listens; of more the first are kept, and the last as the present state.
const PENDING_MAX: usize = 64;

/// Called with each change, on the thread that noticed it. It must not wait.
pub type OnChange = Box<dyn Fn(&WitnessChanged) + Send + Sync>;

/// The health of a witness. Reading it costs one atomic load while all is well.
#[derive(Default)]
pub struct Health {
    /// Changes in the upper half; in the lower how often it went blind or saw again, odd while it is blind.
    epoch: AtomicU64,
    state: Mutex<State>,
}

const CHANGE: u64 = 1 << 32;
const TURN: u64 = 1;

#[derive(Default)]
struct State {
    blind: Option<Arc<str>>,
    pending: VecDeque<WitnessChanged>,
    listener: Option<OnChange>,
}

/// The witness's health at some moment: two of them tell what happened between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthMark(u64);

impl HealthMark {
    const fn turns(self) -> u64 {
        self.0 % CHANGE
    }

    /// Whether the witness was blind at that moment.
    #[must_use]
    pub const fn is_blind(self) -> bool {
        self.turns() % 2 == 1
    }
}

/// What happened between a mark and now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// Anything happened, or the witness was blind all the time.
    pub disturbed: bool,
    /// Why it did not see all of that time, if it did not.
    pub blind: Option<Arc<str>>,
}

impl Health {
    /// The health now.
    #[must_use]
    pub fn mark(&self) -> HealthMark {
        HealthMark(self.epoch.load(Ordering::Acquire))
    }

    /// What happened since `mark`.
    #[must_use]
    pub fn since(&self, mark: HealthMark) -> Disturbance {
        let now = self.mark();
        if now == mark && !now.is_blind() {
            return Disturbance::default();
        }
        // A witness that sees again was blind in between, whatever it is now.
        let was_blind = mark.is_blind() || now.turns() != mark.turns();
        let blind = was_blind.then(|| {
            let why = self.state().blind.clone();
            why.unwrap_or_else(|| Arc::from("the witness was blind meanwhile"))
        });
        Disturbance { disturbed: true, blind }
    }

    /// Notes a change, and tells the listener.
    pub fn report(&self, changed: WitnessChanged) {
        let mut state = self.state();
        if changed.blind {
            let why = format!("the witness was blind ({}): {}", changed.event.as_str(), changed.detail);
            state.blind = Some(why.into());
        }
        let turned = self.mark().is_blind() != changed.blind;
        self.epoch.fetch_add(CHANGE + if turned { TURN } else { 0 }, Ordering::Release);
        match &state.listener {
            Some(listener) => listener(&changed),
            None if state.pending.len() < PENDING_MAX => state.pending.push_back(changed),
            None => state.pending[PENDING_MAX - 1] = changed,
        }
    }

    /// From now on `listener` is told, beginning with what happened before.
    pub fn listen(&self, listener: OnChange) {
        let mut state = self.state();
        state.pending.drain(..).for_each(|changed| listener(&changed));
        state.listener = Some(listener);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tier, Timestamp, WitnessEvent};

    fn changed(event: WitnessEvent, blind: bool) -> WitnessChanged {
        let (time, detail) = (Timestamp::from_micros(1), "why".to_owned());
        WitnessChanged { time, event, tier: Tier::T1, since: None, blind, lost: 0, detail }
    }

    #[test]
    fn what_happened_between_two_moments_is_told_and_no_more() {
        let health = Health::default();
        let before = health.mark();
        assert_eq!(health.since(before), Disturbance::default());
        health.report(changed(WitnessEvent::Overflow, false));
        let told = health.since(before);
        assert_eq!((told.disturbed, told.blind), (true, None), "totals are exact all the same");
        assert_eq!(health.since(health.mark()), Disturbance::default(), "it began after that");

        health.report(changed(WitnessEvent::ProbeLost, true));
        let why = "the witness was blind (probe_lost): why";
        assert_eq!(health.since(before).blind.as_deref(), Some(why));
        let while_blind = health.mark();
        assert_eq!(health.since(while_blind).blind.as_deref(), Some(why), "still blind");
        health.report(changed(WitnessEvent::Recovered, false));
        assert_eq!(health.since(while_blind).blind.as_deref(), Some(why), "blind at its beginning");
        assert_eq!(health.since(before).blind.as_deref(), Some(why), "blind in the middle");
        assert_eq!(health.since(health.mark()), Disturbance::default());
    }

    #[test]
    fn a_listener_learns_what_happened_before_it_came() {
        let health = Health::default();
        for lost in 0..PENDING_MAX as u64 + 5 {
            health.report(WitnessChanged { lost, ..changed(WitnessEvent::Overflow, false) });
        }
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        health.listen(Box::new(move |changed| ears.lock().expect("sound").push(changed.lost)));
        let last = PENDING_MAX as u64 + 4;
        assert_eq!(heard.lock().expect("sound").len(), PENDING_MAX);
        assert_eq!(heard.lock().expect("sound").last(), Some(&last));
        health.report(WitnessChanged { lost: 99, ..changed(WitnessEvent::Overflow, false) });
        assert_eq!(heard.lock().expect("sound").last(), Some(&99));
    }
}
