//! The rows that listings print: sessions, exchanges, and the question that selects them.
//!
//! Rows are derived from records by the module `fold` and from nothing else, so that the index and a scan
//! of the segments give the same rows. Their JSON is a contract (`recorder ls --json`, `search --json`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    fold::command_line,
    reader::{ExchangeEnds, ReadError},
};
use crate::model::{
    AccountState, Decision, Effect, Ending, ExchangeId, IncompleteReason, ObjectChange, Origin,
    Relation, SegmentId, SessionId, SessionKey, SessionKind, SessionState, SessionTotals,
    Timestamp, Timing,
};

/// The most bytes of JSON that a row has: the index takes no larger value, and adds some bytes of its own.
pub const ROW_BYTES_MAX: usize = 4096 - 16;

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The segment; ids sort in the order in which segments were written.
    pub segment: SegmentId,
    /// Offset of the record's first byte in the file.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// The word of a session's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateWord {
    /// Goes on.
    #[default]
    Open,
    /// Asked for, or idle.
    Ended,
    /// A live stream was cut; the reason says by what. It may still go on (`ended` is then null).
    Incomplete,
}

impl StateWord {
    /// The word as written in listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ended => "ended",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Who acts, as far as a listing shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalRow {
    /// The token's `iss`.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
    /// The username as configured.
    pub username: String,
    /// The groups, as many as fit.
    pub groups: Vec<String>,
    /// How many groups did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub groups_omitted: u64,
}

/// How many objects a session changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectCounts {
    /// Objects made.
    pub created: u64,
    /// Objects changed.
    pub modified: u64,
    /// Objects removed or marked for removal.
    pub deleted: u64,
}

/// An account without its evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountRow {
    /// Complete, gap or unwitnessed.
    pub state: AccountState,
    /// Bytes that one side counted and the other did not.
    pub gap_bytes: u64,
    /// Why unwitnessed, or what else to know.
    pub reason: Option<String>,
    /// Complete by the count of eBPF programs that passed their self-test, with nothing lost meanwhile. Of a
    /// session: all its accounts are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kernel_verified: bool,
}

/// One line of `recorder ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// The session.
    pub session: SessionId,
    /// Open, ended or incomplete.
    pub state: StateWord,
    /// Why incomplete: the first reason.
    pub reason: Option<IncompleteReason>,
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The label that the client gave.
    pub task: Option<String>,
    /// Through the gateway or round it.
    pub kind: SessionKind,
    /// Who acts.
    pub principal: PrincipalRow,
    /// When its first exchange was received.
    pub started: Timestamp,
    /// When it ended; null while it goes on, also if it is incomplete.
    pub ended: Option<Timestamp>,
    /// When its last record was made.
    pub last_activity: Timestamp,
    /// How many exchanges, refused ones too.
    pub exchanges: u64,
    /// How many of them were denied.
    pub denied: u64,
    /// What it changed.
    pub effects: EffectCounts,
    /// All its exchanges' and connections' accounts in one: any gap is a gap, else any unwitnessed is
    /// unwitnessed.
    pub account: AccountRow,
    /// What its exchanges with an outcome add up to.
    #[serde(default)]
    pub totals: SessionTotals,
    /// Where it was opened.
    pub first: Position,
    /// Of kind `bypass` what the witness saw of it; else the first process that was its client, where that
    /// is on the gateway's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<ConnectionRow>,
    /// How many connections of clients on the gateway's node it came through.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clients: u64,
    /// How many other connections its clients' cgroups opened meanwhile, where that is watched.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other_connections: u64,
    /// Where the last record of such connections is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_last: Option<Position>,
}

/// A connection that is not the gateway's, as far as a listing shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRow {
    /// What it is to the session.
    pub relation: Relation,
    /// Who opened it; long texts are cut.
    pub origin: Origin,
    /// Address and port of this end.
    pub local: Option<String>,
    /// Address and port of the other end.
    pub remote: Option<String>,
    /// Bytes that the process sent; null when nobody counted.
    pub sent_bytes: Option<u64>,
    /// Bytes that the process received; null when nobody counted.
    pub received_bytes: Option<u64>,
    /// How many connections this stands for.
    pub connections: u64,
}

impl SessionView {
    /// The state as records write it.
    #[must_use]
    pub fn session_state(&self) -> SessionState {
        match (self.state, self.reason) {
            (StateWord::Open, _) => SessionState::Open,
            (StateWord::Incomplete, Some(reason)) => SessionState::Incomplete(reason),
            (StateWord::Ended | StateWord::Incomplete, _) => SessionState::Ended,
        }
    }

