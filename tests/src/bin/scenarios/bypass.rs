//! What goes round the gateway: reported with who it was and how much passed; and who the gateway's own clients are.

use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::{Gateway, Options};
use rig::node::pods::{Pod, manifest};
use rig::stopped::Stopped;
use rig::wait::{Level, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::account::Stolen;
use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("bypass-by-a-host-process", by_a_host_process),
        scenario!("bypass-that-was-there-before", that_was_there_before),
        scenario!("bypass-by-a-pod", by_a_pod),
        scenario!("bypass-through-a-stolen-socket", through_a_stolen_socket),
        scenario!("bypass-by-a-look-into-a-socket", by_a_look),
        scenario!("client-process-of-a-session", client_process),
    ]
}

/// A gateway that reports what its rules do not allow.
fn watching(allow: &Value, witness: &str) -> Options {
    let config = json!({"witness": {"allow": allow}});
    Options { config, witness: witness.into(), ..Options::default() }
}

/// The bypass that `is_it` recognises, once it is on record and over.
async fn ended(gateway: &Gateway, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let recorder = gateway.recorder()?;
    until("the bypass is on record", LIMIT, async || {
        let found = recorder.json(&["search", "--kind", "bypass", "--limit", "0"]).await?;
        let it = found.iter().find(|session| session["state"] == "ended" && is_it(session));
        Ok(match it {
            Some(session) => Level::Reached(session.clone()),
            None => Level::NotYet(format!("{found:?}")),
        })
    })
    .await
}

/// Not an HTTPS request: the API server answers it in plain text and closes, so that the bytes are known.
pub(crate) const PLAIN: &str = "GET / HTTP/1.0\r\n\r\n";

/// Speaks with the API server from this process; gives the local port and the bytes received.
async fn speak_plainly(port: u16) -> Result<(u16, usize)> {
    let mut direct = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let local = direct.local_addr()?.port();
    direct.write_all(PLAIN.as_bytes()).await?;
    let mut answer = Vec::new();
    direct.read_to_end(&mut answer).await?;
    ensure!(!answer.is_empty(), "the API server said nothing");
    Ok((local, answer.len()))
}

fn port_of(url: &str) -> Result<u16> {
    let port = url.rsplit(':').next().context("a URL with a port")?;
    port.trim_end_matches('/').parse().context("a port")
}

async fn by_a_host_process(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&watching(&json!([]), "ebpf")).await?;
    let (local, received) = speak_plainly(port_of(&scene.plane().url())?).await?;
    let local = format!("127.0.0.1:{local}");
    let found = ended(&gateway, |session| session["bypass"]["local"] == local.as_str()).await?;
    let bypass = &found["bypass"];
    ensure!(found["kind"] == "bypass" && found["cluster"] == "rig", "{found}");
    ensure!(bypass["sentBytes"] == PLAIN.len() && bypass["receivedBytes"] == received, "{found}");
    let process = &bypass["origin"]["process"];
    ensure!(process["pid"] == std::process::id(), "{found}");
    let own = std::env::current_exe()?;
    ensure!(process["executable"] == own.display().to_string(), "{found}");
    ensure!(bypass["origin"]["pod"].is_null(), "{found}");

    let admin = scene.plane().admin_kubeconfig()?;
    scene.kubectl_ok(&admin, &["get", "namespaces"]).await?;
    let of_kubectl = |session: &Value| {
        session["bypass"]["origin"]["process"]["comm"]
            .as_str()
            .is_some_and(|it| it.contains("kubectl"))
    };
    let found = ended(&gateway, of_kubectl).await?;
    ensure!(found["bypass"]["receivedBytes"].as_u64() > Some(1_000), "{found}");
    let id = found["session"].as_str().context("an id")?;
    let shown = gateway.recorder()?.json(&["show", id]).await?;
    ensure!(shown[0]["connections"][0]["relation"] == "direct", "{shown:?}");
    let (_, metrics) = gateway.health("/metrics").await?;
    let reported = "decklog_witness_bypass_connections_total{verdict=\"reported\"}";
    ensure!(
        metrics.lines().any(|line| line.starts_with(reported) && !line.ends_with(" 0")),
        "{metrics}"
    );
    allowed_is_counted(&scene).await
}

