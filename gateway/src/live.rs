//! The live streams that are open (watches, followed logs, upgraded connections), and what ends one from
//! outside: a kill, a policy that does not permit it any more, a key that its issuer withdrew.
//!
//! What may end a stream is looked at again after the stream was put into the registry, so that nothing that
//! happens while it opens is missed. The registry holds what is being carried, so the bounds on connections and
//! streams bound it too.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use recorder_user::model::{
    Decision, Ending, ExchangeId, Principal, RequestInfo, SessionId, StreamRequest, Timestamp,
};
use recorder_user::store::Recorder;
use tokio_util::sync::CancellationToken;

use crate::{
    bounds::{EXPIRY_CHECK, REVOCATION_CHECK},
    identify::{Identifier, Identity},
    policy::{PolicySet, PolicyStore, Question},
    sessions::Session,
};

/// What is kept of a live stream: enough to ask policy its question again.
pub struct LiveStream {
    /// The exchange that carries it.
    pub exchange: ExchangeId,
    /// Who asked.
    pub identity: Arc<Identity>,
    /// Whom policy lets it act as; none where it acts in its own name.
    pub acting_as: Option<Arc<Principal>>,
    /// Its session, which names the cluster and the task.
    pub session: Arc<Session>,
    /// What was asked for.
    pub info: Arc<RequestInfo>,
    /// What it runs or carries.
    pub stream: Option<Arc<StreamRequest>>,
    /// Whether the client asked to leave HTTP.
    pub upgraded: bool,
    /// Whether it is on record at all: else the store's failures are no reason to end it.
    pub recorded: bool,
    /// When its request was received.
    pub since: Timestamp,
}

impl LiveStream {
    fn permitted(&self, policies: &PolicySet) -> bool {
        let key = self.session.key();
        let question = Question {
            principal: &self.identity.principal,
            info: &self.info,
            stream: self.stream.as_deref(),
            cluster: &key.cluster,
            task: key.task.as_deref(),
            upgraded: self.upgraded,
        };
        let allows = |decision| decision == Decision::Allow;
        allows(policies.authorize(&question).decision)
            && self.acting_as.as_ref().is_none_or(|claim| {
                allows(policies.authorize_impersonation(&question, claim).decision)
            })
    }
}

struct Entry {
    stream: LiveStream,
    signal: Mutex<Signal>,
}

/// One waiter is enough: the task that carries the stream.
#[derive(Default)]
struct Signal {
    ending: Option<Ending>,
    waker: Option<Waker>,
}

impl Entry {
    /// The first reason stays. Says whether this was it.
    fn end(&self, ending: Ending) -> bool {
        let mut signal = lock(&self.signal);
        if signal.ending.is_some() {
            return false;
        }
        signal.ending = Some(ending);
        let waker = signal.waker.take();
        drop(signal);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

/// All live streams of this gateway.
pub struct LiveStreams {
    open: Mutex<HashMap<ExchangeId, Arc<Entry>>>,
    policies: Arc<PolicyStore>,
    identifier: Arc<Identifier>,
    recorder: Recorder,
}

/// A stream's place among the live ones; it leaves when this is dropped.
pub struct LiveGuard {
    entry: Arc<Entry>,
    streams: Arc<LiveStreams>,
}

impl LiveGuard {
    /// Ready with the reason once the stream must end. The task that polled last is woken; an idle poll
    /// allocates nothing.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Ending> {
        let mut signal = lock(&self.entry.signal);
        if let Some(ending) = signal.ending {
            return Poll::Ready(ending);
        }
        if !signal.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            signal.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the stream must end. To be awaited by one task at a time.
    // cancel-safe: the reason stays where it is.
    pub async fn ended(&self) -> Ending {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }
}

impl fmt::Debug for LiveGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveGuard").field(&self.entry.stream.exchange).finish()
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        lock(&self.streams.open).remove(&self.entry.stream.exchange);
    }
}

