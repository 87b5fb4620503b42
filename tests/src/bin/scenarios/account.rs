//! The account: what the kernel counted equals what was recorded.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use recorder_user::model::{
    Account, AccountState, CapabilityRecord as Witness, ConnectionClosed, Gap, Record,
    SocketEvidence, Tier, WitnessEvent,
};
use recorder_user::store::Reader;
use rig::client::Protocol;
use rig::frozen::Frozen;
use rig::gateway::Options;
use rig::stopped::Stopped;
use rig::theft;
use rig::wait::{Level, until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

/// The scenarios that make a gap.
const STOLEN: [&str; 3] =
    ["stolen-bytes-are-a-gap", "spliced-bytes-are-a-gap", "bypass-through-a-stolen-socket"];

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("account-is-complete", account_is_complete),
        scenario!("account-without-ebpf", account_without_ebpf),
        scenario!("account-of-rude-clients-is-complete", rude_clients),
        scenario!("account-of-ten-thousand-short-connections", short_connections, 300),
        scenario!("account-with-a-full-ring", full_ring),
        scenario!("account-after-the-witness-was-cut-off", cut_off_witness),
        scenario!("stolen-bytes-are-a-gap", stolen_bytes_are_a_gap),
        scenario!("spliced-bytes-are-a-gap", spliced_bytes_are_a_gap),
    ]
}

/// Fails when any account of any scenario has a gap: what the kernel counted on every connection, on both
/// sides and in three ways, is what the gateway read and wrote. Only [`STOLEN`] make one, and must. Whatever is
/// complete is kernel-verified where programs counted and nothing happened to them, and nowhere else.
pub(crate) fn check(scene: &Scene, scenario: &str) -> Result<()> {
    let mut found = Found::default();
    for entry in std::fs::read_dir(scene.directory())? {
        let store = entry?.path().join("store");
        if store.is_dir() {
            found.look_into(&store)?;
        }
    }
    let Found { compared, gaps, wrong, .. } = found;
    let expected = STOLEN.contains(&scenario);
    ensure!(gaps.is_empty() != expected, "{} gaps in {compared} accounts: {gaps:?}", gaps.len());
    ensure!(wrong.is_empty(), "{} of {compared} accounts are wrong: {wrong:?}", wrong.len());
    Ok(())
}

#[derive(Default)]
struct Found {
    compared: u64,
    gaps: Vec<Account>,
    wrong: Vec<String>,
    /// Whether programs count, by the last start of a gateway.
    programs: bool,
    /// Whether anything happened to them since.
    disturbed: bool,
}

