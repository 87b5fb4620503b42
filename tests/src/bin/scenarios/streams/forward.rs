//! port-forward: many connections at once, half-open ones, and every kubectl.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::Options;
use rig::kubectl::Kubectl;
use rig::process::Process;
use rig::wait::{Level, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::visit::{LIMIT, Visit};
use crate::scene::Scene;

/// A running `kubectl port-forward`.
struct Forward {
    process: Process,
    port: u16,
}

impl Forward {
    async fn start(visit: &Visit, kubectl: &Kubectl) -> Result<Self> {
        let log: PathBuf =
            visit.scene.directory().join(format!("forward-{}.log", kubectl.version()));
        let command = visit.command_of(kubectl, &["port-forward", "echo", ":7000"]);
        let mut process = Process::start("port-forward", command, &log)?;
        let port = until("port-forward listens", LIMIT, async || {
            process.check()?;
            let said = std::fs::read_to_string(&log)?;
            let rest = said.split("Forwarding from 127.0.0.1:").nth(1);
            let port = rest.and_then(|rest| rest.split_once(" -> ")).map(|(port, _)| port.parse());
            Ok(port.transpose()?.map_or(Level::NotYet(said), Level::Reached))
        })
        .await?;
        Ok(Self { process, port })
    }

    async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?)
    }
}

const CONNECTIONS: usize = 50;

pub(super) async fn many_connections(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "forward", &Options::default()).await?;
    let manifest = rig::node::pods::manifest("echo", &["echod"]);
    let pod = rig::node::pods::Pod::run(&visit.cluster.plane, &visit.namespace, &manifest).await?;
    for kubectl in &scene.world.versions.found {
        let forward = Forward::start(&visit, kubectl).await?;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(forward.connect().await?);
        }
        for (index, stream) in connections.iter_mut().enumerate() {
            stream.write_all(format!("from {index}\n").as_bytes()).await?;
        }
        // One is half-open: it has said all, and still hears.
        connections[0].shutdown().await?;
        for (index, stream) in connections.iter_mut().enumerate() {
            let expected = format!("from {index}\n");
            let mut echoed = vec![0; expected.len()];
            timeout(LIMIT, stream.read_exact(&mut echoed)).await??;
            ensure!(echoed == expected.as_bytes(), "connection {index}: {echoed:?}");
        }
        drop(connections);
        forward.process.kill()?;
    }
    let versions = &scene.world.versions.found;
    let rows = visit.streams("portforward", versions.len()).await?;
    for (row, kubectl) in rows.iter().zip(versions) {
        let shown = visit.shown(row).await?;
        ensure!(shown["ending"] == "finished" && row["account"]["state"] == "complete", "{shown}");
        ensure!(
            shown["stream"]["facts"]["undecodable"].is_null(),
            "{}: {}",
            kubectl.version(),
            shown["stream"]
        );
        let listed = shown["stream"]["connections"].as_array().context("no connections in show")?;
        let echoes = listed.iter().filter(|connection| {
            connection["port"] == 7000
                && connection["sentBytes"].as_u64() >= Some(7)
                && connection["sentBytes"] == connection["receivedBytes"]
        });
        ensure!(echoes.count() == CONNECTIONS, "kubectl {}: {listed:?}", kubectl.version());
    }
    pod.delete().await
}
