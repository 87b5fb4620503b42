//! How long flushes of the store take. The store's flusher counts them; this only shows its counts.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::{Bucket, Histogram, Metric, MetricFamily, MetricType},
};
use recorder_user::store::{SYNC_BOUNDS, SyncHealth};

const NAME: &str = "decklog_store_sync_seconds";
const HELP: &str = "Time of one fdatasync of the store, which serves all who wait for it";

/// The histogram `decklog_store_sync_seconds`.
pub(super) struct SyncTimes(Arc<Mutex<SyncHealth>>);

impl SyncTimes {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let desc = Desc::new(NAME.into(), HELP.into(), Vec::new(), Default::default())?;
        let seen = Arc::new(Mutex::default());
        registry.register(Box::new(Shown { desc, seen: Arc::clone(&seen) }))?;
        Ok(Self(seen))
    }

    pub(super) fn set(&self, health: SyncHealth) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }
}

struct Shown {
    desc: Desc,
    seen: Arc<Mutex<SyncHealth>>,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = SYNC_BOUNDS.iter().zip(seen.within).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_sample_count(seen.count);
        histogram.set_sample_sum(seen.total.as_secs_f64());
        histogram.set_bucket(buckets.collect());
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(NAME.into());
        family.set_help(HELP.into());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_histogram_shows_what_the_store_counts() {
        let registry = Registry::new();
        let times = SyncTimes::register(&registry).expect("registered once");
        let mut health =
            SyncHealth { count: 3, total: Duration::from_millis(60), ..SyncHealth::default() };
        health.within[SYNC_BOUNDS.len() - 1] = 2;
        times.set(health);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        let text = text.expect("valid metrics");
        for line in [
            "decklog_store_sync_seconds_bucket{le=\"0.00005\"} 0",
            "decklog_store_sync_seconds_bucket{le=\"30\"} 2",
            "decklog_store_sync_seconds_bucket{le=\"+Inf\"} 3",
            "decklog_store_sync_seconds_sum 0.06",
            "decklog_store_sync_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
    }
}
