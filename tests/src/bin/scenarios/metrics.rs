//! Metrics, as a real Prometheus sees them, and health.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rig::gateway::Options;
use rig::prometheus::Prometheus;
use rig::wait::{Level, until};

use crate::leaks;
use crate::runner::{Scenario, scenario};
use crate::scene::Scene;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        // Prometheus is built here when no other run has: minutes.
        scenario!("prometheus-answers-a-p99", prometheus_answers_a_p99, 900),
        scenario!("health-says-what-is-wrong", health_says_what_is_wrong),
    ]
}

async fn prometheus_answers_a_p99(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let prometheus = Prometheus::start(scene.directory(), &gateway.health_address()).await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    let query = "histogram_quantile(0.99, sum by (le) \
                 (rate(decklog_request_duration_seconds_bucket{phase=\"total\"}[10s])))";
    let p99 = until("Prometheus has a p99", Duration::from_secs(60), async || {
        for _ in 0..20 {
            bob.get("/tasks/T-77/api/v1/namespaces").await?.success()?;
        }
        Ok(match prometheus.query(query).await? {
            Some(p99) if p99.is_finite() && p99 > 0.0 => Level::Reached(p99),
            other => Level::NotYet(format!("{other:?}")),
        })
    })
    .await?;
    ensure!(p99 < 100.0, "a p99 of {p99} s");
    println!("      p99 {:.1} ms", p99 * 1000.0);
    let denied = gateway.endpoint().get("/api/v1/namespaces").await?;
    ensure!(denied.status == 401, "{}", denied.status);
    let (status, text) = gateway.health("/metrics").await?;
    ensure!(status == 200, "{status}");
    for name in [
        "decklog_request_duration_seconds_bucket",
        "decklog_added_latency_seconds_bucket",
        "decklog_exchanges_total",
        "decklog_denied_total",
        "decklog_streams_open",
        "decklog_record_bytes_total",
        "decklog_store_",
        "decklog_request_spent_seconds_bucket",
        "decklog_witness_",
        "decklog_sessions_",
    ] {
        ensure!(text.contains(name), "no {name} in\n{text}");
    }
    // No user, no pod, no task in a label.
    for name in ["\"bob\"", "T-77", "agents"] {
        ensure!(!text.contains(name), "{name} in a label");
    }
    leaks::check_text(&scene, "the metrics", &text)
}

async fn health_says_what_is_wrong(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    for path in ["/livez", "/readyz"] {
        let (status, body) = gateway.health(path).await?;
        ensure!(status == 200, "{path}: {status} {body}");
    }
    let (_, verbose) = gateway.health("/readyz?verbose").await?;
    for check in ["store", "rig"] {
        ensure!(verbose.contains(check), "no check {check:?} in {verbose}");
    }
    let (status, _) = gateway.health("/api/v1/namespaces").await?;
    ensure!(status == 404, "the health listener answers for the API: {status}");
    Ok(())
}