/// Whom a rule allows is counted, and not reported.
async fn allowed_is_counted(scene: &Rc<Scene>) -> Result<()> {
    let own = std::env::current_exe()?;
    let allow = json!([{"executable": own.display().to_string()}]);
    let options = Options { name: "allowing".into(), ..watching(&allow, "ebpf") };
    let gateway = scene.gateway(&options).await?;
    let (local, _) = speak_plainly(port_of(&scene.plane().url())?).await?;
    let allowed = "decklog_witness_bypass_connections_total{verdict=\"allowed\"}";
    until("it is counted", LIMIT, async || {
        let (_, metrics) = gateway.health("/metrics").await?;
        let counted =
            metrics.lines().any(|line| line.starts_with(allowed) && !line.ends_with(" 0"));
        Ok(Level::when(counted, || metrics))
    })
    .await?;
    let local = format!("127.0.0.1:{local}");
    let found = gateway.recorder()?.json(&["ls", "--kind", "bypass"]).await?;
    ensure!(!found.iter().any(|session| session["bypass"]["local"] == local.as_str()), "{found:?}");
    Ok(())
}

/// A connection that is older than the gateway, and one that no program tells of.
async fn that_was_there_before(scene: Rc<Scene>) -> Result<()> {
    let port = port_of(&scene.plane().url())?;
    for (name, witness) in [("programs", "ebpf"), ("without", "tcp-info")] {
        let mut direct = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let local = direct.local_addr()?.to_string();
        let options = Options { name: name.into(), ..watching(&json!([]), witness) };
        let gateway = scene.gateway(&options).await?;
        let recorder = gateway.recorder()?;
        until("it is on record while it is open", LIMIT, async || {
            let found = recorder.json(&["ls", "--kind", "bypass"]).await?;
            let is_it =
                |it: &Value| it["bypass"]["local"] == local.as_str() && it["state"] == "open";
            Ok(Level::when(found.iter().any(is_it), || format!("{found:?}")))
        })
        .await?;
        direct.write_all(PLAIN.as_bytes()).await?;
        direct.read_to_end(&mut Vec::new()).await?;
        drop(direct);
        let found = ended(&gateway, |session| session["bypass"]["local"] == local.as_str()).await?;
        ensure!(found["bypass"]["origin"]["process"]["pid"] == std::process::id(), "{found}");
    }
    Ok(())
}

/// A pod `rogue` that says [`PLAIN`] to the API server, shows the bytes of the answer, and does what `then` says.
pub(crate) fn rogue(api_server: SocketAddr, then: &str) -> Value {
    let (host, port) = (api_server.ip(), api_server.port());
    let script = format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {host} {port} | wc -c\n{then}\nsleep 3600"
    );
    manifest("rogue", &["sh", "-c", &script])
}

