//! The task: from notices to records.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use recorder_user::{
    model::{ConnectionSeen, Record, Relation, SessionId, Timestamp},
    store::Recorder,
    witness::{
        ListedSocket, Selection, Witness,
        bypass::{
            Book, Clients, Egress, Happened, RingRecord, Sighting, SocketTotals, Suspects, Told,
            Use, Whose,
        },
        connected_sockets,
        origin::{FoundOrigin, Origins},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Endpoints, Needs, Places, Shared, listing};
use crate::{late::LateOutcomes, sessions::Sessions};

/// Looks after everything; what blocks runs beside the other tasks.
pub(super) struct Watch {
    notices: Option<mpsc::Receiver<RingRecord>>,
    places: Places,
    resolve_due: Instant,
    state: State,
}

/// What is taken along to where blocking is allowed.
struct State {
    book: Book,
    clients: Clients,
    egress: Egress,
    watch_clients: bool,
    origins: Origins,
    suspects: Suspects,
    endpoints: Arc<Endpoints>,
    /// Own ends of the gateway's connections are looked up in it; read anew with each look.
    list: Vec<ListedSocket>,
    list_due: Instant,
    has_programs: bool,
    selection: Option<Selection>,
    netns_cookie: u64,
    witness: Witness,
    recorder: Recorder,
    late: Arc<LateOutcomes>,
    sessions: Arc<Sessions>,
    shared: Arc<Shared>,
    alerts: u32,
    alerts_left_out: u64,
}

/// What a turn has to do.
#[derive(Default)]
struct Turn {
    notices: Vec<RingRecord>,
    uses: Vec<Use>,
    is_tick: bool,
}

impl Watch {
    pub(super) fn new(needs: &Needs<'_>, places: Places, shared: Arc<Shared>) -> Self {
        let notices = needs.witness.take_connections();
        let selection = needs.witness.selection();
        let netns_cookie = needs.witness.identity().map_or(0, |identity| identity.netns_cookie);
        let bypass = &needs.config.witness.bypass;
        let state = State {
            book: Book::new(bypass.allow.clone()),
            clients: Clients::new(netns_cookie),
            egress: Egress::default(),
            watch_clients: bypass.watch_clients,
            origins: Origins::new(bypass.host.origin_paths()),
            suspects: Suspects::default(),
            endpoints: Arc::default(),
            list: Vec::new(),
            list_due: Instant::now(),
            has_programs: notices.is_some(),
            selection,
            netns_cookie,
            witness: needs.witness.clone(),
            recorder: needs.recorder.clone(),
            late: Arc::clone(needs.late),
            sessions: Arc::clone(needs.sessions),
            shared,
            alerts: 0,
            alerts_left_out: 0,
        };
        Self { notices, places, resolve_due: Instant::now(), state }
    }

    /// Names the addresses to the programs before the first client is served, unless names take too long: then that
    /// comes with the first tick.
    pub(super) async fn begin(&mut self) {
        let resolved = self.places.resolve(&self.state.endpoints);
        if let Ok(endpoints) = tokio::time::timeout(FIRST_RESOLVE_MAX, resolved).await {
            self.resolve_due = Instant::now() + RESOLVE_EVERY;
            self.state.set_endpoints(endpoints);
        }
    }

    pub(super) async fn run(self, mut uses: mpsc::Receiver<Use>, stop: CancellationToken) {
        let Self { mut notices, places, mut resolve_due, mut state } = self;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            let mut turn = Turn::default();
            tokio::select! {
                // cancel-safe: receivers lose nothing, and the others only wait.
                () = stop.cancelled() => break,
                _ = tick.tick() => turn.is_tick = true,
                count = next(&mut notices, &mut turn.notices) => {
                    if count == 0 {
                        tracing::warn!("the witness tells of no connections any more");
                        notices = None;
                    }
                }
                _ = uses.recv_many(&mut turn.uses, BATCH) => {}
            }
            if turn.is_tick && Instant::now() >= resolve_due {
                resolve_due = Instant::now() + RESOLVE_EVERY;
                state.set_endpoints(places.resolve(&state.endpoints).await);
            }
            let Some(next) = blocking(state, move |state| state.take(turn)).await else { return };
            state = next;
        }
        blocking(state, State::stop).await;
    }
}

async fn next(
    notices: &mut Option<mpsc::Receiver<RingRecord>>,
    into: &mut Vec<RingRecord>,
) -> usize {
    match notices {
        Some(notices) => notices.recv_many(into, BATCH).await,
        None => std::future::pending().await,
    }
}

