//! The sessions that are open: which exchange belongs to which, and when one ends.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use recorder_user::{
    model::{
        ExchangeSettled, IncompleteReason, Principal, Record, SessionAccount, SessionChanged,
        SessionId, SessionKey, SessionKind, SessionOpened, SessionState, SessionTotals, Timestamp,
    },
    store::{AppendError, Recorder, SessionView},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    bounds::{SESSIONS_MAX, SESSIONS_PER_PRINCIPAL_MAX, UPGRADES_PER_PRINCIPAL_MAX},
    refuse::Refused,
};

/// One open session.
pub struct Session {
    id: SessionId,
    key: SessionKey,
    last: AtomicI64,
    live: AtomicU64,
    principal: Principal,
    opened: Timestamp,
    incomplete: Mutex<Option<IncompleteReason>>,
    killed: AtomicBool,
    tally: Tally,
    /// The store's failures when the session was last put on record; none before. What was only queued
    /// may be lost with a failure, so after one it is put on record again.
    announced: Mutex<Option<u64>>,
    /// Places for upgraded connections, shared by all sessions of the principal.
    streams: Arc<Semaphore>,
}

impl Session {
    /// The session's id.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Places for upgraded connections, which it shares with the other sessions of its principal.
    #[must_use]
    pub const fn streams(&self) -> &Arc<Semaphore> {
        &self.streams
    }

    /// What groups its exchanges.
    #[must_use]
    pub const fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Who acts in it.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// When its first exchange was received.
    #[must_use]
    pub const fn opened(&self) -> Timestamp {
        self.opened
    }

    /// When it was last used.
    #[must_use]
    pub fn last_used(&self) -> Timestamp {
        Timestamp::from_micros(self.last.load(Ordering::Relaxed))
    }

    /// Why it is incomplete, if it is.
    #[must_use]
    pub fn incomplete(&self) -> Option<IncompleteReason> {
        *lock(&self.incomplete)
    }

    /// Takes an outcome into its account.
    pub fn add(&self, settled: &ExchangeSettled) {
        self.tally.add(SessionTotals::of(settled));
    }

    /// What its exchanges add up to now.
    #[must_use]
    pub fn account(&self) -> SessionAccount {
        self.tally.sums().account()
    }

    /// Whether somebody killed it. Exchanges that had joined it before may still be under way.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }
}

/// Sums that exchanges add to at the same time.
#[derive(Default)]
struct Tally([AtomicU64; SessionTotals::LENGTH]);

impl Tally {
    fn from(sums: SessionTotals) -> Self {
        Self(sums.to_array().map(AtomicU64::new))
    }

