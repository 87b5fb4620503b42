//! How much went round the gateway, in numbers.

/// Numbers for metrics. All but the last two only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BypassCounts {
    /// Connections that were reported.
    pub reported: u64,
    /// Connections that are allowed.
    pub allowed: u64,
    /// Bytes that processes sent through reported connections that are over.
    pub reported_sent_bytes: u64,
    /// Bytes that processes received through such.
    pub reported_received_bytes: u64,
    /// Bytes that processes sent through allowed connections that are over.
    pub allowed_sent_bytes: u64,
    /// Bytes that processes received through such.
    pub allowed_received_bytes: u64,
    /// Reported connections that came too fast to be recorded one by one.
    pub aggregated: u64,
    /// Connections that failed to be made.
    pub failed: u64,
    /// Connections whose end was not seen.
    pub unseen_ends: u64,
    /// Connections above the bound of those that are followed: they were reported when they ended.
    pub untracked: u64,
    /// Strangers on the gateway's sockets.
    pub intruders: u64,
    /// Strangers on the gateway's port.
    pub ports: u64,
    /// Reported connections that are open.
    pub reported_open: u64,
    /// Allowed connections that are open.
    pub allowed_open: u64,
}