    /// What groups its exchanges. Exact unless a name was too long for a row; the views in
    /// [`super::Recovered`] are always exact.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        SessionKey {
            issuer: self.principal.issuer.clone(),
            subject: self.principal.subject.clone(),
            cluster: self.cluster.clone(),
            task: self.task.clone(),
        }
    }
}

/// Why the gateway answered a request itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalRow {
    /// The phase that refused.
    pub phase: String,
    /// The `Status` reason that the client saw.
    pub reason: String,
}

/// One line of `recorder search`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeRow {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Its session; null when nobody was identified.
    pub session: Option<SessionId>,
    /// kubectl's id of the invocation (`Kubectl-Session`): a claim.
    pub command: Option<String>,
    /// kubectl's word for the invocation (`Kubectl-Command`): a claim.
    pub command_name: Option<String>,
    /// The arguments of an exec with a space between them, as much as fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Whether the command line is longer than that.
    #[serde(default, skip_serializing_if = "is_false")]
    pub command_line_cut: bool,
    /// When the request head was received.
    pub time: Timestamp,
    /// The cluster's name; empty when it was not found.
    pub cluster: String,
    /// The task label.
    pub task: Option<String>,
    /// Kubernetes' verb; the method in lower case when the path could not be attributed.
    pub verb: String,
    /// Empty for the core group.
    pub api_group: String,
    /// For example `v1`.
    pub api_version: String,
    /// Plural resource name; empty when the path names none.
    pub resource: String,
    /// For example `scale`.
    pub subresource: String,
    /// Empty for cluster-scoped requests and for all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// The path, without the gateway's prefix and without the query where it could be attributed.
    pub path: String,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The username; empty when nobody was identified.
    pub username: String,
    /// The token's `sub`; empty when nobody was identified.
    pub subject: String,
    /// Allow, deny or hold; null when refused before the policy was asked.
    pub verdict: Option<Decision>,
    /// The ids of the policies that decided, as many as fit.
    pub policies: Vec<String>,
    /// How many policy ids did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub policies_omitted: u64,
    /// The hash of the policy set that was asked.
    pub policy_set: String,
    /// Present when the gateway answered itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<RefusalRow>,
    /// How many like refusals were not recorded one by one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
    /// The status that the client saw; null while there is no outcome.
    pub status: Option<u16>,
    /// How it came to its end; null while there is no outcome.
    pub ending: Option<Ending>,
    /// What it did; `unknown` while there is no outcome.
    pub effect: Effect,
    /// The objects that it changed, as many as fit.
    pub objects: Vec<ObjectChange>,
    /// How many objects did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub objects_omitted: u64,
    /// The API server's `Audit-ID`.
    pub audit_id: Option<String>,
    /// Bytes of the request's body, before redaction.
    pub request_bytes: u64,
    /// Bytes of the response's body, before redaction.
    pub response_bytes: u64,
    /// Phase timings.
    pub timing_us: Timing,
    /// Comparison with the kernel.
    pub account: AccountRow,
    /// Where its intent is.
    pub first: Position,
    /// Where its outcome is; null while there is none.
    pub last: Option<Position>,
}

/// Which statuses to find: one (`404`) or a class (`4xx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// Exactly this status.
    Exact(u16),
    /// All statuses of this hundred.
    Class(u16),
}

/// The text is neither a status nor a class of them.
#[derive(Debug, thiserror::Error)]
#[error("not an HTTP status: {text:?} (expected for example 404 or 4xx)")]
pub struct ParseStatusFilterError {
    text: String,
}

