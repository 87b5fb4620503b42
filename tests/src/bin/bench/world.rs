//! What is measured: one API server, and three ways to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rig::client::{Endpoint, Protocol, json_request};
use rig::controlplane::{ControlPlane, Options as PlaneOptions};
use rig::envoy::{self, Envoy};
use rig::gateway::{Gateway, Options};
use rig::issuer::Issuer;
use rig::pki::write_private;
use rig::policy;
use rig::tools::Tools;
use rig::wait::{Level, until};
use serde_json::{Value, json};

use crate::cases::{WORKERS_MAX, collection};

/// A way to the API server, as the benchmark's user.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) endpoint: Endpoint,
    /// The proxy's; none for direct access.
    pub(crate) process: Option<u32>,
    /// Where its record goes; none without one.
    pub(crate) segments: Option<PathBuf>,
}

pub(crate) struct World {
    place: PathBuf,
    envoy: Result<PathBuf>,
    /// Another build of the gateway, for all sides.
    other: Option<PathBuf>,
    token: String,
    issuer: Issuer,
    pub(crate) plane: ControlPlane,
}

/// The proxies, and direct access beside them.
pub(crate) struct Side {
    /// Direct access first: the others are held against it.
    pub(crate) targets: Vec<Target>,
    pub(crate) gateway: Gateway,
    others: Others,
}

/// What stands beside the gateway, where there is any.
#[derive(Default)]
struct Others {
    build: Option<Gateway>,
    envoy: Option<Envoy>,
}

impl World {
    /// `other` is another build of the gateway, to be measured beside this one.
    pub(crate) async fn start(place: &Path, other: Option<PathBuf>) -> Result<Self> {
        let envoy = tokio::task::spawn_blocking(envoy::install).await?;
        let tools = tokio::task::spawn_blocking(Tools::build).await??;
        let directory = place.join("issuer");
        let issuer = Issuer::start(&directory, &[(USER, &[GROUP])], TOKEN_TTL).await?;
        let plane = ControlPlane::start(&tools, place, knowing(&issuer, &directory)).await?;
        let token = issuer.token(USER).await?;
        let world = Self { place: place.to_owned(), envoy, other, token, issuer, plane };
        if let Some(reason) = world.without_envoy() {
            eprintln!("bench: WITHOUT ENVOY: {reason}");
        }
        fill(&world.plane).await?;
        let direct = world.direct();
        until("the API server knows the issuer", ISSUER_LIMIT, async || {
            let reply = direct.get(&collection(NAMESPACE)).await?;
            Ok(Level::when(reply.status.is_success(), || reply.text()))
        })
        .await?;
        Ok(world)
    }

    /// Why Envoy is not among the targets.
    pub(crate) fn without_envoy(&self) -> Option<String> {
        self.envoy.as_ref().err().map(|error| format!("{error:#}"))
    }

    /// Where it keeps its files.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// The user's.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// For kubectl as the same user: one for each target of `side`.
    pub(crate) fn kubeconfigs(&self, side: &Side, directory: &Path) -> Result<Vec<PathBuf>> {
        let mut all = vec![
            self.kubeconfig(directory, "direct", &self.plane.url(), self.plane.authority_file())?,
            side.gateway.kubeconfig(USER, &self.token, None)?,
        ];
        if let Some(other) = &side.others.build {
            all.push(other.kubeconfig(USER, &self.token, None)?);
        }
        if let Some(envoy) = &side.others.envoy {
            let url = format!("https://{}", envoy.endpoint().address());
            all.push(self.kubeconfig(directory, "envoy", &url, envoy.authority_file())?);
        }
        Ok(all)
    }