impl Found {
    fn look_into(&mut self, store: &Path) -> Result<()> {
        // A record that a scenario has tampered with is that scenario's to find.
        for stored in Reader::open(store)?.records().filter_map(Result::ok) {
            match stored.record {
                Record::GatewayStarted(started) => {
                    let Witness { tier, self_test, .. } = started.witness;
                    self.programs = self_test && matches!(tier, Tier::T1 | Tier::T4);
                    self.disturbed = false;
                }
                Record::WitnessChanged(_) => self.disturbed = true,
                Record::ConnectionClosed(closed) => self.closed(&closed),
                Record::ExchangeSettled(settled) => {
                    for side in [&settled.account.client, &settled.account.upstream] {
                        side.iter().for_each(|evidence| self.span(evidence));
                    }
                    self.account(settled.account);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn account(&mut self, account: Account) {
        self.compared += 1;
        let complete = account.state == AccountState::Complete;
        let verified = complete && self.programs;
        let wrong = account.kernel_verified && !verified;
        if wrong || (verified && !self.disturbed && !account.kernel_verified) {
            self.wrong.push(format!("programs {}, {account:?}", self.programs));
        }
        if account.state == AccountState::Gap {
            self.gaps.push(account);
        }
    }

    /// An exchange's part of a connection is within the connection.
    fn span(&mut self, evidence: &SocketEvidence) {
        let Some(span) = &evidence.span else { return };
        let whole = [
            evidence.kernel_in_bytes.unwrap_or(evidence.gateway_in_bytes),
            evidence.kernel_out_bytes.unwrap_or(evidence.gateway_out_bytes),
        ];
        let inbound = span.in_from <= span.in_to && span.in_to <= whole[0];
        let outbound = span.out_from <= span.out_to && span.out_to <= whole[1];
        let timed = span.first_in <= span.last_in;
        if !(inbound && outbound && timed) {
            self.wrong.push(format!("{evidence:?}"));
        }
    }

    fn closed(&mut self, closed: &ConnectionClosed) {
        let ends: Vec<_> = closed.ends.iter().map(|end| end.out_to).collect();
        // By the kernel's count, which a stranger's bytes are in too.
        let evidence = &closed.evidence;
        let whole = evidence.kernel_out_bytes.unwrap_or(evidence.gateway_out_bytes);
        if !ends.is_sorted() || ends.last().is_some_and(|last| *last > whole) {
            self.wrong.push(format!("{closed:?}"));
        }
        self.span(&closed.evidence);
        self.account(closed.account.clone());
    }
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
pub(crate) async fn busy_visit(scene: &Scene, gateway: &rig::gateway::Gateway) -> Result<()> {
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

pub(crate) async fn all_complete(gateway: &rig::gateway::Gateway) -> Result<()> {
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

/// Somebody detaches one of the gateway's programs: that is on record and in the metrics within a second, the
/// gateway goes on, and nothing is called kernel-verified that was open then.
async fn cut_off_witness(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let recorder = gateway.recorder()?;
    if !attached(&gateway, "sock_ops")? {
        println!("      no sock_ops program here");
        return Ok(());
    }
    let alice = scene.as_user(&gateway, "alice").await?;
    let mut connection = alice.connect(Protocol::Http1).await?;
    connection.get("/api/v1/namespaces").await?.success()?;
    theft::cut_off_sock_ops(gateway.id().context("the gateway runs")?)?;
    until("the loss is on record", Duration::from_secs(10), async || {
        let told = recorder.json(&["witness"]).await?;
        let change = &told.first().context("the witness is told of")?["changes"][0];
        Ok(Level::when(change["event"] == "detached", || format!("{told:?}")))
    })
    .await?;
    connection.get("/api/v1/namespaces").await?.success()?;
    drop(connection);
    let (_, metrics) = gateway.health("/metrics").await?;
    let counted = r#"decklog_witness_changes_total{event="detached"} 1"#;
    ensure!(metrics.contains(counted), "no {counted} in\n{metrics}");
    until("the connection's account is on record", Duration::from_secs(10), async || {
        let Some(account) = accounts_of_clients(&gateway)?.pop() else {
            return Ok(Level::NotYet("not there".into()));
        };
        ensure!(account.state == AccountState::Complete, "bytes were counted: {account:?}");
        ensure!(!account.kernel_verified, "{account:?}");
        Ok(Level::Reached(()))
    })
    .await
}

fn attached(gateway: &rig::gateway::Gateway, hook: &str) -> Result<bool> {
    for stored in Reader::open(&gateway.store())?.records() {
        if let Record::GatewayStarted(started) = stored?.record {
            let hooks = started.witness.hooks;
            return Ok(hooks.iter().any(|state| state.hook == hook && state.error.is_none()));
        }
    }
    Ok(false)
}

/// Clients that reset, close one half, and vanish in the middle of what they send or read.
async fn rude_clients(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("rude").await?;
    let data = json!({"text": "x".repeat(200_000)});
    scene.plane().config_map("rude", "large", &data).await?;
    let token = scene.token("alice").await?;
    let head = |method: &str, path: &str, length: usize| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let large = head("GET", "/api/v1/namespaces/rude/configmaps/large", 0);
    let upload = head("POST", "/api/v1/namespaces/rude/configmaps", 100_000);
    let mut part = [0; 1_000];
    for _ in 0..3 {
        // Resets with most of the response unread.
        let mut tls = gateway.endpoint().tls(&[b"http/1.1"]).await?;
        tls.write_all(large.as_bytes()).await?;
        tls.read_exact(&mut part).await?;
        tls.get_ref().0.set_zero_linger()?;
        drop(tls);
        // Says that it is done sending, and reads what still comes.
        let mut tls = gateway.endpoint().tls(&[b"http/1.1"]).await?;
        tls.write_all(large.as_bytes()).await?;
        tls.shutdown().await?;
        drop(tls.read_to_end(&mut Vec::new()).await);
        // Vanishes half-way through a body, without a word of TLS.
        let mut tls = gateway.endpoint().tls(&[b"http/1.1"]).await?;
        tls.write_all(upload.as_bytes()).await?;
        tls.write_all(&[b' '; 50_000]).await?;
        tls.flush().await?;
        drop(tls);
        // Not even TLS.
        let mut tcp = TcpStream::connect(gateway.endpoint().address()).await?;
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        drop(tcp.read_to_end(&mut Vec::new()).await);
    }
    until("every connection's account is on record", Duration::from_secs(10), async || {
        let accounts = accounts_of_clients(&gateway)?;
        for account in &accounts {
            ensure!(account.state == AccountState::Complete, "{account:?}");
        }
        Ok(Level::when(accounts.len() == 12, || format!("{} accounts", accounts.len())))
    })
    .await
}

/// Ten thousand connections that carry one request each: every one of them has its account.
async fn short_connections(scene: Rc<Scene>) -> Result<()> {
    const CONNECTIONS: usize = 10_000;
    const AT_ONCE: usize = 16;
    let gateway = scene.gateway(&Options::default()).await?;
    let alice = Rc::new(scene.as_user(&gateway, "alice").await?);
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let alice = Rc::clone(&alice);
        clients.spawn_local(async move {
            for _ in 0..CONNECTIONS / AT_ONCE {
                alice.get("/api/v1/namespaces/default").await?.success()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let accounts = until("every connection has its account", Duration::from_secs(30), async || {
        let accounts = accounts_of_clients(&gateway)?;
        let all = accounts.len() == CONNECTIONS;
        Ok(if all {
            Level::Reached(accounts)
        } else {
            Level::NotYet(format!("{} accounts", accounts.len()))
        })
    })
    .await?;
    let odd = accounts.iter().find(|account| account.state != AccountState::Complete);
    ensure!(odd.is_none(), "{odd:?}");
    Ok(())
}

fn accounts_of_clients(gateway: &rig::gateway::Gateway) -> Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for stored in Reader::open(&gateway.store())?.records() {
        match stored?.record {
            Record::ConnectionClosed(closed) if closed.role == "client" => {
                accounts.push(closed.account);
            }
            _ => {}
        }
    }
    Ok(accounts)
}

/// Nobody empties the kernel's ring until it is full. Byte counts do not pass through it and stay exact; that notices
/// were lost is on record, and in the account of the connection whose notices they were.
async fn full_ring(scene: Rc<Scene>) -> Result<()> {
    let config = json!({"witness": {"ringSize": "4KiB"}});
    let options = Options { config, ..Options::default() };
    let gateway = scene.gateway(&options).await?;
    if !attached(&gateway, "sock_ops")? {
        println!("      no ring here");
        return Ok(());
    }
    let alice = scene.as_user(&gateway, "alice").await?;
    let mut connection = alice.connect(Protocol::Http1).await?;
    connection.get("/api/v1/namespaces").await?.success()?;
    let frozen = Frozen::thread(gateway.id().context("the gateway runs")?, "witness-drain")?;
    for _ in 0..50 {
        // Every turn of direction is a notice, on either side of the gateway.
        connection.get("/api/v1/namespaces").await?.success()?;
    }
    noticed(&gateway, WitnessEvent::Overflow).await?;
    noticed(&gateway, WitnessEvent::NoticesStopped).await?;
    drop(frozen);
    noticed(&gateway, WitnessEvent::Recovered).await?;
    connection.get("/api/v1/namespaces").await?.success()?;
    drop(connection);
    alice.connect(Protocol::Http1).await?.get("/api/v1/namespaces").await?.success()?;
    until("both connections' accounts are on record", Duration::from_secs(10), async || {
        let accounts = accounts_of_clients(&gateway)?;
        let [lossy, whole] = &accounts[..] else {
            return Ok(Level::NotYet(format!("{accounts:?}")));
        };
        ensure!(lossy.state == AccountState::Complete, "{lossy:?}");
        let reason = lossy.reason.as_deref().unwrap_or_default();
        ensure!(reason.contains("notices were lost"), "{lossy:?}");
        ensure!(whole.state == AccountState::Complete && whole.reason.is_none(), "{whole:?}");
        Ok(Level::Reached(()))
    })
    .await
}

/// The changes of the witness on record.
pub(crate) fn changes(gateway: &rig::gateway::Gateway) -> Result<Vec<WitnessEvent>> {
    let mut changes = Vec::new();
    for stored in Reader::open(&gateway.store())?.records() {
        if let Record::WitnessChanged(changed) = stored?.record {
            changes.push(changed.event);
        }
    }
    Ok(changes)
}

async fn noticed(gateway: &rig::gateway::Gateway, event: WitnessEvent) -> Result<()> {
    until("the change of the witness is on record", Duration::from_secs(10), async || {
        let changes = changes(gateway)?;
        Ok(Level::when(changes.contains(&event), || format!("{event:?} is not in {changes:?}")))
    })
    .await
}

/// Bytes that someone else receives from the gateway's socket: the kernel counts them, the gateway does
/// not, and the account says so to the byte.
async fn stolen_bytes_are_a_gap(scene: Rc<Scene>) -> Result<()> {
    let gaps = theft(scene, theft::read).await?;
    ensure!(gaps.iter().all(|gap| !gap.tcp), "the hooks see a receive call: {gaps:?}");
    Ok(())
}

/// Bytes that leave the socket by a way that no hook sees: TCP's own count has them.
async fn spliced_bytes_are_a_gap(scene: Rc<Scene>) -> Result<()> {
    theft(scene, theft::splice).await.map(drop)
}

/// A client's connection that has carried a request, and a copy of the gateway's socket of it.
pub(crate) struct Stolen {
    /// The gateway.
    pub(crate) pid: u32,
    pub(crate) socket: std::net::TcpStream,
    pub(crate) tls: TlsStream<TcpStream>,
    /// The client's end.
    pub(crate) local: SocketAddr,
    /// What the client sent.
    pub(crate) request: String,
}

impl Stolen {
    pub(crate) async fn of(scene: &Scene, gateway: &rig::gateway::Gateway) -> Result<Self> {
        let token = scene.token("alice").await?;
        let mut tls = gateway.endpoint().tls(&[b"http/1.1"]).await?;
        let request = format!(
            "GET /api/v1/namespaces HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        tls.write_all(request.as_bytes()).await?;
        let mut head = [0; 15];
        tls.read_exact(&mut head).await?;
        ensure!(&head == b"HTTP/1.1 200 OK", "{}", String::from_utf8_lossy(&head));
        search_until(gateway, &[], |rows| !rows.is_empty()).await?;
        let pid = gateway.id().context("the gateway runs")?;
        let local = tls.get_ref().0.local_addr()?;
        let socket = theft::socket_towards(pid, local.port())?;
        Ok(Self { pid, socket, tls, local, request })
    }
}

/// Takes bytes from a gateway's socket; gives the gaps that its final account has.
async fn theft(
    scene: Rc<Scene>,
    steal: fn(&std::net::TcpStream, usize) -> Result<()>,
) -> Result<Vec<Gap>> {
    const BYTES: usize = 100;
    let gateway = scene.gateway(&Options::default()).await?;
    let Stolen { pid, socket, mut tls, .. } = Stolen::of(&scene, &gateway).await?;
    // Stopped, so that the bytes are there for us and not for the gateway.
    let stopped = Stopped::new(pid)?;
    tls.get_mut().0.write_all(&[0; BYTES]).await?;
    steal(&socket, BYTES)?;
    drop(stopped);
    drop((socket, tls));
    let recorder = gateway.recorder()?;
    until("the session's account has the gap", Duration::from_secs(10), async || {
        let sessions = recorder.sessions().await?;
        let found = sessions.iter().any(|session| {
            session["account"]["state"] == "gap" && session["account"]["gapBytes"] == BYTES
        });
        Ok(Level::when(found, || format!("{sessions:?}")))
    })
    .await?;
    let mut gaps = Vec::new();
    for stored in Reader::open(&gateway.store())?.records() {
        if let Record::ConnectionClosed(closed) = stored?.record {
            gaps.extend(closed.account.gaps);
        }
    }
    Ok(gaps)
}
