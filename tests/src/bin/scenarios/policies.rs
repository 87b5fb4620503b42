//! The shipped example policies, as kubectl meets them; and what a refusal looks like and leaves behind.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::{Gateway, Options};
use rig::policy::examples;
use rig::wait::{Level, until};
use serde_json::json;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("example-policies-together", example_policies_together),
        scenario!("example-policies-alone", example_policies_alone),
        scenario!("refusal-names-its-policy", refusal_names_its_policy),
        scenario!("policy-reloads-live", policy_reloads_live),
    ]
}

/// May it pass?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
}
use Answer::{No, Yes};

async fn example_policies_together(scene: Rc<Scene>) -> Result<()> {
    let options = Options {
        access: examples("access")?,
        recording: examples("recording")?,
        ..Options::default()
    };
    let gateway = scene.gateway(&options).await?;
    prepare(&scene).await?;
    visits(&scene, &gateway, TOGETHER).await
}

const TOGETHER: &[(&str, &[&str], Answer)] = &[
    // Read-only agents.
    ("bob", &["get", "configmaps", "-n", "production"], Yes),
    ("bob", &["get", "pods", "--all-namespaces"], Yes),
    ("bob", &["get", "namespaces"], Yes),
    ("bob", &["auth", "can-i", "--list"], Yes),
    ("bob", &["get", "secrets", "-n", "shop"], No),
    ("bob", &["get", "secrets", "--all-namespaces"], No),
    ("bob", &["create", "configmap", "x", "-n", "shop"], No),
    ("bob", &["delete", "configmap", "keep", "-n", "shop"], No),
    ("bob", &["label", "namespace", "shop", "a=b"], No),
    ("bob", &["create", "token", "default", "-n", "shop"], No),
    // Agents of one namespace.
    ("carol", &["create", "configmap", "made", "-n", "shop"], Yes),
    ("carol", &["label", "configmap", "made", "a=b", "-n", "shop"], Yes),
    ("carol", &["delete", "configmap", "made", "-n", "shop"], Yes),
    ("carol", &["create", "configmap", "made", "-n", "production"], No),
    ("carol", &["delete", "namespace", "shop", "--wait=false"], No),
    ("carol", &["create", "token", "default", "-n", "shop"], No),
    (
        "carol",
        &["create", "rolebinding", "x", "--clusterrole=admin", "--user=carol", "-n", "shop"],
        No,
    ),
    // Nobody deletes in production.
    ("erin", &["create", "configmap", "made", "-n", "production"], Yes),
    ("erin", &["delete", "configmap", "made", "-n", "production"], No),
    ("erin", &["delete", "configmaps", "--all", "-n", "production"], No),
    ("erin", &["delete", "namespace", "production", "--wait=false"], No),
    (
        "erin",
        &["create", "-f", "EVICTION", "--raw", "/api/v1/namespaces/production/pods/web-0/eviction"],
        No,
    ),
    ("erin", &["delete", "configmap", "made-shop", "-n", "shop", "--ignore-not-found"], Yes),
    // Unless glass is broken.
    ("frank", &["delete", "configmap", "made", "-n", "production"], Yes),
    // Who is in no group gets nothing; and nobody becomes somebody else.
    ("nobody", &["get", "configmaps", "-n", "shop"], No),
    ("nobody", &["get", "--raw", "/version"], No),
    ("erin", &["get", "configmaps", "-n", "shop", "--as", "frank"], No),
    ("frank", &["get", "configmaps", "-n", "shop", "--as", "system:admin"], No),
];

/// Each file works alone, as its comment says.
async fn example_policies_alone(scene: Rc<Scene>) -> Result<()> {
    prepare(&scene).await?;
    for (file, expected) in ALONE {
        let text = examples("access")?.into_iter().find(|(name, _)| name == file);
        let text = text.with_context(|| format!("{file} is not shipped"))?;
        let options =
            Options { name: file.replace('.', "-"), access: vec![text], ..Options::default() };
        let gateway = scene.gateway(&options).await.with_context(|| (*file).to_owned())?;
        visits(&scene, &gateway, expected).await.with_context(|| (*file).to_owned())?;
    }
    Ok(())
}

type Visit<'a> = (&'a str, &'a [&'a str], Answer);

