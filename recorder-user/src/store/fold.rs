//! One pure fold turns records into rows. The index and a scan of the segments both use it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    clip::{clip, clip_list, clip_objects},
    rows::{
        AccountRow, ConnectionRow, EffectCounts, ExchangeRow, Position, PrincipalRow, RefusalRow,
        SessionView, StateWord,
    },
};
use crate::model::{
    Account, AccountState, Change, ConnectionClosed, ConnectionSeen, Decision, Effect, Ending,
    ExchangeId, ExchangeOpened, ExchangeSettled, IncompleteReason, MicrosSince, ObjectChange,
    Origin, PodFacts, ProcessFacts, Record, Relation, SessionChanged, SessionId, SessionKind,
    SessionOpened, SessionState, SessionTotals, Timestamp, Timing,
};

/// A session's row and what the fold needs to go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionEntry {
    pub(super) view: SessionView,
    /// Exchanges without an outcome.
    unsettled: u64,
    /// Accounts that were merged.
    accounted: u64,
    /// Those of them that are kernel-verified.
    #[serde(default)]
    verified: u64,
    /// The same gap is seen by an exchange and again when its connection closes: the sums are kept apart
    /// and the larger one counts.
    exchange_gap_bytes: u64,
    connection_gap_bytes: u64,
}