/// A pod that uses its own ServiceAccount's token is named; the kubelet, which a rule allows, is not.
async fn by_a_pod(scene: Rc<Scene>) -> Result<()> {
    let cluster = scene.world.cluster().await?;
    let api_server = cluster.plane.address_for_pods();
    let allow = json!([
        {"cgroup": "/decklog-node-*/kubelet.service"}, {"executable": "**/kube-*"},
    ]);
    let mut config = watching(&allow, "ebpf");
    config.config["witness"]["host"] = json!({"podLogs": cluster.pod_logs()});
    // The gateway's own way there is another.
    config.config["witness"]["endpoints"] = json!([api_server]);
    let gateway =
        Gateway::start(scene.directory(), &cluster.plane, &[scene.issuer()], &config).await?;
    let client = scene.directory().join("client");
    fs::create_dir_all(&client)?;
    fs::copy(scene.kubectl().binary(), client.join("kubectl"))?;
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut wanted = rogue(
        api_server,
        &format!(
            "/client/kubectl --server=https://{api_server} --certificate-authority={account}/ca.crt \
             --token=\"$(cat {account}/token)\" \
             --cache-dir=/tmp/cache get --raw /version"
        ),
    );
    wanted["spec"]["automountServiceAccountToken"] = json!(true);
    wanted["spec"]["volumes"] = json!([{"name": "client", "hostPath": {"path": client}}]);
    wanted["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "client", "mountPath": "/client"}]);
    let pod = Pod::run(&cluster.plane, "bypass", &wanted).await?;
    let of_pod = |session: &Value, comm: &str| {
        let origin = &session["bypass"]["origin"];
        origin["pod"]["name"] == "rogue" && origin["process"]["comm"] == comm
    };
    let found = ended(&gateway, |session| of_pod(session, "nc")).await?;
    let origin = &found["bypass"]["origin"];
    ensure!(
        origin["pod"]["namespace"] == "bypass" && origin["pod"]["container"] == "box",
        "{found}"
    );
    let uid = pod.get().await?["metadata"]["uid"].take();
    ensure!(origin["pod"]["uid"] == uid, "{found}, not {uid}");
    let found_kubectl = ended(&gateway, |session| of_pod(session, "kubectl")).await?;
    ensure!(found_kubectl["bypass"]["receivedBytes"].as_u64() > Some(500), "{found_kubectl}");
    let log = cluster.plane.get(&format!("{}/log", pod.path())).await?.text();
    ensure!(log.contains("gitVersion"), "the pod's own token works: {log}");
    let received: u64 = log.lines().next().unwrap_or_default().trim().parse().context("bytes")?;
    ensure!(found["bypass"]["receivedBytes"] == received, "{found}, not {received}");
    ensure!(found["bypass"]["sentBytes"] == PLAIN.len(), "{found}");
    pod.delete().await?;
    let all = gateway.recorder()?.json(&["ls", "--kind", "bypass"]).await?;
    let kubelets = |it: &&Value| it["bypass"]["origin"]["process"]["comm"] == "kubelet";
    ensure!(!all.iter().any(|it| kubelets(&it)), "the kubelet is allowed: {all:?}");
    Ok(())
}

/// Somebody reads from a socket of the gateway's behind its back.
async fn through_a_stolen_socket(scene: Rc<Scene>) -> Result<()> {
    let allow = json!([{"cgroup": "**"}]);
    let gateway = scene.gateway(&watching(&allow, "ebpf")).await?;
    let Stolen { socket, tls, local, .. } = Stolen::of(&scene, &gateway).await?;
    // Sent, not read: the stream that TLS protects is broken, and the gateway's counts stay whole.
    std::io::Write::write_all(&mut &socket, &[0; STOLEN])?;
    on_record_while_open(&gateway).await?;
    drop((socket, tls));
    let found = ended(&gateway, |session| session["bypass"]["relation"] == "intruder").await?;
    let bypass = &found["bypass"];
    ensure!(bypass["origin"]["process"]["pid"] == std::process::id(), "{found}");
    ensure!(bypass["remote"] == local.to_string() && bypass["sentBytes"] == STOLEN, "{found}");
    Ok(())
}

const STOLEN: usize = 7;

async fn on_record_while_open(gateway: &Gateway) -> Result<()> {
    let recorder = gateway.recorder()?;
    until("the intruder is on record while the connection lasts", LIMIT, async || {
        let found = recorder.json(&["ls", "--kind", "bypass"]).await?;
        Ok(Level::when(!found.is_empty(), || "nothing is on record".into()))
    })
    .await
}

/// Somebody reads what a client sends and leaves it where it is (`MSG_PEEK`): nothing is missing anywhere, no byte counts
/// twice, and it is told who looked.
async fn by_a_look(scene: Rc<Scene>) -> Result<()> {
    let allow = json!([{"cgroup": "**"}]);
    let gateway = scene.gateway(&watching(&allow, "ebpf")).await?;
    let Stolen { pid, socket, mut tls, local, request } = Stolen::of(&scene, &gateway).await?;
    let stopped = Stopped::new(pid)?;
    tls.write_all(request.as_bytes()).await?;
    tls.flush().await?;
    for _ in 0..3 {
        ensure!(socket.peek(&mut [0; 64])? > 0, "there is nothing to be seen");
    }
    drop((stopped, socket));
    on_record_while_open(&gateway).await?;
    search_until(&gateway, &[], |rows| rows.len() == 2 && !rows[0]["status"].is_null()).await?;
    drop(tls);
    let found = ended(&gateway, |session| session["bypass"]["relation"] == "intruder").await?;
    let bypass = &found["bypass"];
    ensure!(bypass["origin"]["process"]["pid"] == std::process::id(), "{found}");
    ensure!(bypass["remote"] == local.to_string(), "{found}");
    ensure!(bypass["sentBytes"] == 0, "{found}");
    // That the gateway's own account is whole finds `account::check`.
    Ok(())
}

/// kubectl on the gateway's node is known by its process, and what else it connects to is recorded with its session.
async fn client_process(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let kubeconfig = gateway.kubeconfig("alice", &scene.token("alice").await?, None)?;
    scene.kubectl_ok(&kubeconfig, &["get", "namespaces"]).await?;
    let recorder = gateway.recorder()?;
    let session = until("the session knows its client", LIMIT, async || {
        let sessions = recorder.json(&["ls", "--kind", "api"]).await?;
        let known = sessions.iter().find(|session| session["client"].is_object());
        Ok(known.map_or_else(
            || Level::NotYet(format!("{sessions:?}")),
            |session| Level::Reached(session.clone()),
        ))
    })
    .await?;
    let client = &session["client"];
    let executable = client["origin"]["process"]["executable"].as_str();
    ensure!(client["relation"] == "client", "{session}");
    // kubectl may be gone before anybody could look at its executable; the kernel's name of it is certain.
    let comm = client["origin"]["process"]["comm"].as_str().unwrap_or_default();
    ensure!(comm.contains("kubectl"), "{session}");
    ensure!(executable.is_none_or(|path| path.contains("kubectl")), "{session}");
    let id = session["session"].as_str().context("an id")?;
    let shown = recorder.run(&["show", id]).await?;
    ensure!(shown.stdout.contains("client") && shown.stdout.contains("kubectl"), "{shown:?}");
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(30);
