//! From the rows of the store to the rows of the tables.

use std::borrow::Cow;

use recorder_user::{
    model::{Change, Effect, Ending, ExchangeSettled, GatewayId, SegmentId, Timestamp},
    store::{ExchangeRow, SessionView, archive::RowSink},
};

use super::{
    Partition,
    columns::{Cell, Table},
};

/// Takes a row of a table; its cells are in the order of the table's columns.
pub(super) trait TableRow {
    /// One row.
    fn row(&mut self, partition: Partition, cells: &[Cell<'_>]);
}

/// Makes rows of tables from what a segment adds.
pub(super) struct TableRows<'a, T> {
    segment: String,
    gateway: String,
    to: &'a mut T,
}

impl<'a, T: TableRow> TableRows<'a, T> {
    /// For this segment.
    pub(super) fn new(gateway: GatewayId, segment: SegmentId, to: &'a mut T) -> Self {
        Self { segment: segment.to_string(), gateway: gateway.to_string(), to }
    }

    fn effects(&mut self, row: &ExchangeRow, settled: &ExchangeSettled) {
        let session = row.session.map(|id| id.to_string());
        let exchange = row.exchange.to_string();
        let mut effect = |change, kind: &str, namespace: &str, name: &str, uid: &str| {
            let cells: [Cell<'_>; 19] = [
                (&exchange).into(),
                session.as_ref().into(),
                (&self.segment).into(),
                (&self.gateway).into(),
                row.command.as_ref().into(),
                row.command_name.as_ref().into(),
                row.time.into(),
                row.task.as_ref().into(),
                (&row.username).into(),
                (&row.subject).into(),
                (&row.verb).into(),
                (&row.api_group).into(),
                (&row.resource).into(),
                (&row.subresource).into(),
                Cell::Text(change),
                kind.into(),
                namespace.into(),
                name.into(),
                uid.into(),
            ];
            self.to.row(partition(Table::Effects, row.time, &row.cluster), &cells);
        };
        for object in &settled.objects {
            let change = match object.change {
                Change::Created => "created",
                Change::Modified => "modified",
                Change::Deleted => "deleted",
            };
            effect(change, &object.kind, &object.namespace, &object.name, &object.uid);
        }
        if settled.effect == Effect::Executed {
            effect("executed", &row.resource, &row.namespace, &row.name, "");
        }
    }
}

impl<T: TableRow> RowSink for TableRows<'_, T> {
    fn exchange(&mut self, row: &ExchangeRow, outcome: Option<&ExchangeSettled>) {
        let session = row.session.map(|id| id.to_string());
        let exchange = row.exchange.to_string();
        let timing = &row.timing_us;
        let objects =
            outcome.map_or(0, |settled| settled.object_count.max(settled.objects.len() as u64));
        let cells: [Cell<'_>; 40] = [
            (&exchange).into(),
            session.as_ref().into(),
            (&self.segment).into(),
            (&self.gateway).into(),
            row.command.as_ref().into(),
            row.command_name.as_ref().into(),
            row.time.into(),
            row.task.as_ref().into(),
            (&row.username).into(),
            (&row.subject).into(),
            (&row.verb).into(),
            (&row.api_group).into(),
            (&row.api_version).into(),
            (&row.resource).into(),
            (&row.subresource).into(),
            (&row.namespace).into(),
            (&row.name).into(),
            (&row.path).into(),
            (&row.user_agent).into(),
            row.verdict.map(|verdict| verdict.as_str()).into(),
            row.policies.as_slice().into(),
            (&row.policy_set).into(),
            row.refusal.as_ref().map(|refusal| &refusal.phase).into(),
            row.refusal.as_ref().map(|refusal| &refusal.reason).into(),
            row.suppressed.into(),
            row.status.into(),
            row.ending.map(ending).into(),
            row.effect.as_str().into(),
            objects.into(),
            row.audit_id.as_ref().into(),
            row.request_bytes.into(),
            row.response_bytes.into(),
            timing.identify.into(),
            timing.authorize.into(),
            timing.open.into(),
            timing.upstream.into(),
            timing.total.into(),
            row.account.state.as_str().into(),
            row.account.gap_bytes.into(),
            row.account.reason.as_ref().into(),
        ];
        self.to.row(partition(Table::Exchanges, row.time, &row.cluster), &cells);
        if let Some(settled) = outcome {
            self.effects(row, settled);
        }
    }

    fn session(&mut self, view: &SessionView) {
        let session = view.session.to_string();
        let cells: [Cell<'_>; 22] = [
            (&session).into(),
            (&self.segment).into(),
            (&self.gateway).into(),
            view.kind.as_str().into(),
            view.state.as_str().into(),
            view.reason.map(|reason| reason.as_str()).into(),
            view.task.as_ref().into(),
            (&view.principal.issuer).into(),
            (&view.principal.subject).into(),
            (&view.principal.username).into(),
            view.principal.groups.as_slice().into(),
            view.started.into(),
            view.ended.into(),
            view.last_activity.into(),
            view.exchanges.into(),
            view.denied.into(),
            view.effects.created.into(),
            view.effects.modified.into(),
            view.effects.deleted.into(),
            view.account.state.as_str().into(),
            view.account.gap_bytes.into(),
            view.account.reason.as_ref().into(),
        ];
        self.to.row(partition(Table::Sessions, view.started, &view.cluster), &cells);
    }
}

fn partition(table: Table, time: Timestamp, cluster: &str) -> Partition {
    let text = time.to_string();
    let day = text.split_once('T').map_or(&*text, |(day, _)| day).to_owned();
    // Names in paths: what a configuration allows, whatever a record says.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let cluster = match cluster {
        "" => Cow::Borrowed("_"),
        name => name.chars().map(|c| if plain(c) { c } else { '_' }).collect(),
    };
    Partition { table, day, cluster: cluster.into_owned() }
}

const fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Finished => "finished",
        Ending::TokenExpired => "token_expired",
        Ending::TokenRevoked => "token_revoked",
        Ending::GrantEnded => "grant_ended",
        Ending::Killed => "killed",
        Ending::LimitReached => "limit_reached",
        Ending::ClientLost => "client_lost",
        Ending::UpstreamLost => "upstream_lost",
        Ending::RecorderFailed => "recorder_failed",
        Ending::GatewayStopped => "gateway_stopped",
    }
}