/// Where rows live. A row is changed in place; what holds it notes that it changed.
pub(super) trait Rows {
    fn session(&mut self, id: SessionId) -> Option<&mut SessionEntry>;
    fn add_session(&mut self, entry: SessionEntry);
    fn exchange(&mut self, id: ExchangeId) -> Option<&mut ExchangeRow>;
    fn add_exchange(&mut self, row: ExchangeRow);
    /// The row of this exchange has no room for all of this, and must still be found by it. Who looks at every
    /// row finds it in the records.
    fn leave_out(&mut self, _exchange: ExchangeId, _what: LeftOut<'_>) {}
}

/// What a row may have no room for.
pub(super) enum LeftOut<'a> {
    /// The whole command line of an exec.
    CommandLine(&'a str),
    /// All objects that were changed.
    Objects(&'a [ObjectChange]),
}

/// The state of the fold besides the rows: the exchanges that may still get records.
///
/// It is a cache: what is missing is found in the rows.
#[derive(Default)]
pub(super) struct Fold {
    live: HashMap<ExchangeId, Live>,
}

#[derive(Clone, Copy)]
struct Live {
    session: Option<SessionId>,
    time: Timestamp,
}

impl Fold {
    /// Takes one record into the rows.
    pub(super) fn apply(&mut self, rows: &mut impl Rows, at: Position, record: &Record) {
        match record {
            // Exchanges of an earlier run get no more records.
            Record::GatewayStarted(_) => self.live.clear(),
            Record::SessionOpened(opened) => session_opened(rows, at, opened),
            Record::SessionChanged(changed) => session_changed(rows, changed),
            Record::ExchangeOpened(opened) => self.exchange_opened(rows, at, opened),
            Record::Chunk(chunk) => self.active(rows, chunk.exchange, chunk.at_us),
            Record::RequestEnded(ended) => self.active(rows, ended.exchange, ended.at_us),
            Record::ResponseStarted(started) => {
                self.active(rows, started.exchange, started.at_us);
            }
            Record::ExchangeSettled(settled) => self.exchange_settled(rows, at, settled),
            Record::ConnectionClosed(closed) => connection_closed(rows, closed),
            Record::ConnectionSeen(seen) => connection_seen(rows, at, seen),
            Record::GatewayStopped(_)
            | Record::UnrecordedSpan(_)
            | Record::HoldChanged(_)
            | Record::RecordingRead(_)
            | Record::WitnessChanged(_)
            | Record::Unknown { .. } => {}
        }
    }

    fn exchange_opened(&mut self, rows: &mut impl Rows, at: Position, opened: &ExchangeOpened) {
        if rows.exchange(opened.exchange).is_some() {
            return;
        }
        let row = opened_row(at, opened);
        if row.last.is_none() {
            let live = Live { session: opened.session, time: opened.time };
            self.live.insert(opened.exchange, live);
        }
        if let Some(entry) = opened.session.and_then(|id| rows.session(id)) {
            entry.view.exchanges += 1;
            entry.view.denied += u64::from(row.verdict == Some(Decision::Deny));
            entry.unsettled += u64::from(row.last.is_none());
            seen(entry, opened.time);
        }
        let is_cut = row.command_line_cut;
        rows.add_exchange(row);
        if let (true, Some(line)) = (is_cut, command_line(opened)) {
            rows.leave_out(opened.exchange, LeftOut::CommandLine(&line));
        }
    }

    fn active(&mut self, rows: &mut impl Rows, exchange: ExchangeId, at_us: MicrosSince) {
        let live = self.live.get(&exchange).copied().or_else(|| {
            let row = rows.exchange(exchange)?;
            let live = Live { session: row.session, time: row.time };
            self.live.insert(exchange, live);
            Some(live)
        });
        let Some(Live { session: Some(session), time }) = live else { return };
        if let Some(entry) = rows.session(session) {
            seen(entry, time.plus_micros(i64::try_from(at_us).unwrap_or(i64::MAX)));
        }
    }

    fn exchange_settled(&mut self, rows: &mut impl Rows, at: Position, settled: &ExchangeSettled) {
        self.live.remove(&settled.exchange);
        let Some(row) = rows.exchange(settled.exchange) else { return };
        let refused = row.refusal.is_some() && row.last == Some(row.first);
        if row.last.is_some() && !refused {
            return;
        }
        settle(row, at, settled);
        let omits_objects = row.objects_omitted > 0;
        if let Some(entry) = row.session.and_then(|id| rows.session(id)) {
            if !refused {
                entry.unsettled = entry.unsettled.saturating_sub(1);
            }
            count_effects(&mut entry.view.effects, settled);
            entry.view.totals.add(&SessionTotals::of(settled));
            entry.exchange_gap_bytes += settled.account.gap_bytes;
            merge(entry, &settled.account);
            seen(entry, settled.time);
        }
        if omits_objects {
            rows.leave_out(settled.exchange, LeftOut::Objects(&settled.objects));
        }
    }
}

fn session_opened(rows: &mut impl Rows, at: Position, opened: &SessionOpened) {
    if rows.session(opened.session).is_some() {
        return;
    }
    let principal = &opened.principal;
    let (groups, groups_omitted) = clip_list(&principal.groups, 256, 384);
    rows.add_session(SessionEntry {
        view: SessionView {
            session: opened.session,
            state: StateWord::Open,
            reason: None,
            cluster: clip(&opened.key.cluster, 96),
            task: opened.key.task.as_deref().map(|task| clip(task, 96)),
            kind: opened.kind,
            principal: PrincipalRow {
                issuer: clip(&opened.key.issuer, 512),
                subject: clip(&opened.key.subject, 512),
                username: clip(&principal.username, 512),
                groups,
                groups_omitted,
            },
            started: opened.time,
            ended: None,
            last_activity: opened.time,
            exchanges: 0,
            denied: 0,
            effects: EffectCounts::default(),
            account: AccountRow {
                state: AccountState::Unwitnessed,
                gap_bytes: 0,
                reason: Some(
                    match opened.kind {
                        SessionKind::Api => "nothing was accounted for yet",
                        SessionKind::Bypass => {
                            "it went round the gateway: its content is not known"
                        }
                    }
                    .into(),
                ),
                kernel_verified: false,
            },
            totals: SessionTotals::default(),
            first: at,
            seen: None,
            clients: 0,
            other_connections: 0,
            seen_last: None,
        },
        unsettled: 0,
        accounted: 0,
        verified: 0,
        exchange_gap_bytes: 0,
        connection_gap_bytes: 0,
    });
}

fn session_changed(rows: &mut impl Rows, changed: &SessionChanged) {
    let Some(entry) = rows.session(changed.session) else { return };
    match changed.state {
        SessionState::Incomplete(reason) if entry.view.reason.is_none() => {
            entry.view.state = StateWord::Incomplete;
            entry.view.reason = Some(reason);
        }
        // The first reason stays, also when the session goes on or ends in order.
        _ if entry.view.state == StateWord::Incomplete => {}
        SessionState::Ended => entry.view.state = StateWord::Ended,
        SessionState::Open | SessionState::Incomplete(_) => entry.view.state = StateWord::Open,
    }
    entry.view.ended = changed.ended;
    let lost = changed.state == SessionState::Incomplete(IncompleteReason::GatewayLost);
    if lost && entry.unsettled > 0 {
        let count = std::mem::take(&mut entry.unsettled);
        let reason = Some(format!("no outcome was recorded of {count} exchanges"));
        merge(entry, &Account { reason, ..Account::default() });
    }
    // A session lost with its gateway ended earlier than that was found out.
    seen(entry, changed.ended.unwrap_or(changed.time));
}

fn connection_closed(rows: &mut impl Rows, closed: &ConnectionClosed) {
    for session in &closed.sessions {
        if let Some(entry) = rows.session(*session) {
            entry.connection_gap_bytes += closed.account.gap_bytes;
            merge(entry, &closed.account);
        }
    }
}

fn connection_seen(rows: &mut impl Rows, at: Position, record: &ConnectionSeen) {
    let Some(entry) = rows.session(record.session) else { return };
    let view = &mut entry.view;
    let first = u64::from(!record.again) * record.connections;
    match record.relation {
        Relation::Direct | Relation::Intruder | Relation::Port => {
            view.seen = Some(connection_row(record));
        }
        Relation::Client => {
            view.clients += first;
            if view.seen.is_none() {
                view.seen = Some(connection_row(record));
            }
        }
        Relation::Egress => view.other_connections += first,
    }
    view.seen_last = Some(at);
    seen(entry, record.ended.unwrap_or(record.time));
}

fn connection_row(record: &ConnectionSeen) -> ConnectionRow {
    let ConnectionSeen { origin, .. } = record;
    // Beside a principal there is little room: its records have all of it.
    let is_client = record.relation == Relation::Client;
    let text = |text: &Option<String>, alone, beside| match if is_client { beside } else { alone } {
        0 => None,
        bytes_max => text.as_deref().map(|text| clip(text, bytes_max)),
    };
    ConnectionRow {
        relation: record.relation,
        origin: Origin {
            process: ProcessFacts {
                pid: origin.process.pid,
                comm: clip(&origin.process.comm, 24),
                executable: text(&origin.process.executable, 256, 64),
                started: origin.process.started,
                uid: origin.process.uid,
            },
            cgroup_id: origin.cgroup_id,
            cgroup: text(&origin.cgroup, 512, 0),
            pod: origin.pod.as_ref().map(|pod| PodFacts {
                uid: clip(&pod.uid, 40),
                namespace: text(&pod.namespace, 64, 48),
                name: text(&pod.name, 256, 64),
                container: text(&pod.container, 64, 32),
                container_id: text(&pod.container_id, 64, 0),
            }),
        },
        local: text(&record.local, 56, 48),
        remote: text(&record.remote, 56, 0),
        sent_bytes: record.sent_bytes,
        received_bytes: record.received_bytes,
        connections: record.connections,
    }
}

fn seen(entry: &mut SessionEntry, time: Timestamp) {
    entry.view.last_activity = entry.view.last_activity.max(time);
}

/// Any gap is a gap, else any unwitnessed is unwitnessed, else complete; the first reason of the worst stays.
fn merge(entry: &mut SessionEntry, account: &Account) {
    let severity = |state| match state {
        AccountState::Complete => 0,
        AccountState::Unwitnessed => 1,
        AccountState::Gap => 2,
    };
    let merged = &mut entry.view.account;
    if entry.accounted == 0 || severity(account.state) > severity(merged.state) {
        merged.state = account.state;
        merged.reason = account.reason.as_deref().map(|reason| clip(reason, 192));
    }
    merged.gap_bytes = entry.exchange_gap_bytes.max(entry.connection_gap_bytes);
    entry.accounted += 1;
    entry.verified += u64::from(account.kernel_verified);
    merged.kernel_verified = entry.verified == entry.accounted;
}

fn count_effects(counts: &mut EffectCounts, settled: &ExchangeSettled) {
    for object in &settled.objects {
        match object.change {
            Change::Created => counts.created += 1,
            Change::Modified => counts.modified += 1,
            Change::Deleted => counts.deleted += 1,
        }
    }
    // Objects over the list's bound are counted by the exchange's effect.
    let rest = settled.object_count.saturating_sub(settled.objects.len() as u64);
    match settled.effect {
        Effect::Created => counts.created += rest,
        Effect::Modified => counts.modified += rest,
        Effect::Deleted => counts.deleted += rest,
        Effect::Executed | Effect::Read | Effect::Nothing | Effect::Unknown => {}
    }
}

impl ExchangeRow {
    /// The row of an exchange of which only the intent is known.
    #[must_use]
    pub fn opened(at: Position, opened: &ExchangeOpened) -> Self {
        opened_row(at, opened)
    }

    /// Takes the outcome into the row.
    pub fn settle(&mut self, at: Position, settled: &ExchangeSettled) {
        settle(self, at, settled);
    }
}

/// The arguments of an exec, with a space between them.
pub(super) fn command_line(opened: &ExchangeOpened) -> Option<String> {
    let stream = opened.stream.as_ref()?;
    (!stream.command.is_empty()).then(|| stream.command.join(" "))
}

fn opened_row(at: Position, opened: &ExchangeOpened) -> ExchangeRow {
    let info = opened.request.clone().unwrap_or_default();
    let head = opened.head.as_ref();
    let target = head.map_or("", |head| &head.target);
    let path = if info.path.is_empty() { target } else { &info.path };
    let method = || head.map_or_else(String::new, |head| head.method.to_ascii_lowercase());
    let verb = if info.verb.is_empty() { method() } else { info.verb };
    let verdict = opened.verdict.as_ref();
    let (policies, policies_omitted) =
        verdict.map_or_else(Default::default, |verdict| clip_list(&verdict.policies, 96, 192));
    let principal = opened.principal.as_deref();
    let refusal = opened.refusal.as_ref();
    let whole_line = command_line(opened);
    let command_line = whole_line.as_ref().map(|line| clip(line, 160));
    ExchangeRow {
        exchange: opened.exchange,
        session: opened.session,
        command: opened.command.as_ref().map(|command| clip(&command.id, 64)),
        command_name: opened.command.as_ref().map(|command| clip(&command.name, 96)),
        command_line_cut: command_line != whole_line,
        command_line,
        time: opened.time,
        cluster: clip(&opened.cluster, 80),
        task: opened.task.as_deref().map(|task| clip(task, 80)),
        verb: clip(&verb, 32),
        api_group: clip(&info.api_group, 160),
        api_version: clip(&info.api_version, 48),
        resource: clip(&info.resource, 96),
        subresource: clip(&info.subresource, 64),
        namespace: clip(&info.namespace, 80),
        name: clip(&info.name, 264),
        path: clip(path, 256),
        user_agent: clip(head.and_then(|head| head.header("user-agent")).unwrap_or(""), 160),
        username: clip(principal.map_or("", |principal| &principal.username), 160),
        subject: clip(principal.map_or("", |principal| &principal.subject), 128),
        verdict: verdict.map(|verdict| verdict.decision).or_else(|| {
            // Denied without a policy being asked: a path that nobody can attribute.
            let phase = refusal.map_or("", |refusal| &refusal.phase);
            matches!(phase, "attribute" | "authorize").then_some(Decision::Deny)
        }),
        policies,
        policies_omitted,
        policy_set: clip(verdict.map_or("", |verdict| &verdict.policy_set), 80),
        refusal: refusal.map(|refusal| RefusalRow {
            phase: clip(&refusal.phase, 16),
            reason: clip(&refusal.reason, 64),
        }),
        suppressed: opened.suppressed,
        status: refusal.map(|refusal| refusal.status),
        ending: refusal.map(|_| Ending::Finished),
        effect: if refusal.is_some() { Effect::Nothing } else { Effect::Unknown },
        objects: Vec::new(),
        objects_omitted: 0,
        audit_id: None,
        request_bytes: 0,
        response_bytes: 0,
        timing_us: Timing::default(),
        account: AccountRow {
            reason: Some(if refusal.is_some() { "refused" } else { "no outcome" }.into()),
            ..AccountRow::default()
        },
        first: at,
        last: refusal.map(|_| at),
    }
}

fn settle(row: &mut ExchangeRow, at: Position, settled: &ExchangeSettled) {
    row.status = Some(settled.status);
    row.ending = Some(settled.ending);
    row.effect = settled.effect;
    let (objects, fitted) = clip_objects(&settled.objects, 448);
    row.objects_omitted =
        settled.object_count.max(settled.objects.len() as u64).saturating_sub(fitted);
    row.objects = objects;
    row.audit_id = settled.audit_id.as_deref().map(|id| clip(id, 64));
    row.request_bytes = settled.request.bytes;
    row.response_bytes = settled.response.bytes;
    row.timing_us = settled.timing_us;
    row.account = AccountRow {
        state: settled.account.state,
        gap_bytes: settled.account.gap_bytes,
        reason: settled.account.reason.as_deref().map(|reason| clip(reason, 128)),
        kernel_verified: settled.account.kernel_verified,
    };
    row.last = Some(at);
}

#[cfg(test)]
mod tests;