impl LiveStreams {
    /// None are open.
    #[must_use]
    pub fn new(
        policies: Arc<PolicyStore>,
        identifier: Arc<Identifier>,
        recorder: Recorder,
    ) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), policies, identifier, recorder })
    }

    /// A stream begins. Hold the guard as long as it lives, and end it when the guard says so: that may be at
    /// once, if policy or keys changed, or the session was killed, since the request was let pass.
    #[must_use]
    pub fn register(self: &Arc<Self>, stream: LiveStream) -> LiveGuard {
        let entry = Arc::new(Entry { stream, signal: Mutex::default() });
        lock(&self.open).insert(entry.stream.exchange, Arc::clone(&entry));
        if entry.stream.session.killed() {
            entry.end(Ending::Killed);
        }
        self.judge(&entry, &self.policies.current());
        self.check_key(&entry);
        LiveGuard { entry, streams: Arc::clone(self) }
    }

    /// Ends all streams of a session; gives their number.
    pub fn end_session(&self, session: SessionId, ending: Ending) -> usize {
        let of_session = |entry: &&Arc<Entry>| entry.stream.session.id() == session;
        self.all().iter().filter(of_session).filter(|entry| entry.end(ending)).count()
    }

    /// Shows every stream that is open, in no order.
    pub fn each(&self, mut show: impl FnMut(&LiveStream)) {
        self.all().iter().for_each(|entry| show(&entry.stream));
    }

    /// Judges all streams again when the policies change, and ends those whose token's key was withdrawn and,
    /// when the store has failed, all that are on record: also those that are silent. Until `stop`. A set that looks at the clock is asked again every [`EXPIRY_CHECK`].
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.policies.subscribe();
        let mut generations = self.identifier.generations();
        let mut judged = tokio::time::Instant::now();
        let mut epoch = self.recorder.epoch();
        loop {
            let changed = tokio::select! {
                // cancel-safe: all three only wait.
                () = stop.cancelled() => return,
                changed = changes.changed() => changed.is_ok(),
                () = tokio::time::sleep(REVOCATION_CHECK) => false,
            };
            let policies = self.policies.current();
            if changed || (policies.tells_time() && judged.elapsed() >= EXPIRY_CHECK) {
                judged = tokio::time::Instant::now();
                self.visit(|entry| self.judge(entry, &policies)).await;
            }
            let failures = self.recorder.epoch();
            if failures != epoch {
                epoch = failures;
                self.visit(Self::unrecordable).await;
            }
            let current = self.identifier.generations();
            if current != generations {
                generations = current;
                self.visit(|entry| self.check_key(entry)).await;
            }
        }
    }

    /// Visits all streams, and lets others run in between.
    async fn visit(&self, visit: impl Fn(&Entry)) {
        for entries in self.all().chunks(VISITED_AT_ONCE) {
            entries.iter().for_each(|entry| visit(entry));
            tokio::task::yield_now().await;
        }
    }

    fn judge(&self, entry: &Entry, policies: &PolicySet) {
        if !entry.stream.permitted(policies) && entry.end(Ending::GrantEnded) {
            let LiveStream { exchange, session, .. } = &entry.stream;
            let (session, policy_set) = (session.id(), policies.hash());
            tracing::info!(%exchange, %session, policy_set, "live stream is not permitted any more");
        }
    }

    fn unrecordable(entry: &Entry) {
        if entry.stream.recorded && entry.end(Ending::RecorderFailed) {
            let LiveStream { exchange, session, .. } = &entry.stream;
            tracing::error!(%exchange, session = %session.id(), "live stream cut: the store failed");
        }
    }

    fn check_key(&self, entry: &Entry) {
        if !self.identifier.vouches(&entry.stream.identity) && entry.end(Ending::TokenRevoked) {
            let LiveStream { exchange, session, .. } = &entry.stream;
            tracing::info!(%exchange, session = %session.id(), "live stream's token is revoked");
        }
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.open).values().cloned().collect()
    }
}

/// A policy question is some microseconds, up to milliseconds for a very long command.
const VISITED_AT_ONCE: usize = 32;

/// Plain values behind a lock stay usable after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
