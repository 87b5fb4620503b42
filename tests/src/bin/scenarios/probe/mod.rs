//! The witness in two processes: a probe that gave its rights up, and a gateway that never had any and would not
//! survive a call of bpf(2). In pods, too.

mod deploy;
mod rollout;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use recorder_user::model::{AccountState, Record, Timestamp, WitnessEvent};
use recorder_user::store::Reader;
use rig::client::Protocol;
use rig::gateway::{Gateway, Options};
use rig::probe::Probe;
use rig::wait::{Level, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::account::{all_complete, busy_visit, changes};
use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("probe-witnesses-a-gateway-without-rights", without_rights),
        scenario!("probe-lost-and-back", lost_and_back),
        scenario!("probe-stopped-is-lost", stopped_is_lost),
        scenario!("probe-killed-under-load", killed_under_load),
        scenario!("probe-keeps-notices-for-the-next-gateway", keeps_notices),
        scenario!("deploy-renders", deploy::renders),
        scenario!("deploy-privileged", deploy::privileged, 600),
        scenario!("deploy-split", deploy::split, 600),
    ]
}

async fn start(scene: &Scene) -> Result<(Probe, Gateway)> {
    let probe = Probe::start(scene.directory()).await?;
    let gateway = scene.gateway(&options(&probe)).await?;
    Ok((probe, gateway))
}

fn options(probe: &Probe) -> Options {
    let witness = json!({"probe": probe.socket()});
    Options {
        witness: "ebpf".into(),
        config: json!({"witness": witness}),
        confined: true,
        ..Options::default()
    }
}

async fn without_rights(scene: Rc<Scene>) -> Result<()> {
    let (mut probe, mut gateway) = start(&scene).await?;
    probe.has_no_rights()?;
    busy_visit(&scene, &gateway).await?;
    all_complete(&gateway).await?;
    let capability = capability(&gateway).await?;
    ensure!(capability["tier"] == "T1" && capability["selfTest"] == true, "{capability}");
    probe.has_no_rights()?;
    // A second gateway is refused while the first is served, and served when it left.
    let other = Options { name: "other".into(), ..options(&probe) };
    let mut other = Gateway::prepare(scene.directory(), scene.plane(), &[scene.issuer()], &other)?;
    other.launch()?;
    until("the second gateway is refused", super::scene::RECORD_LIMIT, async || {
        let refused = |line: &Value| line["message"] == "a gateway is refused";
        let log = probe.log()?;
        Ok(Level::when(log.iter().any(refused), || format!("{log:?}")))
    })
    .await?;
    gateway.stop().await?;
    other.ready().await?;
    other.stop().await?;
    probe.stop().await?;
    ensure!(!probe.socket().exists(), "the probe leaves its socket behind");
    Ok(())
}

/// What `recorder witness` says.
async fn capability(gateway: &Gateway) -> Result<Value> {
    let rows = gateway.recorder()?.json(&["witness"]).await?;
    Ok(rows.into_iter().next().context("no line of recorder witness")?["witness"].take())
}

/// A probe that was stopped also tells of itself that it was.
async fn changed_to(gateway: &Gateway, expected: &[WitnessEvent]) -> Result<()> {
    until("the change is on record", super::scene::RECORD_LIMIT, async || {
        let changes = changes(gateway)?;
        Ok(Level::when(changes.starts_with(expected), || format!("{changes:?}")))
    })
    .await
}

/// One request on a connection of its own, and its account.
async fn account_of_one(scene: &Scene, gateway: &Gateway, name: &str) -> Result<Value> {
    let alice = scene.as_user(gateway, "alice").await?;
    let path = format!("/api/v1/namespaces/default/configmaps/{name}");
    alice.connect(Protocol::Http1).await?.get(&path).await?;
    let settled = |rows: &[Value]| rows.iter().any(|row| !row["status"].is_null());
    let mut rows = search_until(gateway, &["--name", name], settled).await?;
    Ok(rows.pop().context("one request")?["account"].take())
}

async fn lost_and_back(scene: Rc<Scene>) -> Result<()> {
    let (mut probe, gateway) = start(&scene).await?;
    let account = account_of_one(&scene, &gateway, "before").await?;
    ensure!(account["state"] == "complete", "{account}");
    probe.kill()?;
    changed_to(&gateway, &[WitnessEvent::ProbeLost]).await?;
    let account = account_of_one(&scene, &gateway, "meanwhile").await?;
    ensure!(account["state"] == "unwitnessed", "{account}");
    probe.resume().await?;
    changed_to(&gateway, &[WitnessEvent::ProbeLost, WitnessEvent::Recovered]).await?;
    let account = account_of_one(&scene, &gateway, "after").await?;
    ensure!(account["state"] == "complete", "new connections on both sides: {account}");
    Ok(())
}

