//! Whether the witness still sees: a heartbeat through the kernel's own path, the links of the programs, and
//! the counts of what was lost, looked at four times a second.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use recorder_ebpf::count;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    clock::monotonic_ns,
    heart::Heart,
    notices::Correlator,
    probe::{Probe, is_counted_by},
    table::Table,
};
use crate::model::Timestamp;

/// How often the witness is looked at.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// How long a beat's notice may take through the ring, besides the drain thread's own interval.
const NOTICE_DEADLINE: Duration = Duration::from_millis(500);

/// Events that wait for their consumer; what comes beyond is dropped. Lasting troubles are in
/// [`Health::troubles`] all the same.
const EVENTS_MAX: usize = 256;

/// What is wrong with the witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Trouble {
    /// The probe's process is gone, or silent: what passes meanwhile is not witnessed. Lasts.
    ProbeLost,
    /// Somebody cut a program off its hook. Lasts.
    HookLost {
        /// The hook.
        hook: String,
    },
    /// What went through the heartbeat's connection was not counted. Lasts.
    HeartbeatMissed,
    /// The kernel left a program out, since it was interrupted in itself. An instant.
    RunsMissed {
        /// The program's hook.
        hook: String,
        /// How many runs since the last look.
        runs: u64,
    },
    /// Notices do not come through: the ring is not drained. Totals stay exact. Lasts.
    NoticesStopped,
    /// The full ring did not take notices; totals stay exact. An instant.
    NoticesLost {
        /// How many since the last look.
        notices: u64,
    },
    /// Connection notices were lost, in the full ring or since nobody took them: somebody may have gone round
    /// the gateway unseen. An instant.
    ConnectionsLost {
        /// How many since the last look.
        notices: u64,
    },
    /// Sockets that should have been witnessed could not be: no slot, no storage, or no callbacks. An instant.
    SocketsUnwitnessed {
        /// How many since the last look.
        sockets: u64,
    },
}

impl Trouble {
    /// Whether totals of witnessed sockets cannot be relied on while it lasts.
    pub(super) fn spoils_totals(&self) -> bool {
        match self {
            Self::HookLost { hook } | Self::RunsMissed { hook, .. } => is_counted_by(hook),
            Self::ProbeLost | Self::HeartbeatMissed => true,
            _ => false,
        }
    }

    /// Whether it goes on until it is over.
    pub(super) const fn lasts(&self) -> bool {
        matches!(
            self,
            Self::ProbeLost | Self::HookLost { .. } | Self::HeartbeatMissed | Self::NoticesStopped
        )
    }
}

/// A change of the witness's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthEvent {
    /// When it was noticed.
    pub time: Timestamp,
    /// What.
    pub trouble: Trouble,
    /// Whether a lasting trouble is over; always false for an instant's.
    pub over: bool,
}

/// The witness's health now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Lasting troubles.
    pub troubles: Vec<Trouble>,
    /// How many troubles there were so far that spoil totals, over or not: what is equal before and after an
    /// exchange was not touched by any.
    pub spoiled: u64,
}

impl Health {
    /// Whether totals can be relied on now.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        !self.troubles.iter().any(Trouble::spoils_totals)
    }
}

/// The state of health, shared with the thread that looks.
pub(super) struct State {
    health: Mutex<Health>,
    told: mpsc::Sender<HealthEvent>,
    hears: Mutex<Option<mpsc::Receiver<HealthEvent>>>,
}

impl State {
    pub(super) fn new() -> Self {
        let (told, hears) = mpsc::channel(EVENTS_MAX);
        Self { health: Mutex::default(), told, hears: Mutex::new(Some(hears)) }
    }

    pub(super) fn health(&self) -> Health {
        self.locked().clone()
    }

