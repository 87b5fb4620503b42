//! Rights in the test cluster: the gateway's ServiceAccounts may impersonate and nothing else; the people
//! of the tests get theirs by group, as they would without a gateway.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::ControlPlane;
use crate::pki::write_private;

/// Which grants the gateway's ServiceAccount has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Impersonation {
    /// The verb `impersonate`: every version of Kubernetes.
    #[default]
    Plain,
    /// KEP-5284: `impersonate:user-info` and `impersonate-on:user-info:<verb>` only.
    Constrained,
}

impl Impersonation {
    /// The ServiceAccount's name, in namespace `decklog`.
    #[must_use]
    pub fn service_account(self) -> &'static str {
        match self {
            Self::Plain => "gateway",
            Self::Constrained => "gateway-constrained",
        }
    }

    fn rules(self) -> Value {
        match self {
            Self::Plain => json!([
                {"apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"]},
                {"apiGroups": ["authentication.k8s.io"],
                 "resources": ["uids", EXTRAS[0], EXTRAS[1], EXTRAS[2]], "verbs": ["impersonate"]},
            ]),
            Self::Constrained => json!([
                {"apiGroups": ["authentication.k8s.io"],
                 "resources": ["users", "groups", "uids", EXTRAS[0], EXTRAS[1], EXTRAS[2]],
                 "verbs": ["impersonate:user-info"]},
                {"apiGroups": ["authentication.k8s.io"],
                 "resources": ["serviceaccounts", "uids", EXTRAS[0], EXTRAS[1], EXTRAS[2]],
                 "verbs": ["impersonate:serviceaccount"]},
                {"apiGroups": ["*"], "resources": ["*"], "verbs": on_verbs()},
                {"nonResourceURLs": ["*"], "verbs": on_verbs()},
            ]),
        }
    }
}

const EXTRAS: [&str; 3] = [
    "userextras/decklog.dev/session",
    "userextras/decklog.dev/task",
    "userextras/decklog.dev/gateway",
];

fn on_verbs() -> Vec<String> {
    let verbs = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "head",
        "post",
        "put",
    ];
    let modes = ["user-info", "serviceaccount"];
    modes
        .iter()
        .flat_map(|mode| verbs.iter().map(move |verb| format!("impersonate-on:{mode}:{verb}")))
        .collect()
}

/// Groups of the tests that may do anything in the cluster: there only the gateway's policy refuses.
const TRUSTED_GROUPS: [&str; 5] = ["sre", "agents", "agents:shop", "platform", "break-glass"];

/// A group that may only read config maps: there the API server itself refuses.
const READERS: &str = "readers";

/// Makes roles, bindings, ServiceAccounts and the token files.
pub(super) async fn install(plane: &ControlPlane) -> Result<()> {
    plane.namespace("decklog").await?;
    for impersonation in [Impersonation::Plain, Impersonation::Constrained] {
        let name = impersonation.service_account();
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        plane.ensure("/api/v1/namespaces/decklog/serviceaccounts", &account).await?;
        let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": "decklog"}]);
        role(plane, &format!("decklog-{name}"), impersonation.rules()).await?;
        bind(plane, &format!("decklog-{name}"), &format!("decklog-{name}"), subject).await?;
        let token = service_account_token(plane, "decklog", name).await?;
        write_private(&plane.gateway_token_file(impersonation), &token)?;
    }
    let groups = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({"kind": "Group", "name": name, "apiGroup": RBAC})).collect()
    };
    bind(plane, "rig-trusted", "cluster-admin", groups(&TRUSTED_GROUPS)).await?;
    let read = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    role(plane, "rig-readers", read).await?;
    bind(plane, "rig-readers", "rig-readers", groups(&[READERS])).await
}

/// A token of a ServiceAccount, by TokenRequest.
///
/// # Errors
/// When the API server refuses.
pub async fn service_account_token(
    plane: &ControlPlane,
    namespace: &str,
    name: &str,
) -> Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 24 * 3600},
    });
    let reply = plane.admin().json("POST", &path, &request).await?.success()?.json()?;
    let token = reply["status"]["token"].as_str();
    token.map(str::to_owned).context("the TokenRequest's answer has no token")
}

async fn role(plane: &ControlPlane, name: &str, rules: Value) -> Result<()> {
    let role = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules,
    });
    plane.ensure(&format!("/apis/{RBAC}/v1/clusterroles"), &role).await
}

async fn bind(plane: &ControlPlane, name: &str, role: &str, subjects: Value) -> Result<()> {
    let binding = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": subjects,
    });
    plane.ensure(&format!("/apis/{RBAC}/v1/clusterrolebindings"), &binding).await
}

const RBAC: &str = "rbac.authorization.k8s.io";
