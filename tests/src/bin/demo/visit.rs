//! What the agent does, and what is shown of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rig::kubectl::succeeded;
use rig::process::Output;
use rig::wait::{Level, until};
use serde_json::{Value, json};

use crate::World;

/// The agent's label for why it is here.
pub(crate) const TASK: &str = "T-1042";
/// Where it works.
pub(crate) const NAMESPACE: &str = "decklog-demo";
/// The agent may do anything, but nobody deletes anything in production.
pub(crate) const POLICY: &str = r#"
@id("agents-work")
permit (principal in k8s::Group::"agents", action, resource);

@id("no-deletes-in-production")
forbid (
  principal,
  action in [k8s::Action::"delete", k8s::Action::"deletecollection"],
  resource is k8s::Resource
)
when { resource has namespace && resource.namespace == "production" };
"#;

/// As administrator, round the gateway: a namespace, something to see and delete in it, and the agent's rights.
pub(crate) async fn prepare(world: &World) -> Result<()> {
    let subject = json!([{"kind": "User", "name": "agent-7", "apiGroup": RBAC}]);
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "old-settings", "namespace": NAMESPACE}, "data": {"mode": "old"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "database", "namespace": NAMESPACE}, "stringData": {"password": "demo-only"},
        }),
        json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding",
            "metadata": {"name": "decklog-demo", "namespace": NAMESPACE}, "subjects": subject,
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "admin"},
        }),
    ];
    if !world.own_cluster {
        objects.push(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "production"}}),
        );
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = world.home.join("prepare.json");
    std::fs::write(&file, list.to_string())?;
    let output =
        kubectl(world, &world.admin, &["apply", "-f", &file.display().to_string()]).await?;
    succeeded(output).context("prepare the namespace")?;
    let namespace = format!("--namespace={NAMESPACE}");
    let context = ["config", "set-context", "--current", &namespace];
    let output = kubectl(world, &world.agent, &context).await?;
    succeeded(output).context("set the agent's namespace").map(drop)
}

/// The agent's visit, shown as it goes.
pub(crate) async fn play(world: &World) -> Result<()> {
    let manifest = world.home.join("web.json");
    std::fs::write(&manifest, deployment().to_string())?;
    let manifest = manifest.display().to_string();
    for (arguments, expected) in [
        (&["get", "configmaps"][..], Expected::Fine),
        (&["apply", "-f", &manifest], Expected::Fine),
        (&["scale", "deployment/web", "--replicas=3"], Expected::Fine),
        (&["label", "deployment/web", "tier=front"], Expected::Fine),
        (&["get", "deployments", "--watch", "--request-timeout=3s"], Expected::Watch),
        (&["get", "secret", "database", "-o", "jsonpath={.metadata.name} is read"], Expected::Fine),
        (&["delete", "configmap", "old-settings"], Expected::Fine),
        (&["delete", "namespace", "production"], Expected::Refused),
    ] {
        println!("agent-7$ kubectl {}", arguments.join(" "));
        let output = match expected {
            Expected::Watch => watch(world, arguments).await?,
            Expected::Fine | Expected::Refused => kubectl(world, &world.agent, arguments).await?,
        };
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            println!("  {line}");
        }
        match expected {
            Expected::Fine => ensure!(output.success(), "that should have worked"),
            Expected::Refused => {
                ensure!(
                    output.stderr.contains("no-deletes-in-production"),
                    "that should have been refused"
                );
            }
            Expected::Watch => {}
        }
    }
    Ok(())
}

/// Something changes while the agent watches, so that there is something to see.
async fn watch(world: &World, arguments: &[&str]) -> Result<Output> {
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        kubectl(world, &world.agent, &["scale", "deployment/web", "--replicas=2"]).await
    };
    let (watched, changed) = tokio::join!(kubectl(world, &world.agent, arguments), change);
    succeeded(changed?).context("scale during the watch")?;
    watched
}

#[derive(Clone, Copy)]
enum Expected {
    Fine,
    Refused,
    /// Its own time limit ends it, which is an error to some versions of kubectl.
    Watch,
}

/// Sessions, replay, and how long it took.
pub(crate) async fn show_record(world: &World) -> Result<()> {
    let recorder = world.gateway.recorder()?;
    let rows = until("the refusal is in the record", Duration::from_secs(10), async || {
        let rows = recorder.search(&["--task", TASK]).await?;
        let refused = rows.iter().any(|row| row["verdict"] == "deny");
        Ok(if refused {
            Level::Reached(rows)
        } else {
            Level::NotYet(format!("{} rows", rows.len()))
        })
    })
    .await?;
    println!("\n$ recorder ls");
    show(recorder.run(&["ls"]).await?)?;
    let sessions = recorder.sessions().await?;
    let session = sessions.iter().find(|session| session["task"] == TASK).context("no session")?;
    let id = session["session"].as_str().context("a session has an id")?;
    println!("\n$ recorder replay {id} --at-once");
    show(recorder.run(&["replay", id, "--at-once"]).await?)?;
    println!("\n$ recorder verify");
    show(recorder.run(&["verify"]).await?)?;
    match p99_added(&rows) {
        Some((p99, requests)) => {
            println!("\np99 of what the gateway added to {requests} requests: {p99:.1} ms");
        }
        None => bail!("the record has no timings"),
    }
    Ok(())
}

/// The 99th percentile of total less upstream, in ms, and of how many requests; nobody waits
/// for a watch to end.
fn p99_added(rows: &[Value]) -> Option<(f64, usize)> {
    let mut added: Vec<_> = rows
        .iter()
        .filter(|row| row["verb"] != "watch" && row["verdict"] == "allow")
        .filter_map(|row| {
            let timing = &row["timingUs"];
            Some(timing["total"].as_u64()?.saturating_sub(timing["upstream"].as_u64()?))
        })
        .collect();
    added.sort_unstable();
    let last = added.len().checked_sub(1)?;
    let p99 = added[(added.len() * 99 / 100).min(last)];
    Some((Duration::from_micros(p99).as_secs_f64() * 1000.0, added.len()))
}

/// Removes what [`prepare`] made in a cluster that goes on without us.
pub(crate) async fn tidy(world: &World) -> Result<()> {
    if !world.own_cluster {
        return Ok(());
    }
    println!("\ndemo: removing the namespace {NAMESPACE}");
    let output =
        kubectl(world, &world.admin, &["delete", "namespace", NAMESPACE, "--wait=false"]).await?;
    succeeded(output).context("remove the namespace").map(drop)
}

fn show(output: Output) -> Result<()> {
    print!("{}", output.stdout);
    ensure!(output.success(), "exit {:?}: {}", output.code, output.stderr);
    Ok(())
}

async fn kubectl(world: &World, kubeconfig: &Path, arguments: &[&str]) -> Result<Output> {
    world.kubectl.run(&world.home, kubeconfig, arguments).await
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "example.test/web:1"}]},
            },
        },
    })
}

const RBAC: &str = "rbac.authorization.k8s.io";
