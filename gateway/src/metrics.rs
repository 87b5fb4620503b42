//! Every metric, registered in one place. Labels are bounded: no user, no pod, no task.

use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use recorder_user::{
    model::{ConnectionClosed, ExchangeSettled, Timing, WitnessChanged},
    store::{RetentionHealth, StoreHealth},
    witness::WitnessStats,
};

mod evidence;
mod sync_times;

use evidence::Evidence;
use sync_times::SyncTimes;

use crate::{bypass::BypassStats, identify};

/// From 50 µs to 100 s.
const BUCKETS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_5, 0.003, 0.006, 0.012, 0.025, 0.05, 0.1,
    0.2, 0.4, 0.8, 1.5, 3.0, 10.0, 30.0, 100.0,
];

/// The gateway's counters.
pub struct Metrics {
    registry: Registry,
    request_duration: HistogramVec,
    added_latency: HistogramVec,
    exchanges: IntCounterVec,
    denied: IntCounterVec,
    streams_open: IntGauge,
    sessions_open: IntGauge,
    connections_open: IntGaugeVec,
    upstream_failures: IntCounterVec,
    upstream_up: IntGaugeVec,
    record_bytes: IntCounterVec,
    store: GaugeVec,
    syncs: SyncTimes,
    evidence: Evidence,
    witness: GaugeVec,
    bypasses: IntCounterVec,
    bypass_bytes: IntCounterVec,
    bypasses_open: IntGaugeVec,
    bypass_events: IntCounterVec,
    identity: GaugeVec,
    pruned_segments: IntCounterVec,
    pruned_bytes: IntCounterVec,
    held_sessions: IntGauge,
    #[cfg(feature = "archive")]
    archive: GaugeVec,
    #[cfg(feature = "archive")]
    archive_failures: IntCounterVec,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// When two metrics have the same name: a defect.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        Ok(Self {
            request_duration: histogram(
                &registry,
                "decklog_request_duration_seconds",
                "Time by phase: identify, authorize, open, upstream, total; of watches only up to open.",
                &["phase", "cluster", "verb", "code"],
            )?,
            added_latency: histogram(
                &registry,
                "decklog_added_latency_seconds",
                "Total time less the time that the API server took",
                &["cluster", "verb"],
            )?,
            exchanges: counter(
                &registry,
                "decklog_exchanges_total",
                "Exchanges settled, by what they did",
                &["cluster", "verb", "code", "effect"],
            )?,
            denied: counter(
                &registry,
                "decklog_denied_total",
                "Requests that the gateway refused, by phase",
                &["cluster", "phase", "code"],
            )?,
            streams_open: gauge(
                &registry,
                "decklog_streams_open",
                "Watches, followed logs and upgraded connections that are open",
            )?,
            sessions_open: gauge(&registry, "decklog_sessions_open", "Sessions that are open")?,
            connections_open: gauges(
                &registry,
                "decklog_connections_open",
                "Connections by role",
                &["role"],
            )?,
            upstream_failures: counter(
                &registry,
                "decklog_upstream_failures_total",
                "Requests that got no response from the API server",
                &["cluster"],
            )?,
            upstream_up: gauges(
                &registry,
                "decklog_upstream_up",
                "Whether the API server was reachable when it was last checked",
                &["cluster"],
            )?,
            record_bytes: counter(
                &registry,
                "decklog_record_bytes_total",
                "Body bytes by direction: passed, and stored after redaction",
                &["direction", "what"],
            )?,
            store: float_gauges(
                &registry,
                "decklog_store_state",
                "The store: writable (0 or 1), failures, written_bytes, records, writes, queue_bytes, \
                 queue_bytes_max, segment_bytes, unsealed_seconds, free_bytes, free_floor_bytes, \
                 low_space (0 or 1), free_files",
                &["what"],
            )?,
            syncs: SyncTimes::register(&registry)?,
            evidence: Evidence::register(&registry)?,
            witness: float_gauges(
                &registry,
                "decklog_witness_state",
                "The witness: tier (1 to 5, 0 off), self_test (0 or 1), events, lost",
                &["what"],
            )?,
            bypasses: counter(
                &registry,
                "decklog_witness_bypass_connections_total",
                "Connections from this node to an API server that went round the gateway, by verdict: reported, \
                 allowed. Alert on any that is reported",
                &["verdict"],
            )?,
            bypass_bytes: counter(
                &registry,
                "decklog_witness_bypass_bytes_total",
                "Bytes of such connections that are over, by verdict, sent and received",
                &["verdict", "direction"],
            )?,
            bypasses_open: gauges(
                &registry,
                "decklog_witness_bypass_open",
                "Such connections that are open, by verdict",
                &["verdict"],
            )?,
            bypass_events: counter(
                &registry,
                "decklog_witness_bypass_events_total",
                "What else happened: intruder (a stranger on a socket of the gateway), port (a stranger on its \
                 port), aggregated (too fast to be recorded one by one), failed (never connected), \
                 unseen_end, untracked, unrecorded (kept until the store works), clients_dropped, lists_failed",
                &["what"],
            )?,
            identity: float_gauges(
                &registry,
                "decklog_identity_state",
                "Token verification: cache_hits, cache_misses, cache_entries, key_fetches, key_failures, keys",
                &["what"],
            )?,
            pruned_segments: counter(
                &registry,
                "decklog_store_pruned_segments_total",
                "Segments that retention deleted whole",
                &[],
            )?,
            pruned_bytes: counter(
                &registry,
                "decklog_store_pruned_bytes_total",
                "Bytes of the disk of segments that retention deleted whole, and of the payloads of other \
                 records that it deleted",
                &[],
            )?,
            held_sessions: gauge(
                &registry,
                "decklog_store_held_sessions",
                "Sessions in the store that legal holds keep, when retention last looked",
            )?,
            #[cfg(feature = "archive")]
            archive: float_gauges(
                &registry,
                "decklog_archive_state",
                "The archive: pending_segments, pending_bytes, oldest_pending_seconds, archived_segments, \
                 archived_bytes, table_files, last_success_timestamp_seconds, alarm (0 or 1)",
                &["what"],
            )?,
            #[cfg(feature = "archive")]
            archive_failures: counter(
                &registry,
                "decklog_archive_failures_total",
                "Failed attempts to archive, by class",
                &["class"],
            )?,
            registry,
        })
    }

    /// An exchange is over.
    pub fn settled(&self, cluster: &str, verb: &str, settled: &ExchangeSettled, live: bool) {
        let (verb, code) = (known_verb(verb), class(settled.status));
        let timing = settled.timing_us;
        self.phases(cluster, verb, code, &timing, live);
        if !live {
            self.added_latency
                .with_label_values(&[cluster, verb])
                .observe(seconds(timing.total.saturating_sub(timing.upstream)));
        }
        self.exchanges.with_label_values(&[cluster, verb, code, settled.effect.as_str()]).inc();
        self.evidence.settled(cluster, verb, settled);
        for (direction, body) in [("request", &settled.request), ("response", &settled.response)] {
            self.record_bytes.with_label_values(&[direction, "passed"]).inc_by(body.bytes);
            self.record_bytes.with_label_values(&[direction, "stored"]).inc_by(body.stored_bytes);
        }
    }

    /// The gateway refused a request.
    pub fn refused(&self, cluster: &str, verb: &str, phase: &str, status: u16, timing: &Timing) {
        self.denied.with_label_values(&[cluster, phase, class(status)]).inc();
        self.phases(cluster, known_verb(verb), class(status), timing, false);
    }

    /// Phases that were not reached took no time and are left out; a watch lasts as long as its client
    /// wants, which is nobody's latency.
    fn phases(&self, cluster: &str, verb: &str, code: &str, timing: &Timing, live: bool) {
        for (phase, us) in [
            ("identify", Some(timing.identify)),
            ("authorize", Some(timing.authorize).filter(|us| *us > 0)),
            ("open", Some(timing.open).filter(|us| *us > 0)),
            ("upstream", Some(timing.upstream).filter(|us| *us > 0 && !live)),
            ("total", Some(timing.total).filter(|_| !live)),
        ] {
            if let Some(us) = us {
                self.request_duration
                    .with_label_values(&[phase, cluster, verb, code])
                    .observe(seconds(us));
            }
        }
    }

    /// The API server of `cluster` gave no response.
    pub fn upstream_failed(&self, cluster: &str) {
        self.upstream_failures.with_label_values(&[cluster]).inc();
    }

    /// Whether the API server of `cluster` is reachable.
    pub fn upstream_up(&self, cluster: &str, up: bool) {
        self.upstream_up.with_label_values(&[cluster]).set(i64::from(up));
    }

    /// An exchange began; `live` if it is a watch or a followed log.
    pub fn stream_opened(&self, live: bool) {
        self.streams_open.add(i64::from(live));
    }

    /// The counterpart of [`Self::stream_opened`].
    pub fn stream_closed(&self, live: bool) {
        self.streams_open.sub(i64::from(live));
    }

    /// A connection was made.
    pub fn connection_opened(&self, role: &str) {
        self.connections_open.with_label_values(&[role]).inc();
    }

    /// A connection was closed, with its final account.
    pub fn connection_closed(&self, closed: &ConnectionClosed) {
        self.connections_open.with_label_values(&[&closed.role]).dec();
        self.evidence.closed(closed);
    }

    /// The witness lost something, or sees again.
    pub fn witness_changed(&self, changed: &WitnessChanged) {
        self.evidence.changed(changed);
    }

    /// Sets what others count.
    pub fn set_sessions(&self, open: usize) {
        self.sessions_open.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Sets what the store counts.
    pub fn set_store(&self, health: &StoreHealth) {
        for (what, value) in [
            ("writable", u64::from(health.writable)),
            ("failures", health.epoch),
            ("written_bytes", health.written_bytes),
            ("records", health.records),
            ("writes", health.writes),
            ("queue_bytes", health.queue_bytes as u64),
            ("queue_bytes_max", health.queue_bytes_max as u64),
            ("segment_bytes", health.segment_bytes),
            ("unsealed_seconds", health.segment_begun.elapsed().as_secs()),
            ("free_floor_bytes", health.floor_bytes),
            ("low_space", u64::from(health.low_space)),
        ] {
            self.store.with_label_values(&[what]).set(number(value));
        }
        // What cannot be told is absent: zero would be an alarm.
        let space = health.space;
        for (what, value) in [
            ("free_bytes", space.map(|space| space.free_bytes)),
            ("free_files", space.and_then(|space| space.free_files)),
        ] {
            if let Some(value) = value {
                self.store.with_label_values(&[what]).set(number(value));
            }
        }
        self.syncs.set(health.sync);
    }

    /// Sets what the witness counts.
    pub fn set_witness(&self, stats: &WitnessStats) {
        for (what, value) in stats.gauges() {
            self.witness.with_label_values(&[what]).set(value);
        }
    }

    /// Sets what is counted of connections round the gateway.
    pub fn set_bypass(&self, stats: &BypassStats) {
        let counts = &stats.bypass;
        let raise = |counter: &IntCounterVec, labels: &[&str], total: u64| {
            let counter = counter.with_label_values(labels);
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        for (verdict, connections, open, sent, received) in [
            (
                "reported",
                counts.reported,
                counts.reported_open,
                counts.reported_sent_bytes,
                counts.reported_received_bytes,
            ),
            (
                "allowed",
                counts.allowed,
                counts.allowed_open,
                counts.allowed_sent_bytes,
                counts.allowed_received_bytes,
            ),
        ] {
            raise(&self.bypasses, &[verdict], connections);
            raise(&self.bypass_bytes, &[verdict, "sent"], sent);
            raise(&self.bypass_bytes, &[verdict, "received"], received);
            let open = i64::try_from(open).unwrap_or(i64::MAX);
            self.bypasses_open.with_label_values(&[verdict]).set(open);
        }
        for (what, total) in [
            ("intruder", counts.intruders),
            ("port", counts.ports),
            ("aggregated", counts.aggregated),
            ("failed", counts.failed),
            ("unseen_end", counts.unseen_ends),
            ("untracked", counts.untracked),
            ("unrecorded", stats.unrecorded),
            ("clients_dropped", stats.clients_dropped),
            ("lists_failed", stats.lists_failed),
        ] {
            raise(&self.bypass_events, &[what], total);
        }
    }

    /// Sets what token verification counts.
    pub fn set_identity(&self, stats: &identify::Stats) {
        let sum = |of: fn(&identify::IssuerStats) -> u64| stats.issuers.iter().map(of).sum::<u64>();
        for (what, value) in [
            ("cache_hits", stats.cache_hits),
            ("cache_misses", stats.cache_misses),
            ("cache_entries", stats.cache_entries),
            ("key_fetches", sum(|issuer| issuer.fetches)),
            ("key_failures", sum(|issuer| issuer.failures)),
            ("keys", sum(|issuer| issuer.keys)),
        ] {
            self.identity.with_label_values(&[what]).set(number(value));
        }
    }

    /// Sets what retention counts.
    pub fn set_retention(&self, health: &RetentionHealth) {
        for (counter, total) in
            [(&self.pruned_segments, health.segments), (&self.pruned_bytes, health.bytes)]
        {
            let counter = counter.with_label_values::<&str>(&[]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.held_sessions.set(i64::try_from(health.held_sessions).unwrap_or(i64::MAX));
    }

    /// Sets what the archiver counts; without one these metrics have no values.
    #[cfg(feature = "archive")]
    pub fn set_archive(
        &self,
        state: &[(&str, u64)],
        failures: impl Iterator<Item = (&'static str, u64)>,
    ) {
        for (what, value) in state {
            self.archive.with_label_values(&[what]).set(number(*value));
        }
        for (class, total) in failures {
            let counter = self.archive_failures.with_label_values(&[class]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// The Prometheus text format.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics not encoded");
        }
        text
    }
}

/// The verbs that have a label of their own; clients choose methods freely.
fn known_verb(verb: &str) -> &'static str {
    const VERBS: [&str; 11] = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "proxy",
        "post",
        "put",
    ];
    VERBS.iter().find(|known| **known == verb).copied().unwrap_or("other")
}

/// Counts lose no precision below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn number(count: u64) -> f64 {
    count as f64
}

const fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    let metric = HistogramVec::new(options, labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn float_gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, prometheus::Error> {
    let metric = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