/// Runs what reads files, and gives the state back. None when it panicked, which the log tells.
async fn blocking(
    mut state: State,
    run: impl FnOnce(&mut State) + Send + 'static,
) -> Option<State> {
    let done = tokio::task::spawn_blocking(move || {
        run(&mut state);
        state
    });
    let done = done.await;
    done.inspect_err(|error| tracing::error!(%error, "the watch for bypasses ended")).ok()
}

impl State {
    fn take(&mut self, turn: Turn) {
        for record in &turn.notices {
            self.notice(record);
        }
        for used in turn.uses {
            let told = self.clients.used(used, Instant::now());
            self.client(told);
        }
        if turn.is_tick {
            self.tick();
        }
        *self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.book.counts();
    }

    fn set_endpoints(&mut self, endpoints: Endpoints) {
        if *self.endpoints == endpoints {
            return;
        }
        if let Some(selection) = &self.selection
            && let Err(error) = selection.set_endpoints(&endpoints.addresses(self.netns_cookie))
        {
            let error = anyhow::Error::from(error);
            tracing::error!(error = %format_args!("{error:#}"), "bypasses are not all looked for");
            return;
        }
        tracing::info!(
            api = endpoints.api.len(),
            gateway = endpoints.gateway.len(),
            "addresses of API servers and of the gateway"
        );
        self.endpoints = Arc::new(endpoints);
        // What is open to a new address was not told of.
        self.list_due = Instant::now();
    }

    fn notice(&mut self, record: &RingRecord) {
        let now = Timestamp::now();
        let sighting = Sighting::of_record(record, now, |ns| self.witness.wall(ns));
        let Some(mut sighting) = sighting else { return };
        if sighting.happened == Happened::Intruded {
            (sighting.local, sighting.remote) = self.ends(sighting.cookie);
        }
        match sighting.whose {
            Whose::Foreign | Whose::Gateway => self.round(&sighting),
            Whose::Client => {
                let found = self.found_at_opening(&sighting);
                for told in self.clients.sighted(&sighting, found, Instant::now()) {
                    self.client(Some(told));
                }
            }
            Whose::Watched => {
                let found = self.found_at_opening(&sighting);
                let records = self.egress.sighted(&sighting, found);
                self.record(records);
            }
        }
    }

    /// Something goes round the gateway.
    fn round(&mut self, sighting: &Sighting) {
        let found = (!self.book.follows(sighting.cookie))
            .then(|| self.origins.find(&sighting.subject, sighting.at));
        let endpoints = Arc::clone(&self.endpoints);
        let cluster = endpoints.cluster(sighting.remote).unwrap_or_default();
        let told = self.book.sighted(sighting, found, cluster, Instant::now());
        self.tell(told);
    }

    fn found_at_opening(&mut self, sighting: &Sighting) -> Option<FoundOrigin> {
        (sighting.happened == Happened::Opening)
            .then(|| self.origins.find(&sighting.subject, sighting.at))
    }

