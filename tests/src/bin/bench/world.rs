//! What is measured: one API server, and three ways to it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, DnType, KeyPair};
use rig::client::{Endpoint, Protocol, json_request};
use rig::controlplane::{ControlPlane, Options as PlaneOptions};
use rig::envoy::{self, Envoy};
use rig::gateway::{Gateway, Options};
use rig::issuer::Issuer;
use rig::pki::Pair;
use rig::policy;
use rig::tools::Tools;
use serde_json::{Value, json};

use crate::cases::collection;

/// A way to the API server, as the benchmark's user.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) endpoint: Endpoint,
    /// The proxy's; none for direct access.
    pub(crate) process: Option<u32>,
}

pub(crate) struct World {
    /// Direct access first: the others are held against it.
    pub(crate) targets: Vec<Target>,
    /// Why Envoy is not among them.
    pub(crate) without_envoy: Option<String>,
    // Dropped in this order: clients of a server before the server.
    _gateway: Gateway,
    _envoy: Option<Envoy>,
    _issuer: Issuer,
    pub(crate) plane: ControlPlane,
}

impl World {
    pub(crate) async fn start(place: &Path) -> Result<Self> {
        let binary = tokio::task::spawn_blocking(envoy::install).await?;
        let without_envoy = binary.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(reason) = &without_envoy {
            eprintln!("bench: WITHOUT ENVOY: {reason}");
        }
        let tools = tokio::task::spawn_blocking(Tools::build).await??;
        let plane = ControlPlane::start(&tools, place, PlaneOptions::default()).await?;
        let issuer = Issuer::start(&place.join("issuer"), &[(USER, &[GROUP])], TOKEN_TTL).await?;
        let options = Options { access: policy::examples("access")?, ..Options::default() };
        let gateway = Gateway::start(place, &plane, &[&issuer], &options).await?;
        let token = issuer.token(USER).await?;
        let mut targets = vec![
            Target { name: "direct", endpoint: direct(&plane)?, process: None },
            Target {
                name: "gateway",
                endpoint: gateway.endpoint().bearer(&token),
                process: gateway.id(),
            },
        ];
        let envoy = match &binary {
            Ok(binary) => Some(Envoy::start(binary, place, &plane, &issuer, GROUP).await?),
            Err(_) => None,
        };
        targets.extend(envoy.as_ref().map(|envoy| Target {
            name: "envoy",
            endpoint: envoy.endpoint().bearer(&token),
            process: Some(envoy.id()),
        }));
        fill(&plane).await?;
        let world = Self {
            targets,
            without_envoy,
            _gateway: gateway,
            _envoy: envoy,
            _issuer: issuer,
            plane,
        };
        world.check().await?;
        Ok(world)
    }

    /// All targets give the same answer, so it is the same work that is compared.
    async fn check(&self) -> Result<()> {
        let mut first = None;
        for target in &self.targets {
            let path = collection(NAMESPACE);
            let reply = target.endpoint.get(&path).await.and_then(rig::client::Reply::success);
            let objects = reply.with_context(|| format!("try {}", target.name))?.json()?;
            let objects = objects["items"].clone();
            anyhow::ensure!(
                *first.get_or_insert_with(|| objects.clone()) == objects,
                "{} answers otherwise than direct access",
                target.name,
            );
        }
        Ok(())
    }
}

/// The user with a certificate of the cluster's authority. The administrator's would compare different
/// things: the API server exempts that group from its own queues and from authorization.
fn direct(plane: &ControlPlane) -> Result<Endpoint> {
    let key = plane.authority_file().with_extension("key");
    let key = std::fs::read_to_string(&key).with_context(|| format!("read {}", key.display()))?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "rig cluster");
    let authority = rcgen::Issuer::new(authority, KeyPair::from_pem(&key)?);
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::OrganizationName, GROUP);
    params.distinguished_name.push(DnType::CommonName, USER);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?.pem();
    let pair = Pair { certificate, key: key.serialize_pem() };
    Endpoint::new(plane.admin().address(), plane.authority(), Some(&pair))
}

async fn fill(plane: &ControlPlane) -> Result<()> {
    for namespace in [NAMESPACE, PATCHED_NAMESPACE] {
        plane.namespace(namespace).await?;
    }
    let mut connection = plane.admin().connect(Protocol::Http2).await?;
    let mut objects = vec![(NAMESPACE, config_map("small", &json!({"key": "value"})))];
    // The collection has 500 with the small one.
    objects.extend((1..LISTED).map(|number| {
        let data = json!({
            "settings.properties": format!("replicas={number}\n").repeat(60),
            "description": "An object of ordinary size, as most config maps are.",
        });
        (NAMESPACE, config_map(&format!("listed-{number}"), &data))
    }));
    let patched = (0..PATCHED).map(|worker| format!("patched-{worker}"));
    objects.extend(
        patched
            .chain([WATCHED.to_owned()])
            .map(|name| (PATCHED_NAMESPACE, config_map(&name, &json!({"nonce": ""})))),
    );
    for (namespace, object) in objects {
        let request = json_request("POST", &collection(namespace), &object)?;
        let reply = connection.call(request).await?;
        // Each namespace gets one of its own by the controller manager at any time: names do not meet.
        reply.success().with_context(|| format!("make {}", object["metadata"]["name"]))?;
    }
    // That one would come in the midst of a comparison otherwise.
    rig::wait::until("the namespaces are complete", Duration::from_secs(20), async || {
        let path = format!("{}/kube-root-ca.crt", collection(NAMESPACE));
        let reply = plane.admin().get(&path).await?;
        Ok(rig::wait::Level::when(reply.status.is_success(), || reply.text()))
    })
    .await
}

fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// The shipped example policy for agents lets it do what is needed in these namespaces.
const USER: &str = "carol";
const GROUP: &str = "agents:shop";
pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const PATCHED_NAMESPACE: &str = "shop-staging";
/// What the watches watch.
pub(crate) const WATCHED: &str = "watched";
const LISTED: usize = 500;
const PATCHED: usize = 8;
const TOKEN_TTL: Duration = Duration::from_secs(3600);
