//! What kubectl and client libraries rely on passes unharmed: the same request, direct and through.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{HeaderMap, Request, StatusCode};
use rig::client::{Endpoint, Protocol, Reply, full, json_request};
use rig::controlplane;
use rig::gateway::{Gateway, Options};
use serde_json::{Value, json};

use rig::wait::{Level, until};

use crate::runner::{Scenario, scenario};
use crate::scene::Scene;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("reads-pass-unharmed", reads_pass_unharmed),
        scenario!("patch-types-pass-unharmed", patch_types_pass_unharmed),
        scenario!("chunked-lists-and-410", chunked_lists_and_410),
        scenario!("429-and-goaway", too_many_requests_and_goaway, 180),
        scenario!("large-bodies-pass-unharmed", large_bodies_pass_unharmed),
        scenario!("task-and-cluster-prefixes", task_and_cluster_prefixes),
    ]
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// Representations: JSON, tables, protobuf, gzip, metadata only, and errors; byte for byte.
async fn reads_pass_unharmed(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let (direct, through) = (scene.plane().admin(), scene.as_user(&gateway, "alice").await?);
    fill(&scene, "reads", 40).await?;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let protobuf = "application/vnd.kubernetes.protobuf";
    let list = "/api/v1/namespaces/reads/configmaps";
    for protocol in PROTOCOLS {
        for (path, accept, encoding) in [
            (list, "application/json", "identity"),
            (list, table, "gzip"),
            (list, protobuf, "identity"),
            (list, protobuf, "gzip"),
            (list, metadata, "gzip"),
            (list, "application/yaml", "identity"),
            (list, "application/nonsense", "identity"),
            ("/api/v1/namespaces/reads/configmaps/note-0", protobuf, "identity"),
            ("/api/v1/namespaces/reads/configmaps/absent", "application/json", "identity"),
            (
                "/api/v1/namespaces/reads/configmaps?labelSelector=a%3Db",
                "application/json",
                "identity",
            ),
            (
                "/api/v1/namespaces/reads/configmaps?fieldSelector=nonsense%3D1",
                "application/json",
                "identity",
            ),
            ("/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf", "gzip"),
            ("/openapi/v3", "application/json", "gzip"),
            (
                "/apis",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                "gzip",
            ),
            ("/version", "application/json", "identity"),
        ] {
            let ask = async |endpoint: &Endpoint| {
                let request = Request::get(path).header("accept", accept);
                let request = request.header("accept-encoding", encoding).body(full(""))?;
                endpoint.connect(protocol).await?.call(request).await
            };
            // A list carries the cluster's revision, which others move between the two requests.
            until("both answers are the same", Duration::from_secs(10), async || {
                let (direct, through) = (ask(direct).await?, ask(&through).await?);
                let same = same(&direct, &through);
                Ok(match same.with_context(|| format!("{path} as {accept}, {encoding}")) {
                    Ok(()) => Level::Reached(()),
                    Err(error) => Level::NotYet(format!("{error:#}")),
                })
            })
            .await?;
        }
        // The API server answers HEAD on a resource with 405, and on /healthz with 200.
        for path in [list, "/healthz"] {
            let head = async |endpoint: &Endpoint| {
                let request = Request::head(path).body(full(""))?;
                endpoint.connect(protocol).await?.call(request).await
            };
            let (direct, through) = (head(direct).await?, head(&through).await?);
            same(&direct, &through).with_context(|| format!("HEAD {path}"))?;
        }
    }
    Ok(())
}

/// Status, body, and the headers that carry meaning.
fn same(direct: &Reply, through: &Reply) -> Result<()> {
    ensure!(
        direct.status == through.status,
        "{}: {}; {}",
        direct.status,
        through.status,
        through.text()
    );
    ensure!(direct.body == through.body, "bodies differ: {} and {}", direct.text(), through.text());
    let header = |headers: &HeaderMap, name: &str| headers.get(name).cloned();
    for name in [
        "content-type",
        "content-encoding",
        "vary",
        "etag",
        "warning",
        "cache-control",
        "x-kubernetes-pf-flowschema-uid",
    ] {
        // Priority levels follow the user: the administrator and alice may differ there.
        if name.starts_with("x-kubernetes-pf") {
            ensure!(
                through.headers.contains_key(name) == direct.headers.contains_key(name),
                "{name}"
            );
            continue;
        }
        let (direct, through) = (header(&direct.headers, name), header(&through.headers, name));
        ensure!(direct == through, "{name}: {direct:?} and {through:?}");
    }
    ensure!(through.headers.contains_key("audit-id"), "no Audit-Id");
    Ok(())
}