    /// A session learns who its client is.
    fn client(&mut self, told: Option<ConnectionSeen>) {
        let Some(seen) = told else { return };
        // It must be on record before what belongs to it; that is no harm where it is.
        if let Some(session) = self.sessions.find(seen.session)
            && let Err(error) = self.sessions.announce(&session)
        {
            tracing::warn!(session = %seen.session, %error, "client not recorded");
            self.shared.unrecorded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (session, origin) = (seen.session, seen.origin.clone());
        self.record(vec![Record::ConnectionSeen(Box::new(seen))]);
        let is_all = origin.cgroup.as_deref().is_none_or(|path| path == "/");
        if !self.watch_clients || is_all {
            if self.watch_clients {
                tracing::debug!(%session, "the client has no cgroup of its own: not watched");
            }
            return;
        }
        if self.egress.watch(session, origin.cgroup_id) {
            self.set_watched();
        } else {
            tracing::warn!(%session, "too many cgroups are watched: this client's is not");
        }
    }

    fn set_watched(&self) {
        let Some(selection) = &self.selection else { return };
        if let Err(error) = selection.set_watched(&self.egress.cgroups()) {
            let error = anyhow::Error::from(error);
            tracing::warn!(error = %format_args!("{error:#}"), "clients are not watched");
        }
    }

    fn tick(&mut self) {
        let (now, time) = (Instant::now(), Timestamp::now());
        self.alerts = 0;
        if self.alerts_left_out > 0 {
            let count = std::mem::take(&mut self.alerts_left_out);
            tracing::warn!(count, "more connections went round the gateway");
        }
        let told = self.book.tick(now, time, |cookie| totals(&self.witness, cookie));
        self.tell(told);
        self.clients.tick(now);
        if self.watch_clients {
            let open: HashSet<SessionId> =
                self.sessions.all().iter().map(|session| session.id()).collect();
            let (changed, records) = self.egress.keep(|session| open.contains(&session), time);
            self.record(records);
            if changed {
                self.set_watched();
            }
        }
        if now >= self.list_due {
            self.look_at_list(now, time);
        }
    }

    fn look_at_list(&mut self, now: Instant, time: Timestamp) {
        match connected_sockets() {
            Ok(list) => self.list = list,
            Err(error) => {
                tracing::warn!(%error, "the kernel's list of sockets could not be read");
                self.shared.lists_failed.fetch_add(1, Ordering::Relaxed);
                self.list_due = now + LIST_EVERY;
                return;
            }
        }
        let mut chosen = HashSet::new();
        self.witness.for_each_slot(|slot| {
            chosen.insert(slot.cookie);
        });
        let (owners, endpoints) = (self.origins.socket_owners(), Arc::clone(&self.endpoints));
        let book = &self.book;
        let look = listing::look(
            &self.list,
            &endpoints,
            &owners,
            &mut self.suspects,
            |cookie| book.follows(cookie),
            &chosen,
        );
        let told = self.book.listed(&look.totals, now, time);
        self.tell(told);
        for sighting in &look.new {
            self.round(sighting);
        }
        let is_watched = !self.has_programs || self.book.follows_listed();
        self.list_due = now + if is_watched { LIST_EVERY } else { LIST_EVERY_WITH_PROGRAMS };
    }

    /// Both ends of one of the gateway's own connections.
    fn ends(&mut self, cookie: u64) -> (Option<SocketAddr>, Option<SocketAddr>) {
        if let Ok(list) = connected_sockets() {
            self.list = list;
        }
        let found = self.list.iter().find(|socket| socket.cookie == cookie);
        found.map_or((None, None), |socket| (Some(socket.local), Some(socket.remote)))
    }

    fn tell(&mut self, told: Told) {
        for seen in &told.alerts {
            if self.alerts < ALERTS_PER_TICK {
                self.alerts += 1;
                alert(seen);
            } else {
                self.alerts_left_out += 1;
            }
        }
        self.record(told.records);
    }

    /// What the store does not take is kept until it does.
    fn record(&self, records: Vec<Record>) {
        for record in records {
            if let Err(error) = self.recorder.try_append(record.clone()) {
                tracing::debug!(%error, "a record of a bypass waits for the store");
                self.shared.unrecorded.fetch_add(1, Ordering::Relaxed);
                self.late.keep(record);
            }
        }
    }

    fn stop(&mut self) {
        let totals_of = |cookie| totals(&self.witness, cookie);
        let told = self.book.stop(Instant::now(), Timestamp::now(), totals_of);
        self.tell(told);
        let (_, records) = self.egress.keep(|_| true, Timestamp::now());
        self.record(records);
    }
}

/// What the programs counted on a socket.
fn totals(witness: &Witness, cookie: u64) -> Option<SocketTotals> {
    let slot = witness.slot(cookie)?;
    Some(SocketTotals {
        sent_bytes: slot.sent_bytes,
        received_bytes: slot.received_bytes,
        other_bytes: slot.other_bytes,
        closed: witness.wall(slot.closed_ns),
    })
}

/// Names come from the node, and are escaped by the log's own format.
fn alert(seen: &ConnectionSeen) {
    let (process, pod) = (&seen.origin.process, seen.origin.pod.as_ref());
    let what = match seen.relation {
        Relation::Intruder => "somebody else used a socket of the gateway",
        Relation::Port => "somebody else took the gateway's port",
        _ => "a connection went round the gateway",
    };
    tracing::warn!(
        session = %seen.session,
        process = process.comm,
        pid = process.pid,
        executable = process.executable,
        namespace = pod.and_then(|pod| pod.namespace.as_deref()),
        pod = pod.and_then(|pod| pod.name.as_deref()),
        container = pod.and_then(|pod| pod.container.as_deref()),
        cgroup = seen.origin.cgroup,
        local = seen.local,
        remote = seen.remote,
        "{what}"
    );
}

/// How often what is open is looked after.
const TICK: Duration = Duration::from_secs(1);
/// How often names are resolved anew.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How long a start waits for names.
const FIRST_RESOLVE_MAX: Duration = Duration::from_secs(2);
/// Notices taken at once.
const BATCH: usize = 512;
/// How often the kernel's list is read where nothing else tells of a connection …
const LIST_EVERY: Duration = Duration::from_secs(5);
/// … and where the programs do: it finds what they were not told to look for.
const LIST_EVERY_WITH_PROGRAMS: Duration = Duration::from_secs(60);
/// Log lines a second; the others are counted in one.
const ALERTS_PER_TICK: u32 = 20;
