//! Everyday work with the real kubectl, of each version that the machine has.

use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::Options;
use rig::kubectl::{Kubectl, succeeded};
use serde_json::json;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, deployment, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("kubectl-verbs", verbs, 240),
        scenario!("kubectl-errors-look-the-same", errors_look_the_same),
    ]
}

async fn verbs(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    for kubectl in &scene.world.versions.found {
        let version = kubectl.version();
        let task = format!("kubectl-{version}");
        let kubeconfig = gateway.kubeconfig(&task, &scene.token("bob").await?, Some(&task))?;
        let namespace = format!("kubectl-{}", version.replace('.', "-"));
        scene.plane().namespace(&namespace).await?;
        let visit =
            Visit { scene: &scene, kubectl, kubeconfig: &kubeconfig, namespace: &namespace };
        visit.run().await.with_context(|| format!("kubectl {version}"))?;

        let rows = search_until(&gateway, &["--task", &task], |rows| {
            rows.iter().any(|row| row["verb"] == "delete" && row["resource"] == "configmaps")
        })
        .await?;
        for (verb, resource, effect) in [
            ("patch", "deployments", "modified"),
            ("list", "deployments", "read"),
            ("create", "configmaps", "created"),
            ("delete", "configmaps", "deleted"),
        ] {
            let found = rows.iter().any(|row| {
                row["verb"] == verb && row["resource"] == resource && row["effect"] == effect
            });
            ensure!(found, "kubectl {version}: no {verb} of {resource} with effect {effect}");
        }
        ensure!(
            rows.iter().all(|row| row["username"] == "bob" && row["verdict"] == "allow"),
            "somebody else, or a refusal: {rows:?}"
        );
        // Discovery is asked without a command header by some versions; what changed something has one.
        let command = rows.iter().find(|row| row["effect"] == "created").map(|row| &row["command"]);
        ensure!(command.is_some_and(|command| command.is_string()), "no command id: {command:?}");
    }
    Ok(())
}

struct Visit<'a> {
    scene: &'a Scene,
    kubectl: &'a Kubectl,
    kubeconfig: &'a Path,
    namespace: &'a str,
}

impl Visit<'_> {
    async fn run(&self) -> Result<()> {
        let manifest = self.scene.manifest("web.json", &deployment("web", 1))?;
        self.expect(&["apply", "-f", &manifest], "deployment.apps/web created").await?;
        self.expect(&["apply", "-f", &manifest], "deployment.apps/web unchanged").await?;
        self.expect(
            &["apply", "--server-side", "--force-conflicts", "-f", &manifest],
            "serverside-applied",
        )
        .await?;
        self.expect(&["scale", "deployment/web", "--replicas=3"], "deployment.apps/web scaled")
            .await?;
        let replicas = ["get", "deployment/web", "-o", "jsonpath={.spec.replicas}"];
        ensure!(self.kubectl(&replicas).await? == "3", "the scale did not arrive");
        for patch_type in ["strategic", "merge"] {
            let patch = json!({"metadata": {"labels": {"patched": patch_type}}}).to_string();
            self.expect(
                &["patch", "deployment/web", "--type", patch_type, "-p", &patch],
                "patched",
            )
            .await?;
        }
        let patch = json!([{"op": "add", "path": "/metadata/labels/patched", "value": "json"}]);
        self.expect(
            &["patch", "deployment/web", "--type", "json", "-p", &patch.to_string()],
            "patched",
        )
        .await?;
        self.expect(&["get", "deployments"], "web").await?;
        self.expect(&["get", "deployments", "-o", "yaml"], "patched: json").await?;
        self.expect(&["label", "deployment/web", "tier=front"], "labeled").await?;
        self.expect(
            &["create", "configmap", "note", "--from-literal=a=1"],
            "configmap/note created",
        )
        .await?;
        self.expect(&["get", "configmap/note", "--watch", "--request-timeout=2s"], "note")
            .await
            .ok();
        self.expect(&["describe", "deployment/web"], "Replicas:").await?;
        self.expect(&["auth", "can-i", "create", "deployments"], "yes").await?;
        self.expect(&["delete", "configmap/note"], "configmap \"note\" deleted").await?;
        self.expect(&["delete", "deployment/web", "--wait=false"], "deleted").await?;
        Ok(())
    }

    async fn expect(&self, arguments: &[&str], text: &str) -> Result<()> {
        let said = self.kubectl(arguments).await?;
        ensure!(said.contains(text), "kubectl {}: no {text:?} in {said:?}", arguments.join(" "));
        Ok(())
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", self.namespace];
        all.extend(arguments);
        let output = self.scene.run_with(self.kubectl, self.kubeconfig, &all).await?;
        let output =
            succeeded(output).with_context(|| format!("kubectl {}", arguments.join(" ")))?;
        Ok(output.stdout)
    }
}

/// What the API server refuses reads the same through the gateway, exit code and text.
async fn errors_look_the_same(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let through = gateway.kubeconfig("alice", &scene.token("alice").await?, None)?;
    let direct = scene.plane().admin_kubeconfig()?;
    for arguments in [
        &["get", "configmap/absent"][..],
        &["get", "nonsense"],
        &["create", "namespace", "default"],
        &["get", "configmaps", "--namespace", "absent"],
        &["get", "--raw", "/apis/absent/v1"],
        &["create", "configmap", "Bad_Name"],
    ] {
        let (direct, through) =
            (scene.run(&direct, arguments).await?, scene.run(&through, arguments).await?);
        ensure!(
            (direct.code, &direct.stdout, &direct.stderr)
                == (through.code, &through.stdout, &through.stderr),
            "kubectl {}: direct {direct:?}, through the gateway {through:?}",
            arguments.join(" ")
        );
    }
    Ok(())
}