impl FromStr for StatusFilter {
    type Err = ParseStatusFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseStatusFilterError { text: text.chars().take(16).collect() };
        if let Some(class) = text.strip_suffix("xx") {
            return match class.parse() {
                Ok(class @ 1..=5) => Ok(Self::Class(class)),
                _ => Err(bad()),
            };
        }
        match text.parse() {
            Ok(status @ 100..=599) => Ok(Self::Exact(status)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for StatusFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl StatusFilter {
    fn matches(self, status: Option<u16>) -> bool {
        match self {
            Self::Exact(wanted) => status == Some(wanted),
            Self::Class(class) => status.is_some_and(|status| status / 100 == class),
        }
    }
}

/// Which exchanges to find: all conditions that are set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this session.
    pub session: Option<SessionId>,
    /// By this username or subject.
    pub principal: Option<String>,
    /// With this task.
    pub task: Option<String>,
    /// With this verb.
    pub verb: Option<String>,
    /// On this resource: `RESOURCE[.GROUP][/SUBRESOURCE]`; without a subresource it matches all.
    pub resource: Option<String>,
    /// Of this API group; empty is the core group.
    pub api_group: Option<String>,
    /// On this cluster.
    pub cluster: Option<String>,
    /// In this namespace.
    pub namespace: Option<String>,
    /// On this object; also one that the exchange changed without naming it.
    pub name: Option<String>,
    /// That changed the object with this uid.
    pub uid: Option<String>,
    /// Whose user agent contains this text.
    pub user_agent: Option<String>,
    /// With this verdict.
    pub verdict: Option<Decision>,
    /// With such a status.
    pub status: Option<StatusFilter>,
    /// With this effect.
    pub effect: Option<Effect>,
    /// Of this invocation: kubectl's id, or text that its word or the command line of an exec contains.
    pub command: Option<String>,
    /// Received at this instant or later.
    pub since: Option<Timestamp>,
    /// Received before this instant.
    pub until: Option<Timestamp>,
    /// At most so many rows; 0 is all.
    pub limit: usize,
    /// Only what follows this exchange: the last of the page before.
    pub after: Option<ExchangeId>,
}

/// A resource as a query names it.
pub(super) struct WantedResource<'a> {
    pub(super) resource: &'a str,
    pub(super) group: Option<&'a str>,
    pub(super) subresource: Option<&'a str>,
}

impl Query {
    /// Whether the row fulfils every condition but the limit. A row does not hold all of a long command line or
    /// of many objects: where that matters the exchange's own records decide. Where they cannot be read any
    /// more, the row alone does.
    pub(super) fn selects(
        &self,
        row: &ExchangeRow,
        records: impl FnOnce() -> Result<Option<ExchangeEnds>, ReadError>,
    ) -> bool {
        if !self.matches_plainly(row) {
            return false;
        }
        let object = self.matches_object(row.name.as_str(), &row.objects);
        let command = self.command.as_deref().is_none_or(|wanted| command_matches(wanted, row));
        if (!object && row.objects_omitted == 0) || (!command && !row.command_line_cut) {
            return false;
        }
        (object && command)
            || matches!(records(), Ok(Some(ends)) if self.matches_records(row, &ends))
    }

    fn matches_records(&self, row: &ExchangeRow, ends: &ExchangeEnds) -> bool {
        let objects = ends.settled.as_ref().map_or(&[][..], |settled| &settled.objects);
        let line = command_line(&ends.opened).unwrap_or_default();
        self.matches_object(&row.name, objects)
            && self
                .command
                .as_deref()
                .is_none_or(|wanted| command_matches(wanted, row) || line.contains(wanted))
    }

    fn matches_plainly(&self, row: &ExchangeRow) -> bool {
        let text = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        self.after.is_none_or(|after| row.exchange > after)
            && self.session.is_none_or(|session| row.session == Some(session))
            && self.since.is_none_or(|since| row.time >= since)
            && self.until.is_none_or(|until| row.time < until)
            && self.verdict.is_none_or(|verdict| row.verdict == Some(verdict))
            && self.status.is_none_or(|status| status.matches(row.status))
            && self.effect.is_none_or(|effect| row.effect == effect)
            && text(&self.verb, &row.verb)
            && text(&self.namespace, &row.namespace)
            && text(&self.api_group, &row.api_group)
            && text(&self.cluster, &row.cluster)
            && self.task.as_deref().is_none_or(|task| row.task.as_deref() == Some(task))
            && (text(&self.principal, &row.username) || text(&self.principal, &row.subject))
            && self.resource().is_none_or(|wanted| wanted.matches(row))
            && self.user_agent.as_deref().is_none_or(|part| row.user_agent.contains(part))
    }

    fn matches_object(&self, name: &str, objects: &[ObjectChange]) -> bool {
        let any = |of: fn(&ObjectChange) -> &str, wanted: &str| {
            objects.iter().any(|object| of(object) == wanted)
        };
        self.name
            .as_deref()
            .is_none_or(|wanted| wanted == name || any(|object| &object.name, wanted))
            && self.uid.as_deref().is_none_or(|wanted| any(|object| &object.uid, wanted))
    }

    /// The resource, taken apart.
    pub(super) fn resource(&self) -> Option<WantedResource<'_>> {
        let wanted = self.resource.as_deref()?;
        let (wanted, subresource) = match wanted.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (wanted, None),
        };
        let (resource, group) = match wanted.split_once('.') {
            Some((resource, group)) => (resource, Some(group)),
            None => (wanted, None),
        };
        Some(WantedResource { resource, group, subresource })
    }
}

impl WantedResource<'_> {
    fn matches(&self, row: &ExchangeRow) -> bool {
        row.resource == self.resource
            && self.group.is_none_or(|group| row.api_group == group)
            && self.subresource.is_none_or(|subresource| row.subresource == subresource)
    }
}

fn command_matches(wanted: &str, row: &ExchangeRow) -> bool {
    let contained = |text: &Option<String>| text.as_deref().is_some_and(|t| t.contains(wanted));
    row.command.as_deref() == Some(wanted)
        || contained(&row.command_name)
        || contained(&row.command_line)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests;
