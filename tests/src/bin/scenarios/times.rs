//! Where time went, and what each exchange had of its connections: delays that are made here must be found where
//! they were made.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use recorder_user::model::{ConnectionClosed, ExchangeSettled, Record, Spent, Tier};
use recorder_user::store::Reader;
use rig::client::{Protocol, json_request};
use rig::frozen::Frozen;
use rig::gateway::{Gateway, Options};
use rig::stopped::Stopped;
use rig::wait::{Level, until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("time-of-a-slow-client-is-the-clients", slow_client),
        scenario!("time-of-a-slow-api-server-is-the-api-servers", slow_api_server),
        scenario!("time-of-a-slow-record-is-the-gateways", slow_record),
        scenario!("time-of-a-stopped-gateway-is-in-the-queue", stopped_gateway),
        scenario!("http2-exchanges-that-share-a-connection-say-so", shared_connection),
    ]
}

const DELAYS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150)];

const PATH: &str = "/api/v1/namespaces/default";

/// A body that comes late.
async fn slow_client(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    for (index, delay) in DELAYS.into_iter().enumerate() {
        let mut tls = gateway.endpoint().tls(&[b"http/1.1"]).await?;
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"slow-{index}"}}}}"#
        );
        let head = format!(
            "POST {PATH}/configmaps HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let begun = Instant::now();
        tls.write_all(head.as_bytes()).await?;
        tls.flush().await?;
        // From here on the gateway waits for the body and for nothing else.
        search_until(&gateway, &[], |rows| rows.len() > index).await?;
        tokio::time::sleep(delay).await;
        tls.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).await?;
        let took = begun.elapsed();
        ensure!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
        let spent = spent(&gateway, index).await?;
        expect("client", spent, spent.client, delay, took)?;
    }
    Ok(())
}

/// An API server that stands still while it is asked.
async fn slow_api_server(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    let mut connection = alice.connect(Protocol::Http1).await?;
    connection.get(PATH).await?.success()?;
    for (index, delay) in DELAYS.into_iter().enumerate() {
        let stopped = stopped_api_server(&scene)?;
        let begun = Instant::now();
        let asked = async {
            let reply = connection.get(PATH).await?.success();
            anyhow::Ok((reply?, begun.elapsed()))
        };
        let waits = async {
            search_until(&gateway, &[], |rows| rows.len() > index + 1).await?;
            tokio::time::sleep(delay).await;
            drop(stopped);
            anyhow::Ok(())
        };
        let ((_, took), ()) = tokio::try_join!(asked, waits)?;
        let spent = spent(&gateway, index + 1).await?;
        expect("API server", spent, spent.upstream, delay, took)?;
    }
    Ok(())
}

/// A change must be on record before it is forwarded: the gateway waits for its writer, which stands still.
async fn slow_record(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    let mut connection = alice.connect(Protocol::Http1).await?;
    connection.get(PATH).await?.success()?;
    for (index, delay) in DELAYS.into_iter().enumerate() {
        let frozen = Frozen::thread(gateway.id().context("it runs")?, "decklog-write")?;
        let before = queue_bytes(&gateway).await?;
        let begun = Instant::now();
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("record-{index}")},
        });
        let request = json_request("POST", &format!("{PATH}/configmaps"), &map)?;
        let asked = async {
            let reply = connection.call(request).await?.success();
            anyhow::Ok((reply?, begun.elapsed()))
        };
        let waits = async {
            until("the intent waits to be written", LIMIT, async || {
                let now = queue_bytes(&gateway).await?;
                Ok(Level::when(now > before, || format!("{now} bytes are queued, as before")))
            })
            .await?;
            tokio::time::sleep(delay).await;
            drop(frozen);
            anyhow::Ok(())
        };
        let ((_, took), ()) = tokio::try_join!(asked, waits)?;
        let spent = spent(&gateway, index + 1).await?;
        expect("gateway", spent, spent.gateway, delay, took)?;
    }
    Ok(())
}

async fn queue_bytes(gateway: &Gateway) -> Result<u64> {
    let (_, metrics) = gateway.health("/metrics").await?;
    let name = "decklog_store_state{what=\"queue_bytes\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    value.context("the queue's bytes are in the metrics")?.parse().context("a number")
}

/// A gateway that stands still while a request is there for it.
async fn stopped_gateway(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    let mut tls = gateway.endpoint().tls(&[b"http/1.1"]).await?;
    let request =
        format!("GET {PATH} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut exchange = async |delay: Option<Duration>| -> Result<Duration> {
        let stopped = match delay {
            Some(_) => Some(Stopped::new(gateway.id().context("it runs")?)?),
            None => None,
        };
        let begun = Instant::now();
        tls.write_all(request.as_bytes()).await?;
        tls.flush().await?;
        tokio::time::sleep(delay.unwrap_or_default()).await;
        drop(stopped);
        answer(&mut tls).await?;
        Ok(begun.elapsed())
    };
    // A connection on which all is said that is said once.
    exchange(None).await?;
    for (index, delay) in DELAYS.into_iter().enumerate() {
        let took = exchange(Some(delay)).await?;
        let spent = spent(&gateway, index + 1).await?;
        if tier(&gateway)? == Tier::T1 {
            let queue = spent.queue.context("tier T1 tells of the queue")?;
            expect("queue", spent, queue, delay, took)?;
        } else {
            ensure!(spent.queue.is_none(), "{spent:?}");
        }
    }
    Ok(())
}

