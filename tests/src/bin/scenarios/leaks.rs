//! No token and no Secret value is ever found in what a gateway leaves behind.
//!
//! The runner searches every scenario's stores and logs; records are compressed on disk, so the search
//! reads them through the store's own reader, too.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use http::Request;
use recorder_user::model::{Direction, ExchangeId, Record};
use recorder_user::store::Reader;
use rig::client::{full, json_request};
use rig::gateway::Options;
use serde_json::json;

use rig::wait::{Level, until};

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!("secrets-never-reach-the-disk", secrets_never_reach_the_disk)]
}

/// Fails when a secret of the scene is in a store or log that its gateways left.
pub(crate) fn check(scene: &Scene) -> Result<()> {
    let needles = needles(scene);
    for entry in std::fs::read_dir(scene.directory())? {
        let gateway = entry?.path();
        let store = gateway.join("store");
        if store.is_dir() {
            search_files(&store, &needles)?;
            search_records(&store, &needles)?;
            search_file(&gateway.join("gateway.log"), &needles)?;
        }
    }
    Ok(())
}

/// Fails when a secret of the scene is in a text.
pub(crate) fn check_text(scene: &Scene, what: &str, text: &str) -> Result<()> {
    search(what, text.as_bytes(), &needles(scene))
}

/// A text that must not be found, in any of the forms in which it would appear.
struct Needle {
    name: String,
    forms: Vec<Vec<u8>>,
}

fn needles(scene: &Scene) -> Vec<Needle> {
    let secrets = scene.secrets();
    let needle = |(index, secret): (usize, String)| {
        let mut forms = vec![secret.clone().into_bytes(), STANDARD.encode(&secret).into_bytes()];
        // A token is useless without its signature; with it, any claims will do.
        if let Some((_, signature)) = secret.rsplit_once('.')
            && signature.len() > 40
        {
            forms.push(signature.as_bytes().to_vec());
        }
        // Short texts would be found by chance.
        forms.retain(|form| form.len() >= 8);
        Needle { name: format!("secret {index}"), forms }
    };
    secrets.into_iter().enumerate().map(needle).collect()
}

fn search(what: &str, bytes: &[u8], needles: &[Needle]) -> Result<()> {
    for needle in needles {
        for form in &needle.forms {
            // The secret itself is not repeated here.
            if memchr::memmem::find(bytes, form).is_some() {
                bail!("{} is in {what}", needle.name);
            }
        }
    }
    Ok(())
}

fn search_file(path: &Path, needles: &[Needle]) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    search(&path.display().to_string(), &bytes, needles)
}

fn search_files(directory: &Path, needles: &[Needle]) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        // A running gateway's socket, and one that kill -9 left, hold nothing.
        if kind.is_socket() {
            continue;
        }
        if path.is_dir() { search_files(&path, needles)? } else { search_file(&path, needles)? }
    }
    Ok(())
}