/// A process that does not run any more says nothing, though its socket is there.
async fn stopped_is_lost(scene: Rc<Scene>) -> Result<()> {
    let (probe, gateway) = start(&scene).await?;
    probe.signal(libc::SIGSTOP)?;
    changed_to(&gateway, &[WitnessEvent::ProbeLost]).await?;
    let account = account_of_one(&scene, &gateway, "meanwhile").await?;
    ensure!(account["state"] == "unwitnessed", "{account}");
    probe.signal(libc::SIGCONT)?;
    changed_to(&gateway, &[WitnessEvent::ProbeLost, WitnessEvent::Recovered]).await?;
    let account = account_of_one(&scene, &gateway, "after").await?;
    ensure!(account["state"] == "complete", "{account}");
    Ok(())
}

/// The probe dies three times while clients are busy, on connections that stay and on new ones. No request fails; what
/// was under way while nobody counted is unwitnessed, and nothing of it is called complete.
async fn killed_under_load(scene: Rc<Scene>) -> Result<()> {
    const DEATHS: usize = 3;
    const WHILE: Duration = Duration::from_millis(500);
    let (mut probe, gateway) = start(&scene).await?;
    let alice = Rc::new(scene.as_user(&gateway, "alice").await?);
    let busy = Rc::new(Cell::new(true));
    let mut clients = JoinSet::new();
    for stays in [true, false] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let (alice, busy) = (Rc::clone(&alice), Rc::clone(&busy));
            clients.spawn_local(async move {
                let mut connection = alice.connect(protocol).await?;
                while busy.get() {
                    if !stays {
                        connection = alice.connect(protocol).await?;
                    }
                    connection.get("/api/v1/namespaces").await?.success()?;
                }
                anyhow::Ok(())
            });
        }
    }
    let mut blind = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..DEATHS {
        tokio::time::sleep(WHILE).await;
        probe.kill()?;
        let begun = Timestamp::now();
        expected.push(WitnessEvent::ProbeLost);
        changed_to(&gateway, &expected).await?;
        tokio::time::sleep(WHILE).await;
        blind.push((begun, Timestamp::now()));
        probe.resume().await?;
        expected.push(WitnessEvent::Recovered);
        changed_to(&gateway, &expected).await?;
    }
    tokio::time::sleep(WHILE).await;
    busy.set(false);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let (mut complete, mut unwitnessed) = (0, 0);
    let mut begun = HashMap::new();
    for stored in Reader::open(&gateway.store())?.records() {
        match stored?.record {
            Record::ExchangeOpened(opened) => drop(begun.insert(opened.exchange, opened.time)),
            Record::ExchangeSettled(settled) => {
                let from = begun[&settled.exchange];
                let is_blind =
                    blind.iter().any(|(lost, back)| from < *back && settled.time > *lost);
                match settled.account.state {
                    AccountState::Complete if !is_blind => complete += 1,
                    AccountState::Unwitnessed => unwitnessed += usize::from(is_blind),
                    _ => anyhow::bail!("{blind:?}: {settled:?} from {from}"),
                }
            }
            _ => {}
        }
    }
    println!("      {complete} complete, {unwitnessed} unwitnessed while there was no probe");
    ensure!(complete > 0 && unwitnessed > 0, "{complete} complete, {unwitnessed} unwitnessed");
    Ok(())
}

/// Who goes round a gateway while it is restarted is told to the next one.
async fn keeps_notices(scene: Rc<Scene>) -> Result<()> {
    let (probe, mut gateway) = start(&scene).await?;
    // The programs know the API server's address from now on.
    account_of_one(&scene, &gateway, "before").await?;
    gateway.stop().await?;
    let direct = scene.plane().anonymous()?;
    direct.connect(Protocol::Http1).await?.get("/version").await?;
    gateway.resume().await?;
    let account = account_of_one(&scene, &gateway, "after").await?;
    ensure!(account["state"] == "complete", "{account}");
    let served: Vec<_> =
        probe.log()?.into_iter().filter(|line| line["message"] == "a gateway is served").collect();
    let [first, second] = &served[..] else { anyhow::bail!("{served:?}") };
    ensure!(
        first["cgroup"] == second["cgroup"] && first["process"] != second["process"],
        "{served:?}"
    );
    // It connected, was connected, and left.
    ensure!(second["kept"].as_u64() >= Some(3), "{second}");
    Ok(())
}