/// A hundred requests at once on one connection: no exchange claims bytes for itself alone, and together they are
/// within what the kernel counted.
async fn shared_connection(scene: Rc<Scene>) -> Result<()> {
    const EXCHANGES: usize = 100;
    let gateway = scene.gateway(&Options::default()).await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    let stopped = stopped_api_server(&scene)?;
    let connection = alice.connect(Protocol::Http2).await?;
    let mut asking = JoinSet::new();
    for _ in 0..EXCHANGES {
        let mut share = connection.share().context("HTTP/2")?;
        asking.spawn_local(async move { share.get(PATH).await?.success().map(drop) });
    }
    // All of them are under way before the first can end.
    search_until(&gateway, &[], |rows| rows.len() == EXCHANGES).await?;
    drop(stopped);
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    drop(connection);
    let closed = closed(&gateway, EXCHANGES as u64).await?;
    let evidence = &closed.evidence;
    let settled = settled(&gateway)?;
    ensure!(settled.len() == EXCHANGES, "{} outcomes", settled.len());
    let (mut from, mut to, mut bodies) = ([u64::MAX; 2], [0; 2], 0);
    for exchange in &settled {
        let client = exchange.account.client.as_ref().context("evidence of the client")?;
        let span = client.span.as_ref().context("a span")?;
        ensure!(client.cookie == evidence.cookie && span.interleaved, "{exchange:?}");
        from = [from[0].min(span.in_from), from[1].min(span.out_from)];
        to = [to[0].max(span.in_to), to[1].max(span.out_to)];
        bodies += exchange.response.bytes;
    }
    let whole = [evidence.gateway_in_bytes, evidence.gateway_out_bytes];
    ensure!(to[0] <= whole[0] && to[1] <= whole[1], "{to:?} of {whole:?}");
    ensure!(bodies <= whole[1] - from[1], "{bodies} B in {}..{}", from[1], whole[1]);
    ensure!(closed.ends.is_empty(), "no response had an end of its own: {:?}", closed.ends);
    Ok(())
}

fn stopped_api_server(scene: &Scene) -> Result<Stopped> {
    Stopped::new(scene.plane().api_server_id().context("the API server runs")?)
}

/// A delay is found whole where it was made, and no time is told twice: the parts are within what the client saw.
/// A machine that is slow may add to any of them.
fn expect(part: &str, spent: Spent, found_us: u64, delay: Duration, took: Duration) -> Result<()> {
    println!("      {delay:?} in {part}: {spent:?} of {took:?}");
    ensure!(u128::from(found_us) >= delay.as_micros(), "{delay:?} in {part}: {spent:?}");
    ensure!(u128::from(spent.total()) <= took.as_micros(), "{spent:?} of {took:?}");
    Ok(())
}

/// Reads one response with a declared length.
async fn answer(tls: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<()> {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.context("a declared length")?.trim().parse()?;
            ensure!(head.starts_with("http/1.1 200"), "{head}");
            if body.len() >= length {
                return Ok(());
            }
        }
        ensure!(tls.read_buf(&mut answer).await? > 0, "the connection ended");
    }
}

fn tier(gateway: &Gateway) -> Result<Tier> {
    let started =
        Reader::open(&gateway.store())?.records().find_map(|stored| match stored.ok()?.record {
            Record::GatewayStarted(started) => Some(started.witness.tier),
            _ => None,
        });
    started.context("the gateway's start is on record")
}

fn settled(gateway: &Gateway) -> Result<Vec<ExchangeSettled>> {
    let mut settled = Vec::new();
    for stored in Reader::open(&gateway.store())?.records() {
        if let Record::ExchangeSettled(outcome) = stored?.record {
            settled.push(*outcome);
        }
    }
    Ok(settled)
}

/// Where the time of the outcome with this number went, once it is on record.
async fn spent(gateway: &Gateway, number: usize) -> Result<Spent> {
    let outcome = until("the outcome is on record", LIMIT, async || {
        let mut settled = settled(gateway)?;
        Ok(if number < settled.len() {
            Level::Reached(settled.swap_remove(number))
        } else {
            Level::NotYet(format!("{} outcomes", settled.len()))
        })
    });
    outcome.await?.spent_us.context("the time of an ordinary call")
}

/// The final account of the client's connection that carried so many exchanges.
async fn closed(gateway: &Gateway, exchanges: u64) -> Result<ConnectionClosed> {
    until("the connection's account is on record", LIMIT, async || {
        for stored in Reader::open(&gateway.store())?.records() {
            if let Record::ConnectionClosed(closed) = stored?.record
                && closed.role == "client"
                && closed.exchanges == exchanges
            {
                return Ok(Level::Reached(*closed));
            }
        }
        Ok(Level::NotYet("not there".into()))
    })
    .await
}

const LIMIT: Duration = Duration::from_secs(10);
