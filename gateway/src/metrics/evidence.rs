//! What the kernel adds to the metrics: where time went, and how far accounts can be believed.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use recorder_user::model::{
    AccountState, ConnectionClosed, ExchangeSettled, Spent, WitnessChanged, WitnessEvent,
};

use super::{counter, gauges, histogram, seconds};

pub(super) struct Evidence {
    spent: HistogramVec,
    accounts: IntCounterVec,
    kernel_verified: IntCounterVec,
    unaccounted_bytes: IntCounterVec,
    unseen_bytes: IntCounterVec,
    retransmits: IntCounterVec,
    changes: IntCounterVec,
    blind: IntGaugeVec,
}

impl Evidence {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let evidence = Self {
            spent: histogram(
                registry,
                "decklog_request_spent_seconds",
                "Time by where it went: queue (in the kernel, before the gateway read), client, gateway, \
                 upstream (the API server and the network to it); they add up to the whole, from the \
                 request's arrival. Without watches and streams.",
                &["where", "cluster", "verb"],
            )?,
            accounts: counter(
                registry,
                "decklog_witness_accounts_total",
                "Accounts by state, of exchanges and of connections",
                &["of", "state"],
            )?,
            kernel_verified: counter(
                registry,
                "decklog_witness_kernel_verified_total",
                "Complete accounts that are kernel-verified, of exchanges and of connections",
                &["of"],
            )?,
            unaccounted_bytes: counter(
                registry,
                "decklog_witness_unaccounted_bytes_total",
                "Bytes of gaps found when connections closed",
                &["role"],
            )?,
            unseen_bytes: counter(
                registry,
                "decklog_witness_unseen_bytes_total",
                "Bytes of connections that passed while the witness was blind",
                &["role"],
            )?,
            retransmits: counter(
                registry,
                "decklog_witness_retransmits_total",
                "Segments that had to be sent again, of connections that closed",
                &["role"],
            )?,
            changes: counter(
                registry,
                "decklog_witness_changes_total",
                "Changes of the witness, such as overflow, detached, heartbeat_missed, recovered",
                &["event"],
            )?,
            blind: gauges(
                registry,
                "decklog_witness_blind",
                "Whether the witness does not see at present: accounts are unwitnessed",
                &[],
            )?,
        };
        // A rate needs a zero to begin with.
        for event in WitnessEvent::ALL {
            evidence.changes.with_label_values(&[event.as_str()]).inc_by(0);
        }
        evidence.blind.with_label_values::<&str>(&[]).set(0);
        Ok(evidence)
    }

    pub(super) fn settled(&self, cluster: &str, verb: &str, settled: &ExchangeSettled) {
        let account = &settled.account;
        self.account("exchange", account.state, account.kernel_verified);
        if let Some(spent) = &settled.spent_us {
            self.spent(cluster, verb, spent);
        }
    }

    fn spent(&self, cluster: &str, verb: &str, spent: &Spent) {
        for (place, us) in [
            ("queue", spent.queue),
            ("client", Some(spent.client)),
            ("gateway", Some(spent.gateway)),
            ("upstream", Some(spent.upstream)),
        ] {
            if let Some(us) = us {
                self.spent.with_label_values(&[place, cluster, verb]).observe(seconds(us));
            }
        }
    }

    fn account(&self, of: &str, state: AccountState, kernel_verified: bool) {
        self.accounts.with_label_values(&[of, state.as_str()]).inc();
        if kernel_verified {
            self.kernel_verified.with_label_values(&[of]).inc();
        }
    }

    pub(super) fn closed(&self, closed: &ConnectionClosed) {
        let account = &closed.account;
        self.account("connection", account.state, account.kernel_verified);
        if account.state == AccountState::Gap {
            self.unaccounted_bytes.with_label_values(&[&closed.role]).inc_by(account.gap_bytes);
        }
        if account.unseen_bytes > 0 {
            self.unseen_bytes.with_label_values(&[&closed.role]).inc_by(account.unseen_bytes);
        }
        let retransmits = closed.evidence.span.as_ref().map_or(0, |span| span.retransmits);
        self.retransmits.with_label_values(&[&closed.role]).inc_by(retransmits);
    }

    pub(super) fn changed(&self, changed: &WitnessChanged) {
        self.changes.with_label_values(&[changed.event.as_str()]).inc();
        self.blind.with_label_values::<&str>(&[]).set(changed.blind.into());
    }
}