    fn kubeconfig(
        &self,
        directory: &Path,
        name: &str,
        url: &str,
        authority: &Path,
    ) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {
                "server": url, "certificate-authority": authority,
            }}],
            "users": [{"name": USER, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": USER}}],
            "current-context": name,
        });
        let path = directory.join(format!("{name}.kubeconfig"));
        write_private(&path, &config.to_string())?;
        Ok(path)
    }

    /// New proxies, with a directory of their own: memory that earlier load has freed would hide what
    /// later load needs.
    pub(crate) async fn side(&self, name: &str) -> Result<Side> {
        let gateway = self.gateway(name, json!({}), None).await?;
        let build = match self.other.clone() {
            Some(other) => {
                Some(self.gateway(&format!("{name}-other"), json!({}), Some(other)).await?)
            }
            None => None,
        };
        let envoy = match &self.envoy {
            Ok(binary) => {
                let place = self.place.join(name);
                Some(Envoy::start(binary, &place, &self.plane, &self.issuer, GROUP).await?)
            }
            Err(_) => None,
        };
        self.beside(GATEWAY, gateway, Others { build, envoy }).await
    }

    /// A new gateway alone, with this kind of witness, beside direct access.
    pub(crate) async fn witnessed(&self, name: &'static str, place: &str) -> Result<Side> {
        let gateway = self.gateway(place, json!({"witness": {"mode": name}}), None).await?;
        self.beside(name, gateway, Others::default()).await
    }

    async fn gateway(
        &self,
        place: &str,
        mut config: Value,
        program: Option<PathBuf>,
    ) -> Result<Gateway> {
        // The default, not the rig's.
        config["threads"] = Value::Null;
        let place = self.place.join(place);
        std::fs::create_dir_all(&place)?;
        let options = Options {
            access: policy::examples("access")?,
            recording: policy::examples("recording")?,
            config,
            program,
            ..Options::default()
        };
        Gateway::start(&place, &self.plane, &[&self.issuer], &options).await
    }

    async fn beside(&self, name: &'static str, gateway: Gateway, others: Others) -> Result<Side> {
        let proxy = |name, endpoint: &Endpoint, process| Target {
            name,
            endpoint: endpoint.bearer(&self.token),
            process,
            segments: None,
        };
        let recording = |name, gateway: &Gateway| Target {
            segments: Some(gateway.store().join("segments")),
            ..proxy(name, gateway.endpoint(), gateway.id())
        };
        let mut targets = vec![
            Target { name: "direct", endpoint: self.direct(), process: None, segments: None },
            recording(name, &gateway),
        ];
        targets.extend(others.build.as_ref().map(|other| recording("other", other)));
        let envoy = others.envoy.as_ref();
        targets.extend(envoy.map(|envoy| proxy("envoy", envoy.endpoint(), Some(envoy.id()))));
        let side = Side { targets, gateway, others };
        side.check().await?;
        Ok(side)
    }

    /// The same user with the same token. The administrator's certificate would compare different things:
    /// the API server exempts that group from its queues and from authorization.
    fn direct(&self) -> Endpoint {
        let admin = self.plane.admin();
        let direct = Endpoint::new(admin.address(), self.plane.authority(), None);
        direct.expect("the authority was read before").bearer(&self.token)
    }
}

impl Side {
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

/// An API server that takes the issuer's tokens itself, as it would without a gateway.
fn knowing(issuer: &Issuer, directory: &Path) -> PlaneOptions {
    let authority = directory.join("issuer-ca.crt");
    let api_server_flags = vec![
        format!("--oidc-issuer-url={}", issuer.url()),
        format!("--oidc-ca-file={}", authority.display()),
        "--oidc-client-id=decklog".into(),
        "--oidc-username-claim=sub".into(),
        "--oidc-username-prefix=-".into(),
        "--oidc-groups-claim=groups".into(),
    ];
    PlaneOptions { api_server_flags, ..PlaneOptions::default() }
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
    objects.extend((0..WORKERS_MAX).map(|worker| {
        (PATCHED_NAMESPACE, config_map(&format!("patched-{worker}"), &json!({"nonce": ""})))
    }));
    for (namespace, object) in objects {
        let request = json_request("POST", &collection(namespace), &object)?;
        let reply = connection.call(request).await?;
        // Each namespace gets one of its own by the controller manager at any time: names do not meet.
        reply.success().with_context(|| format!("make {}", object["metadata"]["name"]))?;
    }
    // That one would come in the midst of a comparison otherwise.
    until("the namespaces are complete", Duration::from_secs(20), async || {
        let path = format!("{}/kube-root-ca.crt", collection(NAMESPACE));
        let reply = plane.admin().get(&path).await?;
        Ok(Level::when(reply.status.is_success(), || reply.text()))
    })
    .await
}

pub(crate) fn config_map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// The target that the others are there for.
pub(crate) const GATEWAY: &str = "gateway";
/// The shipped example policy for agents lets it do what is needed in these namespaces.
const USER: &str = "carol";
const GROUP: &str = "agents:shop";
pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const PATCHED_NAMESPACE: &str = "shop-staging";
const LISTED: usize = 500;
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// It fetches the keys in the background, and tries again after ten seconds.
const ISSUER_LIMIT: Duration = Duration::from_secs(30);