async fn patch_types_pass_unharmed(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let through = scene.as_user(&gateway, "alice").await?;
    scene.plane().namespace("patched").await?;
    let apply = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\ndata: {applied: \"1\"}\n";
    let patches = [
        ("application/apply-patch+yaml", "?fieldManager=rig&force=true", apply.to_owned()),
        ("application/merge-patch+json", "", json!({"data": {"merged": "1"}}).to_string()),
        (
            "application/strategic-merge-patch+json",
            "",
            json!({"data": {"strategic": "1"}}).to_string(),
        ),
        (
            "application/json-patch+json",
            "",
            json!([{"op": "add", "path": "/data/json", "value": "1"}]).to_string(),
        ),
    ];
    let path = "/api/v1/namespaces/patched/configmaps/note";
    for protocol in PROTOCOLS {
        let mut connection = through.connect(protocol).await?;
        for (content_type, query, body) in &patches {
            let request =
                Request::patch(format!("{path}{query}")).header("content-type", *content_type);
            let reply = connection.call(request.body(full(body.clone()))?).await?;
            reply.success().with_context(|| format!("{content_type} over {protocol:?}"))?;
        }
        let data = scene.plane().get(path).await?.json()?["data"].clone();
        ensure!(
            data == json!({"applied": "1", "merged": "1", "strategic": "1", "json": "1"}),
            "after all patches: {data}"
        );
        connection.call(Request::delete(path).body(full(""))?).await?.success()?;
    }
    // Dry runs and a conflict are answers like others.
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dry"}});
    let collection = "/api/v1/namespaces/patched/configmaps";
    let dry = through.json("POST", &format!("{collection}?dryRun=All"), &object).await?;
    ensure!(dry.status == StatusCode::CREATED, "dry run: {}", dry.status);
    through.json("POST", collection, &object).await?.success()?;
    let conflict = through.json("POST", collection, &object).await?;
    ensure!(conflict.status == StatusCode::CONFLICT, "conflict: {}", conflict.status);
    Ok(())
}

async fn chunked_lists_and_410(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let through = scene.as_user(&gateway, "alice").await?;
    fill(&scene, "chunked", 25).await?;
    let list = "/api/v1/namespaces/chunked/configmaps";
    let (mut names, mut next) = (0, String::new());
    loop {
        let page = through.get(&format!("{list}?limit=10{next}")).await?.success()?.json()?;
        names += page["items"].as_array().map_or(0, Vec::len);
        match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => next = format!("&continue={token}"),
            None => break,
        }
    }
    let all = scene.plane().get(list).await?.json()?;
    ensure!(Some(names) == all["items"].as_array().map(Vec::len), "{names} in pages");
    let kubeconfig = gateway.kubeconfig("alice", &scene.token("alice").await?, None)?;
    let said = scene
        .kubectl_ok(
            &kubeconfig,
            &["get", "configmaps", "-n", "chunked", "--chunk-size=7", "-o", "name"],
        )
        .await?;
    ensure!(said.lines().count() == names, "kubectl lists {}", said.lines().count());
    // Too old a version: a 410 as status of a list, and as ERROR event of a watch.
    for query in ["?resourceVersion=1&resourceVersionMatch=Exact", "?limit=1&continue=bm9uc2Vuc2U"]
    {
        let path = format!("{list}{query}");
        let (direct, through) =
            (scene.plane().admin().get(&path).await?, through.get(&path).await?);
        ensure!(
            direct.status == through.status,
            "{query}: {} and {}",
            direct.status,
            through.status
        );
        ensure!(direct.body == through.body, "{query}: {} and {}", direct.text(), through.text());
    }
    let path = format!("{list}?watch=true&resourceVersion=1&timeoutSeconds=5");
    let (direct, through) = (scene.plane().admin().get(&path).await?, through.get(&path).await?);
    ensure!(direct.status == through.status, "old watch: {} and {}", direct.status, through.status);
    // With a watch cache the server may answer from it; whatever it does, it does it for both.
    let kind = |reply: &Reply| -> Result<Value> {
        let first = reply.text().lines().next().unwrap_or("{}").to_owned();
        let event: Value = serde_json::from_str(&first)?;
        Ok(json!([event["type"], event["object"]["code"], event["object"]["reason"]]))
    };
    ensure!(
        kind(&direct)? == kind(&through)?,
        "old watch: {} and {}",
        direct.text(),
        through.text()
    );
    Ok(())
}

