//! The node's address: an interface in the namespace that this process made for itself.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{network, process};

/// A veth pair with both ends here (not every kernel has the dummy device), removed when dropped.
///
/// The kubelet refuses a loopback address. Namespaces differ from run to run, so addresses need not.
#[derive(Debug)]
pub(super) struct Link {
    number: u8,
}

impl Link {
    /// Makes the pair and its address, and lets packets be forwarded between pods.
    pub(super) fn new() -> Result<Self> {
        ensure!(
            network::isolated(),
            "a node needs a network namespace of this process's own, which only root can make"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let link = Self { number };
        let (name, peer) = (link.name(), format!("{}p", link.name()));
        ip(&["link", "add", &name, "type", "veth", "peer", "name", &peer])?;
        ip(&["address", "add", &format!("{}/24", link.address()), "dev", &name])?;
        ip(&["link", "set", &peer, "up"])?;
        ip(&["link", "set", &name, "up"])?;
        // The same for all nodes, and it stays.
        ip(&["address", "replace", &format!("{}/32", network::HOST), "dev", "lo"])?;
        // The kubelet looks for a default route. It leads nowhere.
        ip(&["route", "replace", "default", "dev", &name])?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("let packets be forwarded")?;
        Ok(link)
    }

    /// The node's name, unique in this process.
    pub(super) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// The node's address.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, self.number, 1)
    }

    /// Where its pods get theirs from.
    pub(super) fn pod_subnet(&self) -> String {
        format!("10.88.{}.0/24", self.number)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It goes with the namespace at the latest.
        let _ = ip(&["link", "delete", &self.name()]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    let output = process::run_blocking(command, LIMIT)?;
    ensure!(output.success(), "ip {}: {}", arguments.join(" "), output.stderr.trim());
    Ok(())
}

static NEXT: AtomicU8 = AtomicU8::new(1);
const LIMIT: Duration = Duration::from_secs(20);
