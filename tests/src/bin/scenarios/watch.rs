//! Watches: events in their time, and their end.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rig::client::{Connection, Endpoint, Protocol, full};
use rig::gateway::Options;
use serde_json::{Value, json};

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("watch-delivers-in-time", delivers_in_time),
        scenario!("watch-by-kubectl", by_kubectl),
        scenario!("watch-ends-with-its-token", ends_with_its_token),
        scenario!("watch-survives-its-neighbours-token", survives_its_neighbours_token),
    ]
}

/// A watch and its events, one JSON line each.
pub(crate) struct Watch {
    // Keeps the connection open.
    _connection: Connection,
    response: Response<Incoming>,
    pending: BytesMut,
}

impl Watch {
    pub(crate) async fn open(endpoint: &Endpoint, protocol: Protocol, path: &str) -> Result<Self> {
        Self::over(endpoint.connect(protocol).await?, path).await
    }

    pub(crate) async fn over(mut connection: Connection, path: &str) -> Result<Self> {
        let response = connection.send(Request::get(path).body(full(""))?).await?;
        ensure!(response.status() == StatusCode::OK, "watch {path}: {}", response.status());
        Ok(Self { _connection: connection, response, pending: BytesMut::new() })
    }

    /// The next event; none when the stream ends in order.
    pub(crate) async fn next(&mut self, limit: Duration) -> Result<Option<Value>> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line = self.pending.split_to(end + 1);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let frame = tokio::time::timeout_at(deadline, self.response.body_mut().frame()).await;
            match frame.context("no event in time")? {
                None if self.pending.is_empty() => return Ok(None),
                None => bail!("the watch ended within an event: {:?}", self.pending),
                Some(frame) => {
                    if let Ok(data) = frame.context("the watch broke off")?.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next event about an object of this name.
    pub(crate) async fn about(&mut self, name: &str, limit: Duration) -> Result<Value> {
        loop {
            let event = self.next(limit).await?.context("the watch ended")?;
            if event["object"]["metadata"]["name"] == name {
                return Ok(event);
            }
        }
    }
}

async fn delivers_in_time(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("watched").await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    let path = "/api/v1/namespaces/watched/configmaps?watch=true";
    let mut direct = Watch::open(scene.plane().admin(), Protocol::Http2, path).await?;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut through = Watch::open(&alice, protocol, path).await?;
        for round in 0..5 {
            let name = format!("note-{protocol:?}-{round}").to_lowercase();
            scene.plane().config_map("watched", &name, &json!({"round": "x"})).await?;
            let expected = direct.about(&name, SOON).await?;
            let direct_at = Instant::now();
            let event = through.about(&name, SOON).await?;
            ensure!(event == expected, "the event differs: {event} and {expected}");
            // Not a measurement: an event that waits for a buffer to fill, or a poll, would take seconds.
            let behind = direct_at.elapsed();
            ensure!(behind < Duration::from_secs(2), "{behind:?} behind the direct path");
        }
    }
    Ok(())
}

async fn by_kubectl(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("watched-kubectl").await?;
    let kubeconfig = gateway.kubeconfig("bob", &scene.token("bob").await?, None)?;
    let arguments = [
        "get",
        "configmaps",
        "-n",
        "watched-kubectl",
        "--watch",
        "-o",
        "name",
        "--request-timeout=4s",
    ];
    let watching = scene.run(&kubeconfig, &arguments);
    let creating = async {
        // Before or after the watch began: kubectl lists first, so the event comes either way.
        scene.plane().config_map("watched-kubectl", "early", &json!({})).await?;
        search_until(&gateway, &["--resource", "configmaps", "--verb", "watch"], |rows| {
            !rows.is_empty()
        })
        .await?;
        scene.plane().config_map("watched-kubectl", "late", &json!({})).await
    };
    let (output, created) = tokio::join!(watching, creating);
    created?;
    let output = output?;
    ensure!(
        output.stdout.contains("configmap/early") && output.stdout.contains("configmap/late"),
        "kubectl saw {output:?}"
    );
    Ok(())
}

/// A live watch ends when its token expires, with a 401 `Status` as its last event, on a frame's boundary.
async fn ends_with_its_token(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("watched-expiry").await?;
    let expires = jiff::Timestamp::now().as_second() + 3;
    let token = scene.secret(short_token(&scene, expires).await?);
    let carol = gateway.endpoint().bearer(token);
    let path = "/api/v1/namespaces/watched-expiry/configmaps?watch=true";
    let mut watches = vec![
        Watch::open(&carol, Protocol::Http1, path).await?,
        Watch::open(&carol, Protocol::Http2, path).await?,
    ];
    scene.plane().config_map("watched-expiry", "early", &json!({})).await?;
    for watch in &mut watches {
        watch.about("early", SOON).await?;
    }
    for watch in &mut watches {
        let mut last = None;
        while let Some(event) = watch.next(Duration::from_secs(60)).await? {
            last = Some(event);
        }
        ensure!(jiff::Timestamp::now().as_second() >= expires, "cut before the token expired");
        let last = last.context("the watch ended without a word")?;
        ensure!(
            last["type"] == "ERROR"
                && last["object"]["kind"] == "Status"
                && last["object"]["code"] == 401
                && last["object"]["reason"] == "Unauthorized",
            "the last event is {last}"
        );
    }
    let recorder = gateway.recorder()?;
    let sessions = rig::wait::until("the session says why", SOON, async || {
        let sessions = recorder.sessions().await?;
        let cut = sessions.iter().any(|session| session["reason"] == "token_expired");
        Ok(rig::wait::Level::when(cut, || format!("{sessions:?}")))
    });
    sessions.await
}

async fn short_token(scene: &Scene, expires: i64) -> Result<String> {
    let claims = json!({"claims": {"sub": "carol", "iat": expires - 60, "exp": expires}});
    scene.issuer().mint(&claims).await
}

/// Identity is per request: the expiry of one token ends its own watch and no other on the connection.
async fn survives_its_neighbours_token(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    scene.plane().namespace("watched-shared").await?;
    let expires = jiff::Timestamp::now().as_second() + 2;
    let short = scene.secret(short_token(&scene, expires).await?);
    let long = scene.token("bob").await?;
    let path = "/api/v1/namespaces/watched-shared/configmaps?watch=true";
    let connection = gateway.endpoint().connect(Protocol::Http2).await?;
    let open = async |token: &str| -> Result<Watch> {
        let mut shared = connection.share().context("HTTP/2")?;
        let request =
            Request::get(path).header("authorization", format!("Bearer {token}")).body(full(""))?;
        let response = shared.send(request).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        Ok(Watch { _connection: shared, response, pending: BytesMut::new() })
    };
    let (mut carol, mut bob) = (open(&short).await?, open(&long).await?);
    while carol.next(Duration::from_secs(60)).await?.is_some() {}
    scene.plane().config_map("watched-shared", "after", &json!({})).await?;
    bob.about("after", SOON).await.map(drop)
}

const SOON: Duration = Duration::from_secs(15);
