//! What runs in pods, on a real node: exec, attach, logs, cp, port-forward and debug.

mod bulk;
mod commands;
mod direct;
mod exec;
mod faults;
mod forward;
mod held;
mod leavings;
mod outside;
mod policies;
mod protocols;
mod store;
mod visit;

use std::path::Path;

use anyhow::Result;
use rig::controlplane::{self, ControlPlane};
use rig::node::Node;
use rig::tools::Tools;

use crate::runner::{Scenario, scenario};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("streams-exec-every-kubectl", exec::every_kubectl, 300),
        scenario!("streams-exec-terminal", exec::terminal),
        scenario!("streams-exec-long-command", exec::long_command),
        scenario!("streams-protocols", protocols::every_channel_protocol),
        scenario!("streams-forward-numbered", protocols::numbered_forward),
        scenario!("streams-token-among-subprotocols", protocols::token_among_subprotocols),
        scenario!("streams-bulk", bulk::both_ways, 600),
        scenario!("streams-copy", bulk::copy),
        scenario!("streams-forward", forward::many_connections, 300),
        scenario!("streams-debug", commands::debug),
        scenario!("streams-run", commands::run),
        scenario!("streams-logs", commands::logs),
        scenario!("streams-fallback", commands::fallback, 300),
        scenario!("streams-policy-commands", policies::commands),
        scenario!("streams-policy-limits", policies::limits),
        scenario!("streams-policy-proxies", policies::proxies),
        scenario!("streams-token-expires", faults::token_expires),
        scenario!("streams-client-gone", faults::client_gone),
        scenario!("streams-pod-deleted", faults::pod_deleted),
        scenario!("streams-api-server-restarts", faults::api_server_restarts),
        scenario!("streams-gateway-killed", faults::gateway_killed),
        scenario!("streams-ended-from-outside", outside::ended_from_outside, 300),
        scenario!("streams-let-go", held::aborted, 300),
        scenario!("streams-recorder-fails", store::recorder_fails),
        scenario!("streams-direct", direct::direct, 600),
        scenario!("streams-node-leaves-nothing", leavings::leaves_nothing, 600),
        scenario!("streams-node-of-a-killed-run", leavings::killed_run, 600),
    ]
}

/// A control plane with one node, shared by the scenarios of this group. It is not the one that all
/// scenarios share: there, deployments have nobody to run their pods.
pub(crate) struct Cluster {
    // In this order: the node is a client of the plane.
    pub(crate) node: Node,
    pub(crate) plane: ControlPlane,
}

impl Cluster {
    /// Starts one: seconds, when all is built. A limit of ten minutes bears a cold cache.
    pub(crate) async fn start(
        tools: &Tools,
        directory: &Path,
        options: controlplane::Options,
    ) -> Result<Self> {
        let plane = ControlPlane::start(tools, directory, options).await?;
        let node = Node::start(&plane, directory).await?;
        Ok(Self { node, plane })
    }

    /// Where the node keeps the logs of pods.
    pub(crate) fn pod_logs(&self) -> &std::path::Path {
        self.node.pod_logs()
    }

    /// The node's name.
    pub(crate) fn node(&self) -> String {
        self.node.name()
    }
}
