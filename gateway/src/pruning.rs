//! Deletes at intervals what the configuration does not keep.

use std::sync::Arc;

use recorder_user::store::{PruneOrder, PruneReport, Retention};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config;

/// Works until `stop`. A deletion that is under way then is finished, since the store closes only when all tasks
/// have ended.
pub(crate) async fn prune_at_intervals(
    retention: Arc<Retention>,
    tasks: TaskTracker,
    kept: config::Retention,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(kept.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // cancel-safe: both only wait.
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let retention = Arc::clone(&retention);
        let order = PruneOrder { rules: kept.rules, who: None, dry_run: false };
        let done = tasks.spawn_blocking(move || retention.prune(&order)).await;
        match done {
            Ok(Ok(report)) => tell(&report),
            Ok(Err(error)) => {
                let error = anyhow::Error::from(error);
                tracing::error!(error = %format_args!("{error:#}"), "nothing, or not all, was deleted");
            }
            Err(error) => tracing::error!(%error, "the deletion ended early"),
        }
    }
}

fn tell(report: &PruneReport) {
    if let Some(untouched) = report.untouched.first() {
        let (segment, count) = (untouched.segment, report.untouched.len());
        tracing::warn!(%segment, why = untouched.why, count, "segments that should be deleted are not");
    }
    if !report.is_empty() {
        tracing::info!(
            segments = report.segments.len(),
            bytes = report.segment_bytes,
            records = report.records,
            record_bytes = report.record_bytes,
            "deleted what is not to be kept"
        );
    }
}