    pub(super) fn take_events(&self) -> Option<mpsc::Receiver<HealthEvent>> {
        self.hears.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn locked(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in all lasting troubles that there are now.
    pub(super) fn lasting(&self, now: Vec<Trouble>) {
        let mut health = self.locked();
        let began: Vec<_> = now.iter().filter(|t| !health.troubles.contains(t)).cloned().collect();
        let ended: Vec<_> = health.troubles.iter().filter(|t| !now.contains(t)).cloned().collect();
        health.spoiled += began.iter().filter(|t| t.spoils_totals()).count() as u64;
        health.troubles = now;
        drop(health);
        began.into_iter().for_each(|trouble| self.tell(trouble, false));
        ended.into_iter().for_each(|trouble| self.tell(trouble, true));
    }

    /// Takes in what another process's programs told: of what lasts it tells by itself.
    pub(super) fn hear(&self, event: HealthEvent) {
        if !event.trouble.lasts() {
            self.instant(event.trouble);
        }
    }

    /// Takes in a trouble that does not last.
    pub(super) fn instant(&self, trouble: Trouble) {
        self.locked().spoiled += u64::from(trouble.spoils_totals());
        self.tell(trouble, false);
    }

    pub(super) fn tell(&self, trouble: Trouble, over: bool) {
        if over {
            tracing::info!(?trouble, "the witness recovered");
        } else if trouble.lasts() {
            tracing::error!(?trouble, "the witness is impaired");
        } else {
            tracing::warn!(?trouble, "the witness lost something");
        }
        let event = HealthEvent { time: Timestamp::now(), trouble, over };
        // The channel is full, or nobody listens: what lasts is in the health as well.
        drop(self.told.try_send(event));
    }
}

/// What is looked at.
pub(super) struct Watched {
    pub(super) probe: Arc<Probe>,
    pub(super) table: Arc<Table>,
    pub(super) correlator: Arc<Correlator>,
    /// When the drain thread last looked at the ring.
    pub(super) pulse_ns: Arc<AtomicU64>,
    pub(super) drain_interval: Duration,
}

impl Watched {
    /// How long a notice may take through the ring.
    fn deadline_ns(&self) -> u64 {
        let deadline = NOTICE_DEADLINE.saturating_add(self.drain_interval);
        u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The thread that looks. Dropping it ends and joins it.
pub(super) struct Monitor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts to look. With `beats` a heartbeat goes through a connection of its own, which the programs that
    /// count bytes must see.
    ///
    /// # Errors
    /// When there is no thread, or no connection for the heartbeat.
    pub(super) fn start(watched: Watched, state: Arc<State>, beats: bool) -> io::Result<Self> {
        let heart = if beats { Some(Heart::new(&watched.probe)?) } else { None };
        let stop = Arc::new(AtomicBool::new(false));
        let misses = watched.probe.misses().map(|(_, runs)| runs).collect();
        let mut round = Round { losses: losses(&watched), misses, watched, state, heart };
        // The first look is now: the heartbeat's sockets get their slots before the gateway's.
        round.look();
        let thread = thread::Builder::new().name("witness-health".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Acquire) {
                    thread::park_timeout(INTERVAL);
                    round.look();
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that looks after the witness panicked");
            }
        }
    }
}

/// One look after the other.
struct Round {
    watched: Watched,
    state: Arc<State>,
    heart: Option<Heart>,
    losses: Losses,
    /// How often each program was left out, at the last look.
    misses: Vec<u64>,
}

impl Round {
    fn look(&mut self) {
        let lost = self.watched.probe.lost_hooks();
        let mut troubles: Vec<Trouble> =
            lost.map(|hook| Trouble::HookLost { hook: hook.to_owned() }).collect();
        let mut notices_stopped = self.drain_stands_still();
        if let Some(heart) = &mut self.heart {
            if !heart.beat(&self.watched.table) {
                troubles.push(Trouble::HeartbeatMissed);
            }
            let seen = self.watched.correlator.beats();
            notices_stopped |= heart.waits_too_long(seen, self.watched.deadline_ns());
        }
        if notices_stopped {
            troubles.push(Trouble::NoticesStopped);
        }
        self.state.lasting(troubles);
        let losses = losses(&self.watched);
        let before = std::mem::replace(&mut self.losses, losses);
        for trouble in losses.since(before) {
            self.state.instant(trouble);
        }
        for trouble in self.missed_runs() {
            self.state.instant(trouble);
        }
    }

    fn missed_runs(&mut self) -> Vec<Trouble> {
        let mut troubles = vec![];
        for ((hook, now), before) in self.watched.probe.misses().zip(&mut self.misses) {
            let runs = now.saturating_sub(*before);
            if runs > 0 {
                troubles.push(Trouble::RunsMissed { hook: hook.to_owned(), runs });
            }
            *before = now;
        }
        troubles
    }

    fn drain_stands_still(&self) -> bool {
        let looked = self.watched.pulse_ns.load(Ordering::Relaxed);
        looked != 0 && monotonic_ns().saturating_sub(looked) > self.watched.deadline_ns()
    }
}

/// The counts of what was lost.
#[derive(Clone, Copy)]
struct Losses {
    notices: u64,
    connections: u64,
    sockets: u64,
}

fn losses(watched: &Watched) -> Losses {
    let count = |index| watched.probe.count(index);
    Losses {
        notices: count(count::RING_FULL),
        connections: count(count::CONNECTIONS_LOST) + watched.correlator.unheard(),
        sockets: count(count::SLOTS_FULL)
            + count(count::STORAGE_REFUSED)
            + count(count::CALLBACKS_REFUSED),
    }
}

impl Losses {
    fn since(self, before: Self) -> impl Iterator<Item = Trouble> {
        let notices = self.notices.saturating_sub(before.notices);
        let connections = self.connections.saturating_sub(before.connections);
        let sockets = self.sockets.saturating_sub(before.sockets);
        [
            (notices > 0).then_some(Trouble::NoticesLost { notices }),
            (connections > 0).then_some(Trouble::ConnectionsLost { notices: connections }),
            (sockets > 0).then_some(Trouble::SocketsUnwitnessed { sockets }),
        ]
        .into_iter()
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_when_it_begins_and_when_it_is_over() {
        let state = State::new();
        let mut events = state.take_events().expect("the first to ask");
        assert!(state.take_events().is_none(), "there is one consumer");
        let lost = Trouble::HookLost { hook: "sock_send_length".to_owned() };
        state.lasting(vec![lost.clone()]);
        state.lasting(vec![lost.clone()]);
        assert!(!state.health().is_fine());
        state.lasting(vec![Trouble::NoticesStopped]);
        assert!(state.health().is_fine(), "totals do not depend on notices");
        let blind = Trouble::HookLost { hook: "connect4".to_owned() };
        assert!(!blind.spoils_totals(), "nor on who connects");
        assert_eq!(state.health().spoiled, 1);
        let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok())
            .map(|event| (event.trouble, event.over))
            .collect();
        assert_eq!(told, [(lost.clone(), false), (Trouble::NoticesStopped, false), (lost, true)]);
    }

    #[test]
    fn only_new_losses_are_told() {
        let before = Losses { notices: 5, connections: 0, sockets: 2 };
        let now = Losses { notices: 9, connections: 1, sockets: 2 };
        let told: Vec<_> = now.since(before).collect();
        let expected =
            [Trouble::NoticesLost { notices: 4 }, Trouble::ConnectionsLost { notices: 1 }];
        assert_eq!(told, expected);
        assert_eq!(now.since(now).count(), 0);
    }
}