/// Every record as it was before compression; and the bodies, whole and unpacked, since a text may be cut
/// by the border of two chunks or hidden by gzip.
fn search_records(store: &Path, needles: &[Needle]) -> Result<()> {
    let mut bodies: BTreeMap<(ExchangeId, &str), Vec<u8>> = BTreeMap::new();
    let reader = Reader::open(store)?;
    for stored in reader.records() {
        // A torn tail ends a store that is still open; `verify` is about damage.
        let Ok(stored) = stored else { break };
        if let Record::Chunk(chunk) = &stored.record {
            let direction = match chunk.direction {
                Direction::Request => "request",
                Direction::Response => "response",
            };
            bodies.entry((chunk.exchange, direction)).or_default().extend_from_slice(&chunk.data);
        } else {
            let mut payload = Vec::new();
            stored.record.encode(&mut payload);
            search(
                &format!("the record at {} of {}", stored.position, store.display()),
                &payload,
                needles,
            )?;
        }
    }
    for ((exchange, direction), body) in bodies {
        let what = format!("the {direction} body of exchange {exchange}");
        if body.starts_with(&GZIP_MAGIC) {
            let mut unpacked = Vec::new();
            // What was unpacked before an error counts.
            let _ = MultiGzDecoder::new(&*body).read_to_end(&mut unpacked);
            search(&what, &unpacked, needles)?;
        }
        search(&what, &body, needles)?;
    }
    Ok(())
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

async fn secrets_never_reach_the_disk(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("vault").await?;
    // The controller manager makes it a moment after the namespace.
    until("the default service account is there", Duration::from_secs(20), async || {
        let account = scene.plane().get("/api/v1/namespaces/vault/serviceaccounts/default").await;
        Ok(Level::when(account.is_ok(), || "not found".into()))
    })
    .await?;
    let secret = |name: &str| scene.secret(format!("very-secret-{name}-{}", std::process::id()));
    let (data, string, applied) = (secret("data"), secret("string"), secret("applied"));
    let kubeconfig = gateway.kubeconfig("alice", &scene.token("alice").await?, None)?;
    let manifest = scene.manifest(
        "secret.json",
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "applied"},
            "stringData": {"password": applied},
        }),
    )?;
    let literal = format!("--from-literal=password={data}");
    for arguments in [
        &["create", "secret", "generic", "made", &literal][..],
        // The last-applied annotation repeats the whole object.
        &["apply", "-f", &manifest],
        &["get", "secrets"],
        &["get", "secrets", "-o", "yaml"],
        &["get", "secret", "made", "-o", "jsonpath={.data.password}"],
        &["get", "secrets", "-o", "custom-columns=D:.data"],
        &["create", "token", "default"],
        &["get", "secrets", "--all-namespaces", "-o", "json"],
    ] {
        let mut all = vec!["-n", "vault"];
        all.extend(arguments);
        let said = scene.kubectl_ok(&kubeconfig, &all).await?;
        if arguments[1] == "token" {
            scene.secret(said.trim().to_owned());
        }
    }
    let alice = scene.as_user(&gateway, "alice").await?;
    let path = "/api/v1/namespaces/vault/secrets";
    let patch = json!({"stringData": {"password": string}}).to_string();
    for content_type in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let request = Request::patch(format!("{path}/made")).header("content-type", content_type);
        alice.call(request.body(full(patch.clone()))?).await?.success()?;
    }
    let operations = json!([{
        "op": "add", "path": "/data/other", "value": STANDARD.encode(secret("operation")),
    }]);
    let request = Request::patch(format!("{path}/made"))
        .header("content-type", "application/json-patch+json");
    alice.call(request.body(full(operations.to_string()))?).await?.success()?;
    let protobuf = "application/vnd.kubernetes.protobuf";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for accept in ["application/json", protobuf, table, "application/yaml", "application/cbor"] {
        for encoding in ["identity", "gzip"] {
            for query in ["", "/made", "?includeObject=Object", "?watch=true&timeoutSeconds=1"] {
                let request = Request::get(format!("{path}{query}")).header("accept", accept);
                alice.call(request.header("accept-encoding", encoding).body(full(""))?).await?;
            }
        }
    }
    // The control: the same search finds what is no secret, in compressed records and packed bodies alike.
    let public = format!("not-secret-at-all-{}", std::process::id());
    scene.plane().config_map("vault", "public", &json!({"text": public.repeat(100)})).await?;
    let request = Request::get("/api/v1/namespaces/vault/configmaps/public");
    let request = request.header("accept-encoding", "gzip");
    alice.call(request.body(full(""))?).await?.success()?;
    // A body cut off half-way, and one that is no JSON: withheld rather than stored raw.
    let broken = format!("{{\"kind\":\"Secret\",\"stringData\":{{\"p\":\"{}\"", secret("broken"));
    let mut request = json_request("POST", path, &json!(null))?;
    *request.body_mut() = full(broken);
    let reply = alice.call(request).await?;
    ensure!(reply.status == 400, "{}", reply.status);
    let rows = search_until(&gateway, &["--resource", "secrets"], |rows| rows.len() >= 45).await?;
    // It recorded something: an empty store would pass the search.
    let kept = rows.iter().any(|row| row["effect"] == "created" && row["name"].is_string());
    ensure!(kept, "{rows:?}");
    let control = Needle { name: "the control".into(), forms: vec![public.into_bytes()] };
    ensure!(
        search_records(&gateway.store(), &[control]).is_err(),
        "the search finds nothing at all"
    );
    let (_, metrics) = gateway.health("/metrics").await?;
    check_text(&scene, "the metrics", &metrics)
}
