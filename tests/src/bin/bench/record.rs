//! What the gateway says of its own record: a fast gateway that records less has won nothing.

use anyhow::{Result, ensure};
use rig::gateway::Gateway;

/// Counts of one gateway, or of several.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// How the kernel's account was taken: 1 is the best, 0 means off.
    pub(crate) tier: u64,
    pub(crate) exchanges: u64,
    pub(crate) complete: u64,
    pub(crate) gap: u64,
    pub(crate) unwitnessed: u64,
}

impl Recorded {
    pub(crate) async fn of(gateway: &Gateway) -> Result<Self> {
        let (status, text) = gateway.health("/metrics").await?;
        ensure!(status == 200, "the gateway's metrics: {status}");
        let accounts = |state| sum(&text, ACCOUNTS, &["of=\"exchange\"", state]);
        Ok(Self {
            tier: sum(&text, "decklog_witness_state{", &["what=\"tier\""]),
            exchanges: sum(&text, "decklog_exchanges_total{", &[]),
            complete: accounts("state=\"complete\""),
            gap: accounts("state=\"gap\""),
            unwitnessed: accounts("state=\"unwitnessed\""),
        })
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.tier = other.tier;
        self.exchanges += other.exchanges;
        self.complete += other.complete;
        self.gap += other.gap;
        self.unwitnessed += other.unwitnessed;
    }
}

/// The sum of all samples of a metric with these labels.
fn sum(text: &str, metric: &str, labels: &[&str]) -> u64 {
    text.lines()
        .filter(|line| line.starts_with(metric) && labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

const ACCOUNTS: &str = "decklog_witness_accounts_total{";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_their_labels() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"1\"} 2\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 4\nab{x=\"1\"} 8\n";
        assert_eq!(sum(text, "a{", &["x=\"1\""]), 5);
        assert_eq!(sum(text, "a{", &[]), 9);
    }
}
