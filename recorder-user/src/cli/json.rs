//! The JSON of listings: a contract (design §11). New keys may be added, old ones keep their
//! meaning.
//!
//! These are types of their own, so that what the index keeps can change without changing them.

use serde::Serialize;

use crate::{
    model::{
        Decision, Effect, ExchangeId, GatewayId, IncompleteReason, ObjectChange, SessionId,
        SessionKind, SessionTotals, Timestamp, Timing,
    },
    replay::Track,
    store::{AccountRow, ConnectionRow, EffectCounts, ExchangeRow, SessionView, StateWord},
};

/// One line of `recorder ls --json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionLine<'a> {
    session: SessionId,
    state: StateWord,
    reason: Option<IncompleteReason>,
    cluster: &'a str,
    task: Option<&'a str>,
    kind: SessionKind,
    principal: PrincipalLine<'a>,
    started: Timestamp,
    ended: Option<Timestamp>,
    exchanges: u64,
    denied: u64,
    effects: EffectCounts,
    account: &'a AccountRow,
    totals: &'a SessionTotals,
    // What the witness saw of a session of kind `bypass`.
    #[serde(skip_serializing_if = "Option::is_none")]
    bypass: Option<&'a ConnectionRow>,
    // The process behind the first connection from the gateway's own node.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a ConnectionRow>,
    #[serde(skip_serializing_if = "is_zero")]
    clients: u64,
    #[serde(skip_serializing_if = "is_zero")]
    other_connections: u64,
    tracks: Vec<TrackLine<'a>>,
}

/// What one gateway wrote of a session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TrackLine<'a> {
    gateway: Option<GatewayId>,
    session: SessionId,
    state: StateWord,
    reason: Option<IncompleteReason>,
    started: Timestamp,
    ended: Option<Timestamp>,
    exchanges: u64,
    denied: u64,
    effects: EffectCounts,
    account: &'a AccountRow,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PrincipalLine<'a> {
    issuer: &'a str,
    subject: &'a str,
    username: &'a str,
    groups: &'a [String],
    #[serde(skip_serializing_if = "is_zero")]
    groups_omitted: u64,
}

impl<'a> SessionLine<'a> {
    pub(super) fn new(view: &'a SessionView, tracks: &'a [Track]) -> Self {
        Self {
            session: view.session,
            state: view.state,
            reason: view.reason,
            cluster: &view.cluster,
            task: view.task.as_deref(),
            kind: view.kind,
            principal: PrincipalLine {
                issuer: &view.principal.issuer,
                subject: &view.principal.subject,
                username: &view.principal.username,
                groups: &view.principal.groups,
                groups_omitted: view.principal.groups_omitted,
            },
            started: view.started,
            ended: view.ended,
            exchanges: view.exchanges,
            denied: view.denied,
            effects: view.effects,
            account: &view.account,
            bypass: view.seen.as_ref().filter(|_| view.kind == SessionKind::Bypass),
            client: view.seen.as_ref().filter(|_| view.kind == SessionKind::Api),
            clients: view.clients,
            other_connections: view.other_connections,
            totals: &view.totals,
            tracks: tracks.iter().map(TrackLine::from).collect(),
        }
    }
}

impl<'a> From<&'a Track> for TrackLine<'a> {
    fn from(Track { gateway, view }: &'a Track) -> Self {
        Self {
            gateway: *gateway,
            session: view.session,
            state: view.state,
            reason: view.reason,
            started: view.started,
            ended: view.ended,
            exchanges: view.exchanges,
            denied: view.denied,
            effects: view.effects,
            account: &view.account,
        }
    }
}

/// One line of `recorder search --json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExchangeLine<'a> {
    exchange: ExchangeId,
    session: Option<SessionId>,
    command: Option<&'a str>,
    time: Timestamp,
    verb: &'a str,
    api_group: &'a str,
    api_version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    path: &'a str,
    user_agent: &'a str,
    username: &'a str,
    verdict: Option<Decision>,
    policies: &'a [String],
    policy_set: &'a str,
    status: Option<u16>,
    effect: Effect,
    objects: &'a [ObjectChange],
    audit_id: Option<&'a str>,
    request_bytes: u64,
    response_bytes: u64,
    timing_us: Timing,
    account: &'a AccountRow,
    // Where several gateways' records are read as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<GatewayId>,
    // Of an exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_line: Option<&'a str>,
    // Present only where a row could not hold all.
    #[serde(skip_serializing_if = "is_false")]
    command_line_cut: bool,
    #[serde(skip_serializing_if = "is_zero")]
    policies_omitted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    objects_omitted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
}

impl<'a> From<&'a ExchangeRow> for ExchangeLine<'a> {
    fn from(row: &'a ExchangeRow) -> Self {
        Self {
            exchange: row.exchange,
            session: row.session,
            command: row.command.as_deref(),
            time: row.time,
            verb: &row.verb,
            api_group: &row.api_group,
            api_version: &row.api_version,
            resource: &row.resource,
            subresource: &row.subresource,
            namespace: &row.namespace,
            name: &row.name,
            path: &row.path,
            user_agent: &row.user_agent,
            username: &row.username,
            verdict: row.verdict,
            policies: &row.policies,
            policy_set: &row.policy_set,
            status: row.status,
            effect: row.effect,
            objects: &row.objects,
            audit_id: row.audit_id.as_deref(),
            request_bytes: row.request_bytes,
            response_bytes: row.response_bytes,
            timing_us: row.timing_us,
            account: &row.account,
            gateway: None,
            command_line: row.command_line.as_deref(),
            command_line_cut: row.command_line_cut,
            policies_omitted: row.policies_omitted,
            objects_omitted: row.objects_omitted,
            suppressed: row.suppressed,
        }
    }
}

impl ExchangeLine<'_> {
    /// With the gateway that wrote it, if that is not clear anyhow.
    pub(super) fn by(self, gateway: Option<GatewayId>) -> Self {
        Self { gateway, ..self }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
pub(super) fn is_zero(count: &u64) -> bool {
    *count == 0
}
