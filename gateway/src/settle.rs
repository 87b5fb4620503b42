//! The end of an exchange: outcome, effect, account and metrics, exactly once on every way out.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use recorder_user::{
    model::{
        Account, BodyFacts, Effect, Ending, ExchangeId, ExchangeSettled, IncompleteReason, Record,
        RequestInfo, ResponseHead, ResponseStarted, StreamFacts, Timestamp, Timing,
    },
    store::{Ack, Need},
    witness::{self, Course, SightMark, View},
};

use crate::{
    attribute,
    bounds::OBJECTS_MAX,
    gateway::Gateway,
    passage::Passage,
    sessions::SessionUse,
    tap::{RequestCut, Shared, Stopwatch, lock, micros},
    upstream::Lease,
};

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It did not leave the gateway.
    Kept,
    /// Its bytes went upstream; there is no response.
    Forwarded,
    /// The API server's response head arrived.
    Answered,
}

/// One exchange, from the record of its intent to its outcome. Dropping it settles it as left by the
/// client, so that no way out is without a record.
pub struct Exchange {
    gateway: Arc<Gateway>,
    id: ExchangeId,
    session: SessionUse,
    info: Arc<RequestInfo>,
    client: Passage,
    upstream: Option<Passage>,
    /// How well the witness saw when it began.
    sight: SightMark,
    /// The place on a connection that others use too.
    lease: Option<Lease>,
    shared: Arc<Mutex<Shared>>,
    received: Instant,
    forwarded: Option<Instant>,
    /// The same, by the kernel's clock.
    forwarded_ns: Option<u64>,
    /// How the response's body came and went.
    pub(crate) pace: Stopwatch,
    timing: Timing,
    status: u16,
    audit_id: Option<String>,
    stream: Option<StreamFacts>,
    upgraded: bool,
    live: bool,
    recorded: bool,
    /// Records that wait for company: one wake-up of the writer serves them all.
    pending: Vec<Record>,
    progress: Progress,
    settled: bool,
    /// The store's failures before the intent was recorded.
    epoch: u64,
}

/// What an exchange starts from.
pub struct Start {
    /// The gateway that carries it.
    pub gateway: Arc<Gateway>,
    /// Its id.
    pub id: ExchangeId,
    /// Its session.
    pub session: SessionUse,
    /// What is asked.
    pub info: Arc<RequestInfo>,
    /// Its use of the client's connection.
    pub client: Passage,
    /// How well the witness saw when it began.
    pub sight: SightMark,
    /// What the taps share.
    pub shared: Arc<Mutex<Shared>>,
    /// When its head was received.
    pub received: Instant,
    /// Timings of the phases before.
    pub timing: Timing,
    /// Whether it is a watch, a followed log or an upgraded connection.
    pub live: bool,
    /// Whether it asks for an upgrade.
    pub upgraded: bool,
    /// The store's failures before the intent was recorded.
    pub epoch: u64,
    /// False for a read that policy lets pass although the store does not work.
    pub recorded: bool,
}

impl Exchange {
    /// The intent is on record.
    #[must_use]
    pub fn start(start: Start) -> Box<Self> {
        start.gateway.metrics.stream_opened(start.live);
        Box::new(Self {
            gateway: start.gateway,
            id: start.id,
            session: start.session,
            info: start.info,
            client: start.client,
            upstream: None,
            sight: start.sight,
            lease: None,
            shared: start.shared,
            received: start.received,
            forwarded: None,
            forwarded_ns: None,
            pace: Stopwatch::default(),
            timing: start.timing,
            status: 0,
            audit_id: None,
            stream: None,
            upgraded: start.upgraded,
            live: start.live,
            recorded: start.recorded,
            pending: Vec::new(),
            progress: Progress::Kept,
            settled: false,
            epoch: start.epoch,
        })
    }

    /// What the taps work on.
    #[must_use]
    pub fn shared(&self) -> &Mutex<Shared> {
        &self.shared
    }

    /// Whether records of it are kept.
    #[must_use]
    pub const fn recorded(&self) -> bool {
        self.recorded
    }

