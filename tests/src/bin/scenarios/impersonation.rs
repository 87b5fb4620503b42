//! The gateway's own credential: it may impersonate and nothing else, with and without KEP-5284.

use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use http::{Request, StatusCode};
use rig::client::full;
use rig::controlplane::{self, access::Impersonation};
use rig::gateway::{Gateway, Options};
use serde_json::json;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, deployment, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("credential-alone-can-do-nothing", credential_alone_can_do_nothing),
        scenario!("api-server-audit-names-our-session", audit_names_our_session),
        scenario!("constrained-impersonation", constrained_impersonation),
        scenario!("constrained-impersonation-off", constrained_impersonation_off),
    ]
}

/// A request that reached the API server without identity headers could do nothing.
async fn credential_alone_can_do_nothing(scene: Rc<Scene>) -> Result<()> {
    let plane = scene.plane();
    for impersonation in [Impersonation::Plain, Impersonation::Constrained] {
        let token = std::fs::read_to_string(plane.gateway_token_file(impersonation))?;
        let bare = plane.anonymous()?.bearer(token);
        for (method, path) in BARE {
            let reply =
                bare.call(Request::builder().method(method).uri(path).body(full("{}"))?).await?;
            ensure!(
                reply.status == StatusCode::FORBIDDEN,
                "{impersonation:?} {method} {path}: {} {}",
                reply.status,
                reply.text()
            );
        }
        let request = Request::get("/api/v1/namespaces/default/configmaps")
            .header("impersonate-user", "alice")
            .header("impersonate-group", "sre")
            .header("impersonate-extra-decklog.dev%2fsession", "0")
            .body(full(""))?;
        let reply = bare.call(request).await?;
        ensure!(
            reply.status == StatusCode::OK,
            "{impersonation:?}: {} {}",
            reply.status,
            reply.text()
        );
    }
    Ok(())
}

const BARE: [(&str, &str); 5] = [
    ("GET", "/api/v1/namespaces/default/configmaps"),
    ("GET", "/api/v1/secrets"),
    ("POST", "/api/v1/namespaces/default/configmaps"),
    ("DELETE", "/api/v1/namespaces/default"),
    ("GET", "/metrics"),
];

/// The API server's audit event and our exchange name each other.
async fn audit_names_our_session(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    bob.get("/tasks/T-9/api/v1/namespaces/default/configmaps?limit=3").await?.success()?;
    let rows = search_until(&gateway, &["--task", "T-9"], |rows| rows.len() == 1).await?;
    let row = &rows[0];
    let events = scene.plane().audit_events()?;
    let event = events.iter().rfind(|event| event["auditID"] == row["auditId"]);
    let event = event.with_context(|| format!("no audit event of {row}"))?;
    let user = &event["impersonatedUser"];
    ensure!(user["username"] == "bob" && user["groups"].to_string().contains("agents"), "{event}");
    let extra = &user["extra"];
    ensure!(extra["decklog.dev/session"] == json!([row["session"]]), "{extra} and {row}");
    ensure!(extra["decklog.dev/task"] == json!(["T-9"]), "{extra}");
    ensure!(extra["decklog.dev/gateway"].is_array(), "{extra}");
    ensure!(!extra.to_string().contains("\"\""), "an empty extra was sent: {extra}");
    Ok(())
}

/// With nothing but the constrained grants, ordinary work goes on.
async fn constrained_impersonation(scene: Rc<Scene>) -> Result<()> {
    let options = Options { impersonation: Impersonation::Constrained, ..Options::default() };
    let gateway = scene.gateway(&options).await?;
    works(&scene, &gateway, "constrained").await?;
    let by = "system:serviceaccount:decklog:gateway-constrained";
    let events = scene.plane().audit_events()?;
    let event = events.iter().rfind(|event| event["user"]["username"] == by);
    let event = event.context("the audit log has no request of the constrained account")?;
    ensure!(
        event.to_string().contains("impersonate:user-info"),
        "the audit event names no constraint: {event}"
    );
    Ok(())
}

/// An API server without the feature, as all before 1.36.
async fn constrained_impersonation_off(scene: Rc<Scene>) -> Result<()> {
    let options = controlplane::Options {
        constrained_impersonation: Some(false),
        ..controlplane::Options::default()
    };
    let plane = scene.own_plane(options).await?;
    let gateway =
        Gateway::start(scene.directory(), &plane, &[scene.issuer()], &Options::default()).await?;
    plane.namespace("plain").await?;
    works(&scene, &gateway, "plain").await
}

async fn works(scene: &Scene, gateway: &Gateway, namespace: &str) -> Result<()> {
    // The namespace of the shared control plane is not used where the gateway has its own.
    scene.plane().namespace(namespace).await?;
    let kubeconfig = gateway.kubeconfig("bob", &scene.token("bob").await?, None)?;
    let manifest = scene.manifest("web.json", &deployment("web", 1))?;
    for arguments in [
        &["apply", "-f", &manifest][..],
        &["get", "deployments"],
        &["scale", "deployment/web", "--replicas=2"],
        &["label", "deployment/web", "a=b"],
        &["get", "--raw", "/version"],
        &["delete", "deployment/web", "--wait=false"],
        &["delete", "configmaps", "--all", "--wait=false"],
    ] {
        let mut all = vec!["-n", namespace];
        all.extend(arguments);
        scene.kubectl_ok(&kubeconfig, &all).await?;
    }
    Ok(())
}
