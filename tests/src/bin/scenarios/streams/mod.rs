//! What runs in pods, on a real node: exec, attach, logs, cp, port-forward and debug.

mod direct;
mod leavings;

use std::path::Path;

use anyhow::Result;
use rig::controlplane::{self, ControlPlane};
use rig::node::Node;
use rig::tools::Tools;

use crate::runner::{Scenario, scenario};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("streams-direct", direct::direct, 600),
        scenario!("streams-node-leaves-nothing", leavings::leaves_nothing, 600),
        scenario!("streams-node-of-a-killed-run", leavings::killed_run, 600),
    ]
}

/// A control plane with one node, shared by the scenarios of this group. It is not the one that all
/// scenarios share: there, deployments have nobody to run their pods.
pub(crate) struct Cluster {
    // In this order: the node is a client of the plane.
    _node: Node,
    pub(crate) plane: ControlPlane,
}

impl Cluster {
    /// Starts one: seconds, when all is built. A limit of ten minutes bears a cold cache.
    pub(crate) async fn start(tools: &Tools, directory: &Path) -> Result<Self> {
        let plane = ControlPlane::start(tools, directory, controlplane::Options::default()).await?;
        let node = Node::start(&plane, directory).await?;
        Ok(Self { _node: node, plane })
    }
}