    fn add(&self, more: SessionTotals) {
        for (sum, more) in self.0.iter().zip(more.to_array()) {
            if more > 0 {
                sum.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    fn sums(&self) -> SessionTotals {
        SessionTotals::from_array(self.0.each_ref().map(|sum| sum.load(Ordering::Relaxed)))
    }
}

/// A use of a session by one exchange: while it is held the session is not idle.
pub struct SessionUse(Arc<Session>);

impl SessionUse {
    /// The session, without keeping it from being idle.
    #[must_use]
    pub const fn session(&self) -> &Arc<Session> {
        &self.0
    }
}

impl std::ops::Deref for SessionUse {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl Drop for SessionUse {
    fn drop(&mut self) {
        self.0.last.fetch_max(Timestamp::now().as_micros(), Ordering::Relaxed);
        self.0.live.fetch_sub(1, Ordering::Release);
    }
}

/// Somebody wants a session to end.
#[derive(Clone, Debug)]
pub struct KillOrder {
    /// Who, as the record names them.
    pub by: String,
    /// Why, in their own words.
    pub why: Option<String>,
}

/// Too many sessions are open.
pub struct TooManySessions;

impl From<TooManySessions> for Refused {
    fn from(_: TooManySessions) -> Self {
        Self::new(
            "attribute",
            429,
            "TooManyRequests",
            "too many sessions are open at this gateway: try again later",
        )
    }
}

/// All open sessions of this gateway.
pub struct Sessions {
    open: Mutex<HashMap<SessionKey, Arc<Session>>>,
    idle: Duration,
    recorder: Recorder,
}

impl Sessions {
    /// Goes on with the sessions that an orderly stop left open.
    #[must_use]
    pub fn resume(views: Vec<SessionView>, idle: Duration, recorder: Recorder) -> Self {
        let mut places = HashMap::new();
        // What went round the gateway is not resumed: who watches it begins anew.
        let views = views.into_iter().filter(|view| view.kind == SessionKind::Api);
        let open = views.map(|view| {
            let principal = (view.principal.issuer.clone(), view.principal.subject.clone());
            let streams = places.entry(principal).or_insert_with(stream_places);
            let session = Session {
                id: view.session,
                key: view.key(),
                last: AtomicI64::new(view.last_activity.as_micros()),
                live: AtomicU64::new(0),
                principal: Principal {
                    issuer: view.principal.issuer.clone(),
                    subject: view.principal.subject.clone(),
                    username: view.principal.username.clone(),
                    groups: view.principal.groups.clone(),
                    ..Principal::default()
                },
                opened: view.started,
                incomplete: Mutex::new(view.reason),
                killed: AtomicBool::new(false),
                tally: Tally::from(view.totals),
                announced: Mutex::new(Some(recorder.epoch())),
                streams: Arc::clone(streams),
            };
            (session.key.clone(), Arc::new(session))
        });
        Self { open: Mutex::new(open.collect()), idle, recorder }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SessionKey, Arc<Session>>> {
        lock(&self.open)
    }

    /// How many are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open().len()
    }

    /// The session of `principal` on `cluster` for `task`.
    pub fn join(
        &self,
        principal: &Principal,
        cluster: &str,
        task: Option<&str>,
        time: Timestamp,
    ) -> Result<SessionUse, TooManySessions> {
        let key = SessionKey {
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            cluster: cluster.to_owned(),
            task: task.map(str::to_owned),
        };
        let mut open = self.open();
        if let Some(session) = open.get(&key) {
            if !self.is_idle(session, time) {
                session.live.fetch_add(1, Ordering::Acquire);
                session.last.fetch_max(time.as_micros(), Ordering::Relaxed);
                return Ok(SessionUse(Arc::clone(session)));
            }
            self.end(session);
            open.remove(&key);
        }
        let of_principal =
            |other: &&SessionKey| other.subject == key.subject && other.issuer == key.issuer;
        if open.len() >= SESSIONS_MAX
            || open.keys().filter(of_principal).count() >= SESSIONS_PER_PRINCIPAL_MAX
        {
            return Err(TooManySessions);
        }
        let other = open.iter().find(|(other, _)| of_principal(other));
        let streams = other.map_or_else(stream_places, |(_, session)| Arc::clone(&session.streams));
        let session = Arc::new(Session {
            id: SessionId::new(),
            key: key.clone(),
            last: AtomicI64::new(time.as_micros()),
            live: AtomicU64::new(1),
            principal: principal.clone(),
            opened: time,
            incomplete: Mutex::new(None),
            killed: AtomicBool::new(false),
            tally: Tally::default(),
            announced: Mutex::new(None),
            streams,
        });
        open.insert(key, Arc::clone(&session));
        tracing::info!(session = %session.id, username = principal.username, cluster, task, "session opened");
        Ok(SessionUse(session))
    }

    /// Puts the session on record, unless it is. To be called before anything of it is recorded.
    ///
    /// # Errors
    /// When the store does not take it: then nothing of the session may be forwarded.
    pub fn announce(&self, session: &Session) -> Result<(), AppendError> {
        // Queued under the lock: no exchange of the session can be queued before it.
        let mut announced = lock(&session.announced);
        let epoch = self.recorder.epoch();
        if *announced == Some(epoch) {
            return Ok(());
        }
        self.recorder.try_append(Record::SessionOpened(SessionOpened {
            session: session.id,
            time: session.opened,
            key: session.key.clone(),
            principal: session.principal.clone(),
            kind: SessionKind::Api,
        }))?;
        if let Some(reason) = *lock(&session.incomplete) {
            let changed = changed(session, SessionState::Incomplete(reason), None);
            self.recorder.try_append(Record::SessionChanged(changed))?;
        }
        *announced = Some(epoch);
        Ok(())
    }

    /// A live stream of the session was cut by anything but its two ends. The first reason stays.
    pub fn cut(&self, session: &Session, reason: IncompleteReason) {
        let mut incomplete = lock(&session.incomplete);
        if incomplete.is_some() {
            return;
        }
        *incomplete = Some(reason);
        drop(incomplete);
        self.change(session, SessionState::Incomplete(reason), None);
        tracing::warn!(session = %session.id, reason = reason.as_str(), "session incomplete");
    }

    /// The open session with this id.
    #[must_use]
    pub fn find(&self, id: SessionId) -> Option<Arc<Session>> {
        self.open().values().find(|session| session.id == id).cloned()
    }

    /// All that are open, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.open().values().cloned().collect()
    }

    /// Ends a session because somebody asked for it; its live streams are the caller's to end. The next request
    /// of the same principal opens another session. None when no such session is open.
    pub fn kill(&self, id: SessionId, order: &KillOrder) -> Option<Arc<Session>> {
        let session = {
            let mut open = self.open();
            let key = open.iter().find(|(_, session)| session.id == id)?.0.clone();
            open.remove(&key)?
        };
        session.killed.store(true, Ordering::SeqCst);
        lock(&session.incomplete).get_or_insert(IncompleteReason::Killed);
        let time = Timestamp::now();
        self.record(
            &session,
            SessionChanged {
                session: id,
                time,
                state: SessionState::Incomplete(IncompleteReason::Killed),
                ended: Some(time),
                by: Some(order.by.clone()),
                why: order.why.clone(),
                account: Some(session.account()),
            },
        );
        tracing::warn!(session = %id, by = order.by, why = order.why, "session killed");
        Some(session)
    }

    /// Ends sessions without activity until `stop`.
    pub async fn sweep(&self, stop: CancellationToken) {
        let period = (self.idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(5));
        let mut tick = tokio::time::interval(period);
        loop {
            tokio::select! {
                // cancel-safe: both only wait.
                () = stop.cancelled() => return,
                _ = tick.tick() => self.sweep_once(Timestamp::now()),
            }
        }
    }

    fn sweep_once(&self, now: Timestamp) {
        self.open().retain(|_, session| {
            let idle = self.is_idle(session, now);
            if idle {
                self.end(session);
            }
            !idle
        });
    }

    fn is_idle(&self, session: &Session, now: Timestamp) -> bool {
        let last = Timestamp::from_micros(session.last.load(Ordering::Relaxed));
        let idle_us = i64::try_from(self.idle.as_micros()).unwrap_or(i64::MAX);
        session.live.load(Ordering::Acquire) == 0 && now.micros_since(last) > idle_us
    }

    fn end(&self, session: &Session) {
        let last = Timestamp::from_micros(session.last.load(Ordering::Relaxed));
        self.change(session, SessionState::Ended, Some(last));
        tracing::info!(session = %session.id, "session ended");
    }

    fn change(&self, session: &Session, state: SessionState, ended: Option<Timestamp>) {
        self.record(session, changed(session, state, ended));
    }

    fn record(&self, session: &Session, changed: SessionChanged) {
        if let Err(error) = self.recorder.try_append(Record::SessionChanged(changed)) {
            // At the next start the session is found open and sealed as lost: nothing is hidden.
            tracing::error!(session = %session.id, %error, "session change not recorded");
        }
    }
}

fn changed(session: &Session, state: SessionState, ended: Option<Timestamp>) -> SessionChanged {
    let time = Timestamp::now();
    let account = Some(session.account());
    SessionChanged { session: session.id, time, state, ended, by: None, why: None, account }
}

fn stream_places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(UPGRADES_PER_PRINCIPAL_MAX))
}

/// Plain values behind a lock stay usable after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