    /// Whether it is a watch, a followed log or an upgraded connection.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Records that were not queued yet.
    #[must_use]
    pub fn take_pending(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.pending)
    }

    /// Records that go with the outcome.
    pub fn put_pending(&mut self, records: Vec<Record>) {
        self.pending = records;
    }

    /// Its session.
    #[must_use]
    pub const fn session(&self) -> &SessionUse {
        &self.session
    }

    /// Bytes may be on their way upstream from now on.
    pub fn forwarding(&mut self) {
        self.forwarded = Some(Instant::now());
        self.forwarded_ns = Some(witness::monotonic_ns());
        self.progress = Progress::Forwarded;
    }

    /// The gateway answers itself after all.
    pub const fn answered_by_gateway(&mut self, status: u16, sent: bool) {
        self.status = status;
        if !sent {
            self.progress = Progress::Kept;
        }
    }

    /// The response head arrived; `lease` is the exchange's place on a connection that is shared.
    pub fn answered(&mut self, mut passage: Passage, lease: Option<Lease>, head: ResponseHead) {
        passage.answered();
        let session = Some(self.session.id());
        passage.connection().carries(session, self.id, &passage);
        self.upstream = Some(passage);
        self.lease = lease;
        self.progress = Progress::Answered;
        self.status = head.status;
        // A 101 is written by the API server's proxy code, which leaves its own headers out; the id is the
        // one that was sent.
        let sent = (head.status == 101).then(|| self.id.to_string());
        self.audit_id = head.header("audit-id").map(str::to_owned).or(sent);
        lock(&self.shared).observe(|observer| observer.response_started(&head));
        let at_us = micros(self.received.elapsed());
        let started = ResponseStarted { exchange: self.id, at_us, head };
        self.pending.push(Record::ResponseStarted(started));
    }

    /// What was seen of an upgraded connection.
    pub fn carried(&mut self, facts: StreamFacts) {
        self.stream = Some(facts);
    }

    /// Queues the outcome, and tells when it is written.
    pub fn settle(mut self: Box<Self>, ending: Ending) -> Ack {
        self.end(ending)
    }

    fn end(&mut self, ending: Ending) -> Ack {
        self.settled = true;
        // What was only queued may be lost with a failure of the store, also if it works again.
        let lost = self.recorded && self.gateway.recorder.epoch() != self.epoch;
        let ending = if lost { Ending::RecorderFailed } else { ending };
        let mut records = self.take_pending();
        let settled = self.outcome(ending, &mut records);
        self.account(&settled);
        self.cut_session(ending);
        if !self.recorded {
            self.gateway.unrecorded.passed(settled.time);
            return Ack::done();
        }
        let outcome = Record::ExchangeSettled(Box::new(settled));
        let stream = self.upgraded || self.is_live();
        let again = (stream && ending == Ending::RecorderFailed).then(|| outcome.clone());
        records.push(outcome);
        let ack = self.gateway.recorder.enqueue(records, Need::Written);
        match again {
            Some(outcome) => self.insist(ack, outcome),
            None => ack,
        }
    }

    /// An end record follows every stream, also one that the store cut.
    fn insist(&self, ack: Ack, outcome: Record) -> Ack {
        let late = Arc::clone(&self.gateway.late);
        self.gateway.tasks.spawn(async move {
            if ack.await.is_err() {
                late.keep(outcome);
            }
        });
        Ack::done()
    }

    fn outcome(&mut self, ending: Ending, records: &mut Vec<Record>) -> ExchangeSettled {
        let finished = ending == Ending::Finished;
        let mut shared = lock(&self.shared);
        // A body that ended is finished already; what a stream's client sent ends with the stream.
        let request = shared.request.finish(self.upgraded && finished, records);
        let response = match &mut shared.response {
            Some(recording) => recording.finish(finished, records),
            None => BodyFacts { ended: finished, ..BodyFacts::default() },
        };
        let open_late = std::mem::take(&mut shared.open_us);
        let observed = shared.finish_observer();
        let (request_pace, handed_ns) = (shared.request_pace, shared.handed_ns);
        drop(shared);
        self.timing.total = micros(self.received.elapsed());
        self.timing.open += open_late;
        if let Some(forwarded) = self.forwarded {
            // The wait for the body's record fell into the time that the request was on its way.
            self.timing.upstream = micros(forwarded.elapsed()).saturating_sub(open_late);
        }
        let (effect, mut objects, object_count) = match self.progress {
            Progress::Kept => (Effect::Nothing, Vec::new(), 0),
            Progress::Forwarded if attribute::may_change(&self.info, self.upgraded) => {
                (Effect::Unknown, Vec::new(), 0)
            }
            Progress::Forwarded => (Effect::Nothing, Vec::new(), 0),
            Progress::Answered => (observed.effect, observed.objects, observed.count),
        };
        objects.truncate(OBJECTS_MAX);
        let course = Course {
            client: self.client.end(),
            upstream: self.upstream.as_mut().map(Passage::end),
            forwarded_ns: self.forwarded_ns,
            handed_ns,
            request: request_pace,
            response: self.pace.pace(),
        };
        let account = self.compare(&course, [&request, &response]);
        ExchangeSettled {
            exchange: self.id,
            session: Some(self.session.id()),
            time: Timestamp::now(),
            status: self.status,
            ending,
            effect,
            objects,
            object_count,
            audit_id: self.audit_id.take(),
            request,
            response,
            timing_us: self.timing,
            spent_us: (!self.live).then(|| course.spent()),
            account,
            stream: self.stream.take(),
            unrecorded: !self.recorded,
        }
    }

    /// The account, by the kernel's evidence of both sockets.
    fn compare(&self, course: &Course, bodies: [&BodyFacts; 2]) -> Account {
        let client = self.client.connection().evidence_of(&course.client);
        let used = self.upstream.as_ref().map(Passage::connection).zip(course.upstream.as_ref());
        let upstream = used.map(|(connection, looks)| connection.evidence_of(looks));
        let sight = self.gateway.witness.sight();
        // Totals are those of whole connections: what was not seen before the exchange is missing in them too.
        let blind = sight.since(self.client.connection().adopted()).blind.or_else(|| {
            let (connection, _) = used?;
            sight.since(connection.adopted()).blind
        });
        let view = View {
            capability: self.gateway.witness.capability(),
            disturbed: blind.is_some() || sight.since(self.sight).disturbed,
            blind: blind.as_deref(),
        };
        witness::account_exchange(Some(&client), upstream.as_ref(), bodies, view)
    }

    /// The last phase: metrics, and a line that has the id of the record and of the API server's audit.
    fn account(&self, settled: &ExchangeSettled) {
        tracing::debug!(
            exchange = %settled.exchange,
            session = %self.session.id(),
            verb = self.info.verb,
            status = settled.status,
            ending = ?settled.ending,
            account = settled.account.state.as_str(),
            "settled"
        );
        self.session.add(settled);
        let cluster = &self.session.key().cluster;
        self.gateway.metrics.settled(cluster, &self.info.verb, settled, self.live);
    }

    /// A live stream cut by anything but its two ends leaves the session incomplete.
    fn cut_session(&self, ending: Ending) {
        let reason = match ending {
            Ending::Finished => return,
            Ending::TokenExpired => IncompleteReason::TokenExpired,
            Ending::TokenRevoked => IncompleteReason::TokenRevoked,
            Ending::GrantEnded => IncompleteReason::GrantEnded,
            Ending::Killed => IncompleteReason::Killed,
            Ending::LimitReached => IncompleteReason::LimitReached,
            Ending::ClientLost => IncompleteReason::ClientLost,
            Ending::RecorderFailed => IncompleteReason::RecorderFailed,
            Ending::GatewayStopped => IncompleteReason::GatewayLost,
            Ending::UpstreamLost if self.progress == Progress::Answered => {
                IncompleteReason::UpstreamLost
            }
            // No response had begun: the client got an error, nothing was cut.
            Ending::UpstreamLost => return,
        };
        self.gateway.sessions.cut(&self.session, reason);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.settled {
            let recorder_cut = lock(&self.shared).request_cut == Some(RequestCut::Recorder);
            let ending = match self.progress {
                // A stream that was carried is settled by its task, unless that came to grief.
                Progress::Answered if self.upgraded => Ending::RecorderFailed,
                // Only the client can end a watch or a followed log: that is no loss.
                Progress::Answered if self.live => Ending::Finished,
                _ if recorder_cut => Ending::RecorderFailed,
                _ => Ending::ClientLost,
            };
            drop(self.end(ending));
        }
        self.gateway.metrics.stream_closed(self.live);
    }
}
