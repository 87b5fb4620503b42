//! The archiver beside the gateway, if the configuration wants one and this gateway was built with it.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config::Config, metrics::Metrics};

/// A running archiver, or none.
pub struct Archiving {
    #[cfg(feature = "archive")]
    health: Option<std::sync::Arc<archive::Health>>,
}

#[cfg(not(feature = "archive"))]
impl Archiving {
    /// Nothing: the configuration cannot ask for an archive.
    pub(crate) const fn start(
        _: &Config,
        _: &TaskTracker,
        _: &CancellationToken,
    ) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Nothing.
    pub(crate) const fn count(&self, _: &Metrics) {}
}

#[cfg(feature = "archive")]
impl Archiving {
    /// Archives until `stop`, in a task of its own.
    ///
    /// # Errors
    /// When the client of the object store cannot be set up. Whether the object store answers does not matter.
    pub(crate) fn start(
        config: &Config,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        use archive::{Archiver, ArchiverOptions, Bucket, BucketOptions, CredentialFiles};

        let Some(wanted) = &config.archive else { return Ok(Self { health: None }) };
        let credentials = &wanted.credentials;
        let bucket = Bucket::open(&BucketOptions {
            url: wanted.url.parse().context("archive.url")?,
            endpoint: wanted.endpoint.clone(),
            region: wanted.region.clone(),
            certificate_authority: wanted.certificate_authority.clone(),
            credentials: CredentialFiles {
                access_key_id: credentials.access_key_id.clone(),
                secret_access_key: credentials.secret_access_key.clone(),
                session_token: credentials.session_token.clone(),
            },
            timeout: wanted.timeout,
            part_bytes: wanted.part_bytes,
        })?;
        let options = ArchiverOptions {
            store: config.store.directory.clone(),
            interval: wanted.interval,
            alarm_after: wanted.alarm_after,
        };
        let archiver = Archiver::new(options, bucket, std::sync::Arc::new(archive::SystemTime))?;
        let health = archiver.health();
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                // cancel-safe: an archiver is.
                () = stop.cancelled() => {}
                () = archiver.run() => {}
            }
        });
        tracing::info!(url = wanted.url, endpoint = wanted.endpoint, "archiving");
        Ok(Self { health: Some(health) })
    }

    /// Sets the metrics.
    pub(crate) fn count(&self, metrics: &Metrics) {
        let Some(health) = &self.health else { return };
        let view = health.view();
        let now = recorder_user::model::Timestamp::now();
        let waited_us = view.oldest_pending.map_or(0, |oldest| now.micros_since(oldest).max(0));
        let last_us = view.last_success.map_or(0, recorder_user::model::Timestamp::as_micros);
        let seconds = |us: i64| std::time::Duration::from_micros(us.unsigned_abs()).as_secs();
        metrics.set_archive(
            &[
                ("pending_segments", view.pending_segments),
                ("pending_bytes", view.pending_bytes),
                ("oldest_pending_seconds", seconds(waited_us)),
                ("archived_segments", view.archived_segments),
                ("archived_bytes", view.archived_bytes),
                ("table_files", view.table_files),
                ("last_success_timestamp_seconds", seconds(last_us)),
                ("alarm", u64::from(view.alarm)),
            ],
            archive::Class::ALL.iter().map(|class| {
                (class.as_str(), view.failures.get(class).copied().unwrap_or_default())
            }),
        );
    }
}
