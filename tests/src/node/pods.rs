//! Pods of the rig's own image, straight to the API server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http::StatusCode;
use serde_json::{Value, json};

use super::images::BOX;
use crate::controlplane::ControlPlane;
use crate::wait::{Level, until};

/// A pod by its name.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    plane: &'a ControlPlane,
    namespace: String,
    name: String,
}

/// A pod with one container, `box`, that runs `command` in the rig's image.
#[must_use]
pub fn manifest(name: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            // The first process of a container ignores SIGTERM unless it asked for it.
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "box", "image": BOX, "imagePullPolicy": "Never", "command": command,
            }],
        },
    })
}

impl<'a> Pod<'a> {
    /// Creates a pod in a namespace, which is made when absent, and waits until it is ready.
    ///
    /// # Errors
    /// When the API server refuses, or it does not become ready.
    pub async fn run(plane: &'a ControlPlane, namespace: &str, manifest: &Value) -> Result<Self> {
        plane.namespace(namespace).await?;
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        // Pods are refused until the controllers have made the namespace's account.
        until("the namespace has its account", LIMIT, async || {
            let reply = plane.admin().get(&accounts).await?;
            Ok(Level::when(reply.status.is_success(), || reply.text()))
        })
        .await?;
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let reply = plane.admin().json("POST", &pods, manifest).await?.success()?.json()?;
        let name = reply["metadata"]["name"].as_str().context("a pod without a name")?;
        let pod = Self { plane, namespace: namespace.to_owned(), name: name.to_owned() };
        pod.reaches("it is ready", |status| {
            let conditions = status["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
        .await?;
        Ok(pod)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path at the API server.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }

    /// Its state as the API server has it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn get(&self) -> Result<Value> {
        self.plane.get(&self.path()).await?.json()
    }

    /// Waits until its containers have ended, and gives the first one's exit code.
    ///
    /// # Errors
    /// When they do not end.
    pub async fn ended(&self) -> Result<i64> {
        let status = self
            .reaches("it has ended", |status| {
                ["Succeeded", "Failed"].iter().any(|phase| status["phase"] == *phase)
            })
            .await?;
        let code = &status["containerStatuses"][0]["state"]["terminated"]["exitCode"];
        code.as_i64().with_context(|| format!("no exit code in {status}"))
    }

    /// Deletes it, and waits until it is gone.
    ///
    /// # Errors
    /// When the API server refuses, or it does not go.
    pub async fn delete(self) -> Result<()> {
        let admin = self.plane.admin();
        admin.json("DELETE", &self.path(), &json!({})).await?.success()?;
        until(&format!("pod {}: it is gone", self.name), LIMIT, async || {
            let reply = admin.get(&self.path()).await?;
            Ok(Level::when(reply.status == StatusCode::NOT_FOUND, || reply.text()))
        })
        .await
    }

    async fn reaches(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        until(&format!("pod {}: {what}", self.name), LIMIT, async || {
            let status = self.get().await?["status"].take();
            Ok(if holds(&status) {
                Level::Reached(status)
            } else {
                Level::NotYet(status.to_string())
            })
        })
        .await
    }
}

/// A second when nothing else runs.
const LIMIT: Duration = Duration::from_secs(60);