/// A server that is full says 429 with `Retry-After`, and one that sends GOAWAY loses no request.
async fn too_many_requests_and_goaway(scene: Rc<Scene>) -> Result<()> {
    let plane = scene
        .own_plane(controlplane::Options {
            goaway_chance: Some(0.02),
            api_server_flags: vec![
                "--enable-priority-and-fairness=false".into(),
                "--max-requests-inflight=1".into(),
                "--max-mutating-requests-inflight=1".into(),
            ],
            ..controlplane::Options::default()
        })
        .await?;
    let gateway =
        Gateway::start(scene.directory(), &plane, &[scene.issuer()], &Options::default()).await?;
    let through = scene.as_user(&gateway, "alice").await?;
    plane.namespace("busy").await?;
    let connection = through.connect(Protocol::Http2).await?;
    // 300 requests, so that GOAWAY comes with near certainty (0.98^300 is 0.2 %); 8 at a time, so that
    // some find the server full.
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let mut connection = connection.share().context("HTTP/2")?;
        workers.spawn_local(async move {
            let mut full_answers = 0;
            for round in 0..40 {
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": format!("note-{worker}-{round}")},
                });
                let mut attempts = 0;
                loop {
                    let request =
                        json_request("POST", "/api/v1/namespaces/busy/configmaps", &object)?;
                    let reply = connection.call(request).await?;
                    match reply.status {
                        StatusCode::CREATED => break,
                        StatusCode::TOO_MANY_REQUESTS => {
                            ensure!(
                                reply.headers.contains_key("retry-after"),
                                "429 without Retry-After"
                            );
                            full_answers += 1;
                        }
                        status => anyhow::bail!("{status}: {}", reply.text()),
                    }
                    attempts += 1;
                    ensure!(attempts < 1000, "never got through");
                    tokio::task::yield_now().await;
                }
            }
            Ok(full_answers)
        });
    }
    let mut full_answers = 0;
    while let Some(result) = workers.join_next().await {
        full_answers += result??;
    }
    println!("      {full_answers} answers were 429");
    let list = plane.get("/api/v1/namespaces/busy/configmaps?limit=500").await?.json()?;
    let made = list["items"].as_array().map_or(0, |items| {
        items
            .iter()
            .filter(|item| {
                item["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("note-"))
            })
            .count()
    });
    ensure!(made == 320, "{made} of 320 were made");
    Ok(())
}

async fn large_bodies_pass_unharmed(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let through = scene.as_user(&gateway, "alice").await?;
    scene.plane().namespace("large").await?;
    let collection = "/api/v1/namespaces/large/configmaps";
    for protocol in PROTOCOLS {
        let mut connection = through.connect(protocol).await?;
        for index in 0..8 {
            let name = format!("large-{index}-{protocol:?}").to_lowercase();
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                "data": {"text": "x".repeat(900_000)},
            });
            connection.call(json_request("POST", collection, &object)?).await?.success()?;
        }
        // Both as they were at one moment: the rest of the cluster writes in between.
        let now = scene.plane().get(&format!("{collection}?limit=1")).await?.json()?;
        let version = now["metadata"]["resourceVersion"].as_str().context("no version")?;
        let exactly = format!("{collection}?resourceVersion={version}&resourceVersionMatch=Exact");
        let (direct, through) =
            (scene.plane().get(&exactly).await?, connection.get(&exactly).await?);
        let (direct, through) = (direct.success()?, through.success()?);
        ensure!(
            direct.body == through.body,
            "{} and {} bytes",
            direct.body.len(),
            through.body.len()
        );
        // Over the API server's own bound: its answer, not ours.
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "huge"},
            "data": {"text": "x".repeat(4 * 1024 * 1024)},
        });
        let reply = connection.call(json_request("POST", collection, &object)?).await?;
        ensure!(
            reply.status == StatusCode::PAYLOAD_TOO_LARGE,
            "huge: {} {}",
            reply.status,
            reply.text()
        );
    }
    Ok(())
}

async fn task_and_cluster_prefixes(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let through = scene.as_user(&gateway, "bob").await?;
    for (path, task) in [
        ("/api/v1/namespaces/default", None),
        ("/clusters/rig/api/v1/namespaces/default", None),
        ("/tasks/T-1/api/v1/namespaces/default", Some("T-1")),
        ("/clusters/rig/tasks/T-1/api/v1/namespaces/default", Some("T-1")),
    ] {
        through.get(path).await?.success().with_context(|| path.to_owned())?;
        let task = json!(task);
        let sessions = gateway.recorder()?.sessions().await?;
        ensure!(sessions.iter().any(|session| session["task"] == task), "{path}: {sessions:?}");
    }
    let sessions = gateway.recorder()?.sessions().await?;
    ensure!(sessions.len() == 2, "two tasks are two sessions: {sessions:?}");
    Ok(())
}

async fn fill(scene: &Scene, namespace: &str, count: usize) -> Result<()> {
    scene.plane().namespace(namespace).await?;
    for index in 0..count {
        let data = json!({"text": "lorem ipsum ".repeat(20)});
        scene.plane().config_map(namespace, &format!("note-{index}"), &data).await?;
    }
    Ok(())
}