const ALONE: &[(&str, &[Visit<'_>])] = &[
    (
        "read-only-agents.cedar",
        &[
            ("bob", &["get", "configmaps", "-n", "shop"], Yes),
            ("bob", &["create", "configmap", "x", "-n", "shop"], No),
            ("frank", &["get", "configmaps", "-n", "shop"], No),
        ],
    ),
    (
        "namespaced-agents.cedar",
        &[
            ("carol", &["get", "configmaps", "-n", "shop"], Yes),
            ("carol", &["get", "configmaps", "-n", "production"], No),
            ("carol", &["get", "configmaps", "--all-namespaces"], No),
            ("bob", &["get", "configmaps", "-n", "shop"], No),
        ],
    ),
    (
        "no-deletes-in-production.cedar",
        &[
            ("frank", &["get", "configmaps", "-n", "shop"], No),
            ("bob", &["get", "configmaps", "-n", "shop"], No),
        ],
    ),
    (
        "break-glass.cedar",
        &[
            ("frank", &["get", "secrets", "-n", "production"], Yes),
            ("bob", &["get", "configmaps", "-n", "shop"], No),
        ],
    ),
    (
        "platform.cedar",
        &[
            ("erin", &["get", "configmaps", "-n", "shop"], Yes),
            ("frank", &["get", "configmaps", "-n", "shop"], No),
        ],
    ),
];

async fn prepare(scene: &Scene) -> Result<()> {
    for namespace in ["shop", "production"] {
        scene.plane().namespace(namespace).await?;
        scene.plane().config_map(namespace, "keep", &json!({"a": "1"})).await?;
    }
    scene.manifest(
        "eviction.json",
        &json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-0"}}),
    )?;
    Ok(())
}

async fn visits(scene: &Scene, gateway: &Gateway, expected: &[Visit<'_>]) -> Result<()> {
    let eviction = scene.directory().join("eviction.json").display().to_string();
    for (user, arguments, answer) in expected {
        let kubeconfig = gateway.kubeconfig(user, &scene.token(user).await?, None)?;
        let arguments: Vec<_> = arguments
            .iter()
            .map(|&argument| if argument == "EVICTION" { eviction.as_str() } else { argument })
            .collect();
        let output = scene.run(&kubeconfig, &arguments).await?;
        let what = format!("{user}: kubectl {}", arguments.join(" "));
        match answer {
            Yes => ensure!(output.success(), "{what}: {output:?}"),
            // The word is in the gateway's refusals and not in the API server's; who may not even ask
            // which resources there are gets no further, and kubectl then shows no message.
            No => ensure!(
                !output.success()
                    && (output.stderr.contains("policy")
                        || output.stderr.contains("Error from server (Forbidden): unknown")),
                "{what} was not refused by the gateway: {output:?}"
            ),
        }
    }
    Ok(())
}

async fn refusal_names_its_policy(scene: Rc<Scene>) -> Result<()> {
    let options = Options { access: examples("access")?, ..Options::default() };
    let gateway = scene.gateway(&options).await?;
    prepare(&scene).await?;
    let before = scene.plane().audit_events()?.len();
    let kubeconfig = gateway.kubeconfig("erin", &scene.token("erin").await?, Some("T-no"))?;
    let output =
        scene.run(&kubeconfig, &["delete", "configmap", "keep", "-n", "production"]).await?;
    ensure!(output.code == Some(1) && output.stderr.contains("no-deletes"), "{output:?}");
    let rows =
        search_until(&gateway, &["--task", "T-no", "--verdict", "deny"], |rows| rows.len() == 1)
            .await?;
    let row = &rows[0];
    ensure!(
        row["status"] == 403
            && row["effect"] == "nothing"
            && row["verb"] == "delete"
            && row["policies"].to_string().contains("no-deletes"),
        "{row}"
    );
    let sessions = gateway.recorder()?.sessions().await?;
    ensure!(sessions.iter().any(|session| session["denied"] == 1), "{sessions:?}");
    let passed = scene.plane().audit_events()?.into_iter().skip(before).any(|event| {
        event["verb"] == "delete"
            && event["requestURI"].as_str().is_some_and(|uri| uri.contains("production"))
    });
    ensure!(!passed, "the refused request reached the API server");
    // The refusal is a Status like the API server's own.
    let erin = scene.as_user(&gateway, "erin").await?;
    let request = http::Request::delete("/api/v1/namespaces/production/configmaps/keep");
    let reply = erin.call(request.body(rig::client::full(""))?).await?;
    let status = reply.json()?;
    ensure!(
        reply.status == 403 && status["kind"] == "Status" && status["reason"] == "Forbidden",
        "{status}"
    );
    Ok(())
}

/// A new set takes effect without a restart; a bad one never does.
async fn policy_reloads_live(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    let file = gateway.directory().join("policy/access/all.cedar");
    let status =
        async || -> Result<u16> { Ok(alice.get("/api/v1/namespaces").await?.status.as_u16()) };
    ensure!(status().await? == 200, "before");
    let set = async |text: &str, expected: u16| -> Result<()> {
        // Renamed into place, as a configuration tool does.
        let new = gateway.directory().join("new.cedar");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &file)?;
        until("the new set is in force", Duration::from_secs(20), async || {
            let status = status().await?;
            Ok(Level::when(status == expected, || status.to_string()))
        })
        .await
    };
    set("permit(principal == k8s::User::\"somebody-else\", action, resource);", 403).await?;
    std::fs::write(&file, "permit(principal, action, resource")?;
    for _ in 0..20 {
        ensure!(status().await? == 403, "a set that does not parse changed the answers");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    set(rig::policy::ALLOW_ALL, 200).await
}
