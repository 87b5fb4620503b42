//! A rolling restart while clients create things: whatever was acknowledged is on record.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use rig::wait::{Level, until};
use serde_json::json;

use super::deploy::Deployment;

/// Clients at once.
const CLIENTS: usize = 4;
/// How many each creates after the restart, at least.
const AFTERWARDS: usize = 10;

#[derive(Default)]
struct Load {
    /// Names whose creation was answered with 201.
    acknowledged: RefCell<BTreeSet<String>>,
    /// Attempts that were not answered: the gateway was not there.
    retries: Cell<usize>,
    restarted: Cell<bool>,
}

/// Restarts the deployment under load and looks for what was acknowledged.
pub(super) async fn under_load(deployment: &Deployment<'_>) -> Result<()> {
    let plane = &deployment.cluster.plane;
    let namespace = &*format!("load-{}", deployment.name());
    plane.namespace(namespace).await?;
    let token = deployment.token("alice").await?;
    let load = Load::default();
    let restart = async {
        deployment.kubectl(&["rollout", "restart", "daemonset/decklog", "-n", "decklog"]).await?;
        deployment.rolled_out().await?;
        load.restarted.set(true);
        anyhow::Ok(())
    };
    let clients = async {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let each = |client| create(&load, deployment, &token, &path, client);
        tokio::try_join!(each(0), each(1), each(2), each(3)).map(drop)
    };
    tokio::try_join!(restart, clients)?;
    ensure!(load.retries.get() > 0, "nobody noticed the restart: there was no load");
    let acknowledged = load.acknowledged.into_inner();
    ensure!(acknowledged.len() > CLIENTS * AFTERWARDS, "{} requests", acknowledged.len());
    let recorder = deployment.recorder()?;
    until("whatever was acknowledged is on record", LIMIT, async || {
        let rows = recorder.search(&["--namespace", namespace]).await?;
        let recorded: BTreeSet<_> = rows
            .iter()
            .filter(|row| row["status"] == 201 && row["account"]["state"] == "complete")
            .filter_map(|row| row["objects"][0]["name"].as_str())
            .map(str::to_owned)
            .collect();
        let missing: Vec<_> = acknowledged.difference(&recorded).collect();
        Ok(Level::when(missing.is_empty(), || format!("{missing:?} of {}", acknowledged.len())))
    })
    .await
}

/// Creates one after the other, each as often as it takes.
async fn create(
    load: &Load,
    deployment: &Deployment<'_>,
    token: &str,
    path: &str,
    client: usize,
) -> Result<()> {
    let (mut number, mut afterwards) = (0, 0);
    while afterwards < AFTERWARDS {
        let name = format!("load-{client}-{number}");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        // The new pod has another address.
        let reply = match deployment.endpoint().await {
            Ok(gateway) => gateway.bearer(token).json("POST", path, &object).await,
            Err(error) => Err(error),
        };
        match reply {
            Ok(reply) if reply.status == StatusCode::CREATED => {
                load.acknowledged.borrow_mut().insert(name);
            }
            // An attempt whose answer was lost has done it.
            Ok(reply) if reply.status == StatusCode::CONFLICT => {}
            Ok(reply) if reply.status.is_server_error() => {
                again(load).await;
                continue;
            }
            Ok(reply) => drop(reply.success().context("create")?),
            Err(_) => {
                again(load).await;
                continue;
            }
        }
        number += 1;
        afterwards += usize::from(load.restarted.get());
    }
    Ok(())
}

async fn again(load: &Load) {
    load.retries.set(load.retries.get() + 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
}

const LIMIT: Duration = Duration::from_secs(30);
