//! The account: what the kernel counted equals what was recorded.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use recorder_user::model::{AccountState, Record};
use recorder_user::store::Reader;
use rig::client::Protocol;
use rig::gateway::Options;
use rig::theft;
use rig::wait::{Level, until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

/// The scenario that makes a gap.
const STOLEN: &str = "stolen-bytes-are-a-gap";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("account-is-complete", account_is_complete),
        scenario!("account-without-ebpf", account_without_ebpf),
        scenario!("stolen-bytes-are-a-gap", stolen_bytes_are_a_gap),
    ]
}

/// Fails when any account of any scenario has a gap: what the kernel counted on every connection, on both
/// sides, is what the gateway read and wrote. Only [`STOLEN`] makes one, and must.
pub(crate) fn check(scene: &Scene, scenario: &str) -> Result<()> {
    let (mut compared, mut gaps) = (0_u64, Vec::new());
    for entry in std::fs::read_dir(scene.directory())? {
        let store = entry?.path().join("store");
        if !store.is_dir() {
            continue;
        }
        // A record that a scenario has tampered with is that scenario's to find.
        for stored in Reader::open(&store)?.records().filter_map(Result::ok) {
            let account = match stored.record {
                Record::ConnectionClosed(closed) => closed.account,
                Record::ExchangeSettled(settled) => settled.account,
                _ => continue,
            };
            compared += 1;
            if account.state == AccountState::Gap {
                gaps.push(account);
            }
        }
    }
    let expected = scenario == STOLEN;
    ensure!(gaps.is_empty() != expected, "{} gaps in {compared} accounts: {gaps:?}", gaps.len());
    Ok(())
}

async fn account_is_complete(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    busy_visit(&scene, &gateway).await?;
    all_complete(&gateway).await
}

async fn account_without_ebpf(scene: Rc<Scene>) -> Result<()> {
    let options = Options { witness: "tcp-info".into(), ..Options::default() };
    let gateway = scene.gateway(&options).await?;
    busy_visit(&scene, &gateway).await?;
    all_complete(&gateway).await?;
    let off = Options { name: "off".into(), witness: "off".into(), ..Options::default() };
    let gateway = scene.gateway(&off).await?;
    busy_visit(&scene, &gateway).await?;
    let rows = search_until(&gateway, &[], |rows| rows.len() > 10).await?;
    for row in rows {
        let account = &row["account"];
        ensure!(account["state"] == "unwitnessed" && account["reason"].is_string(), "{row}");
    }
    Ok(())
}

/// Small and large, both protocols, refused and allowed, on shared and on single connections.
async fn busy_visit(scene: &Scene, gateway: &rig::gateway::Gateway) -> Result<()> {
    scene.plane().namespace("counted").await?;
    for index in 0..20 {
        let data = json!({"text": "x".repeat(20_000)});
        scene.plane().config_map("counted", &format!("note-{index}"), &data).await?;
    }
    let alice = scene.as_user(gateway, "alice").await?;
    let nobody = scene.as_user(gateway, "nobody").await?;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = alice.connect(protocol).await?;
        for _ in 0..5 {
            connection.get("/api/v1/namespaces/counted/configmaps").await?.success()?;
            connection.get("/api/v1/namespaces/counted/configmaps/note-1").await?.success()?;
        }
        nobody.connect(protocol).await?.get("/api/v1/namespaces/counted/configmaps").await?;
    }
    let kubeconfig = gateway.kubeconfig("alice", &scene.token("alice").await?, None)?;
    scene.kubectl_ok(&kubeconfig, &["get", "configmaps", "-n", "counted"]).await.map(drop)
}

async fn all_complete(gateway: &rig::gateway::Gateway) -> Result<()> {
    let rows = search_until(gateway, &[], |rows| rows.len() > 20).await?;
    for row in &rows {
        ensure!(row["account"]["state"] == "complete", "{row}");
    }
    let recorder = gateway.recorder()?;
    until("every session's account is complete", Duration::from_secs(10), async || {
        let sessions = recorder.sessions().await?;
        let complete = sessions.iter().all(|session| session["account"]["state"] == "complete");
        Ok(Level::when(complete && !sessions.is_empty(), || format!("{sessions:?}")))
    })
    .await
}

/// Bytes that someone else takes from the gateway's socket: the kernel counts them, the gateway does
/// not, and the account says so to the byte.
async fn stolen_bytes_are_a_gap(scene: Rc<Scene>) -> Result<()> {
    const BYTES: usize = 100;
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    let mut tls = gateway.endpoint().tls(&[b"http/1.1"]).await?;
    let request = format!(
        "GET /api/v1/namespaces HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    tls.write_all(request.as_bytes()).await?;
    let mut head = [0; 15];
    tls.read_exact(&mut head).await?;
    ensure!(&head == b"HTTP/1.1 200 OK", "{}", String::from_utf8_lossy(&head));
    search_until(&gateway, &[], |rows| !rows.is_empty()).await?;

    let port = tls.get_ref().0.local_addr()?.port();
    let pid = gateway.id().context("the gateway runs")?;
    let socket = theft::socket_towards(pid, port)?;
    // Stopped, so that the bytes are there for us and not for the gateway.
    gateway.signal(libc::SIGSTOP)?;
    let stolen = async {
        theft::wait_stopped(pid)?;
        tls.get_mut().0.write_all(&[0; BYTES]).await?;
        theft::read(&socket, BYTES)
    };
    let stolen = stolen.await;
    gateway.signal(libc::SIGCONT)?;
    stolen?;
    drop((socket, tls));
    let recorder = gateway.recorder()?;
    until("the session's account has the gap", Duration::from_secs(10), async || {
        let sessions = recorder.sessions().await?;
        let found = sessions.iter().any(|session| {
            session["account"]["state"] == "gap" && session["account"]["gapBytes"] == BYTES
        });
        Ok(Level::when(found, || format!("{sessions:?}")))
    })
    .await
}
