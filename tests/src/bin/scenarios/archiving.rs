//! The archive on a real object store: through outages, refusals, competitors and object lock.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ::archive::{
    ArchiveUrl, Archiver, ArchiverOptions, Bucket, BucketOptions, Class, CredentialFiles, Health,
    PART_BYTES_MIN, SystemTime, Time,
};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use recorder_user::model::{Chunk, Direction, ExchangeId, Record, Timestamp};
use recorder_user::store::archive::is_archived;
use recorder_user::store::{Need, Reader, Store, StoreOptions, verify};
use rig::gateway::Options;
use rig::minio::{Minio, Proxy, Weather};
use rig::wait::{Level, until};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::runner::{Scenario, scenario};
use crate::scene::Scene;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("archive-of-a-gateway", archive_of_a_gateway),
        scenario!("archive-of-two-gateways", archive_of_two_gateways),
        scenario!("archive-through-bad-weather", archive_through_bad_weather),
        scenario!("archive-credentials-and-buckets", archive_credentials_and_buckets),
        scenario!("archive-object-lock-and-competitors", archive_object_lock_and_competitors),
    ]
}

const COLLECTION: &str = "/api/v1/namespaces/archived/configmaps";

/// The whole way: requests, segments, copies, tables, metrics, and the commands by hand.
async fn archive_of_a_gateway(scene: Rc<Scene>) -> Result<()> {
    let shore = Shore::new(&scene).await?;
    shore.minio.bucket("audit", false).await?;
    let archive = json!({
        "url": "s3://audit/decklog", "endpoint": shore.proxy.url(), "interval": "1s",
        "certificateAuthority": shore.proxy.authority_file(),
        "credentials": {"accessKeyIdFile": shore.key_id, "secretAccessKeyFile": shore.secret_key},
    });
    let options = Options {
        config: json!({"store": {"segmentSize": "1MiB"}, "archive": archive}),
        ..Options::default()
    };
    let mut gateway = scene.gateway(&options).await?;
    scene.plane().namespace("archived").await?;
    let alice = scene.as_user(&gateway, "alice").await?;
    for index in 0..8_u8 {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("noise-{index}")},
            "data": {"noise": blake3_noise(index, 300_000).iter().map(|b| format!("{b:02x}")).collect::<String>()},
        });
        alice.json("POST", COLLECTION, &object).await?.success()?;
    }
    let state = until("segments are archived", Duration::from_secs(30), async || {
        let (_, text) = gateway.health("/metrics").await?;
        let value = |what: &str| {
            let name = format!("decklog_archive_state{{what=\"{what}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok())
        };
        let done =
            value("archived_segments") >= Some(2.0) && value("pending_segments") == Some(0.0);
        Ok(if done { Level::Reached(text) } else { Level::NotYet(text) })
    })
    .await?;
    ensure!(state.contains("decklog_archive_state{what=\"alarm\"} 0"), "{state}");
    ensure!(state.contains("decklog_archive_failures_total{class=\"denied\"} 0"), "{state}");
    gateway.stop().await?;

    // What the stop left is archived by hand.
    let recorder = gateway.recorder()?;
    let at = shore.arguments("s3://audit/decklog");
    let with = |verb: &[&str]| -> Vec<String> {
        verb.iter().map(ToString::to_string).chain(at.iter().cloned()).collect()
    };
    let run = async |arguments: Vec<String>| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        recorder.json(&arguments).await
    };
    let ran = run(with(&["archive", "run"])).await?;
    ensure!(ran[0]["pending"] == 0 && ran[0]["failing"].is_null(), "{ran:?}");
    let status = recorder.json(&["archive", "status"]).await?;
    let segments = Reader::open(&gateway.store())?.segments()?;
    ensure!(status.len() == segments.len(), "{status:?}");
    ensure!(
        status.iter().all(|line| line["archived"] == true && line["tables"] == true),
        "{status:?}"
    );
    for info in &segments {
        ensure!(is_archived(&gateway.store(), info.segment), "{}", info.segment);
    }
    let copies = run(with(&["archive", "verify"])).await?;
    ensure!(copies.len() == segments.len(), "{copies:?}");
    ensure!(copies.iter().all(|copy| copy["ok"] == true), "{copies:?}");

    let objects = shore.minio.versions("audit").await?;
    for table in ["sessions", "exchanges", "effects"] {
        let there = |(key, _): &&(String, String)| {
            key.starts_with(&format!("decklog/tables/{table}/day="))
                && key.contains("/cluster=rig/")
        };
        ensure!(objects.iter().find(there).is_some(), "no {table} in {objects:?}");
    }
    duckdb_reads_the_tables(&scene, &shore, &recorder).await?;
    let cache = scene.directory().join("cache");
    let cache_text = cache.display().to_string();
    let fetched = run(with(&["archive", "fetch", "--into", &cache_text])).await?;
    let store = fetched[0]["store"].as_str().context("a store")?.to_owned();
    let report = verify(Path::new(&store), recorder_user::store::signing::Trust::default())?;
    ensure!(report.is_ok() && report.segments.len() == segments.len(), "{report:?}");
    let rows =
        rig::recorder::Recorder::over(Path::new(&store))?.search(&["--verb", "create"]).await?;
    ensure!(rows.len() == 8, "{} creates in the fetched store", rows.len());
    Ok(())
}

/// One agent through two gateways: what both wrote, and what both archived, reads as one session, and all of it
/// verifies with the public keys of both.
async fn archive_of_two_gateways(scene: Rc<Scene>) -> Result<()> {
    let shore = Shore::new(&scene).await?;
    shore.minio.bucket("audit", false).await?;
    scene.plane().namespace("archived").await?;
    let archive = json!({
        "url": "s3://audit/both", "endpoint": shore.proxy.url(), "interval": "1s",
        "certificateAuthority": shore.proxy.authority_file(),
        "credentials": {"accessKeyIdFile": shore.key_id, "secretAccessKeyFile": shore.secret_key},
    });
    let gateway = async |name: &str| {
        let config = json!({"archive": archive});
        let options = Options { name: name.to_owned(), config, ..Options::default() };
        scene.gateway(&options).await
    };
    let (mut east, mut west) = (gateway("east").await?, gateway("west").await?);
    for (index, gateway) in [&east, &west, &east, &west].into_iter().enumerate() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("both-{index}")},
        });
        let alice = scene.as_user(gateway, "alice").await?;
        alice.json("POST", COLLECTION, &object).await?.success()?;
    }
    // Both run, and both are asked.
    let west_store = west.store().display().to_string();
    let recorder = east.recorder()?;
    let session = one_session(&recorder.json(&["ls", "--store", &west_store]).await?)?;

    let mut keys = Vec::new();
    for gateway in [&mut east, &mut west] {
        gateway.stop().await?;
        let arguments =
            [vec!["archive".to_owned(), "run".to_owned()], shore.arguments("s3://audit/both")]
                .concat();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let ran = gateway.recorder()?.json(&arguments).await?;
        ensure!(ran[0]["pending"] == 0, "{ran:?}");
        let key = gateway.directory().join("public.pem");
        std::fs::write(&key, gateway.recorder()?.run(&["keys", "export"]).await?.stdout)?;
        keys.push(key.display().to_string());
    }
    // The archive alone, with a cache, and with one of the stores that are in it.
    let cache = scene.directory().join("cache").display().to_string();
    let from = ["--archive", "s3://audit/both"];
    let cached = [&from[..], &["--archive-cache", &cache]].concat();
    let far = recorder.clone().with(shore.variables());
    let alone = far.clone().without_store();
    for (recorder, from) in
        [(&alone, &from[..]), (&alone, &cached), (&alone, &cached), (&far, &from)]
    {
        let with = |arguments: &[&'static str]| [arguments, from].concat();
        let found = one_session(&recorder.json(&with(&["ls"])).await?)?;
        ensure!(found == session, "{found} is not {session}");
        let rows = recorder.json(&with(&["search", "--verb", "create"])).await?;
        ensure!(rows.len() == 4 && rows[0]["gateway"] != rows[1]["gateway"], "{rows:?}");
        let id = session["session"].as_str().context("an id")?;
        let shown = recorder.json(&[&["show", id], from].concat()).await?;
        ensure!(shown[0]["exchangeRows"].as_array().map(Vec::len) == Some(4), "{shown:?}");
        let replayed = recorder.json(&[&["replay", id], from].concat()).await?;
        let told = replayed.iter().filter(|line| line["event"] == "exchange").count();
        ensure!(told == 4, "{replayed:?}");
    }
    let trusted = ["--key", &keys[0], "--key", &keys[1]];
    let checked = alone.json(&[&["verify"], &from[..], &trusted].concat()).await?;
    ensure!(checked.len() == 2, "{checked:?}");
    for line in &checked {
        ensure!(line["ok"] == true && line["signaturesChecked"] == true, "{line}");
        ensure!(line["signatures"].as_u64() > Some(0) && line["unsignedRecords"] == 0, "{line}");
    }
    // With the key of one the other's signatures are strange.
    let half = alone.run(&[&["verify"], &cached[..], &trusted[..2]].concat()).await?;
    ensure!(half.code == Some(1) && half.stdout.contains("not trusted"), "{half:?}");
    // A copy that was changed is found, with its gateway.
    let stores = std::fs::read_dir(&cache)?.map(|entry| Ok(entry?.path()));
    let store = stores.collect::<Result<Vec<_>>>()?.remove(0);
    let segment = Reader::open(&store)?.segments()?.remove(0).path;
    let mut bytes = std::fs::read(&segment)?;
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes)?;
    let changed = alone.run(&[&["verify"], &cached[..], &trusted].concat()).await?;
    let gateway = store.file_name().context("a name")?.to_string_lossy().into_owned();
    ensure!(changed.code == Some(1) && changed.stdout.contains(&gateway), "{changed:?}");
    ensure!(changed.stdout.contains("DOES NOT VERIFY"), "{changed:?}");
    Ok(())
}

/// Alice's session, which has a track of each of two gateways; without what differs while it goes on.
fn one_session(lines: &[Value]) -> Result<Value> {
    let [line] = lines else { anyhow::bail!("not one session: {lines:?}") };
    let tracks = line["tracks"].as_array().context("tracks")?;
    ensure!(tracks.len() == 2 && tracks[0]["gateway"] != tracks[1]["gateway"], "{line}");
    ensure!(tracks.iter().all(|track| track["exchanges"] == 2), "{line}");
    ensure!(line["exchanges"] == 4 && line["effects"]["created"] == 4, "{line}");
    ensure!(line["session"] == tracks[0]["session"], "{line}");
    Ok(json!({"session": line["session"], "started": line["started"], "task": line["task"]}))
}

/// An engine that knows nothing of us counts what `recorder` lists.
async fn duckdb_reads_the_tables(
    scene: &Scene,
    shore: &Shore,
    recorder: &rig::recorder::Recorder,
) -> Result<()> {
    let directory = scene.directory().join("tables");
    let files = shore.minio.download("audit", "decklog/tables", &directory).await?;
    ensure!(files >= 3, "{files} files of tables");
    let (python, script) = tokio::task::spawn_blocking(rig::tools::duckdb).await??;
    let ask = async |sql: &str| {
        let mut command = std::process::Command::new(&python);
        command.arg(&script).arg(&directory).arg(sql);
        let output = rig::process::run(command, Duration::from_secs(60)).await?;
        ensure!(output.success(), "DuckDB: {}", output.stderr);
        let rows: Result<Vec<Value>, _> = output.stdout.lines().map(serde_json::from_str).collect();
        Ok(rows?)
    };
    let rows = ask("SELECT exchange, session, status, effect, verb, name, path, request_bytes, \
         cluster, CAST(day AS VARCHAR) AS day, policies FROM exchanges ORDER BY exchange")
    .await?;
    let listed = recorder.search(&[]).await?;
    ensure!(rows.len() == listed.len(), "{} rows, {} listed", rows.len(), listed.len());
    for (row, listed) in rows.iter().zip(&listed) {
        for key in ["exchange", "session", "status", "effect", "verb", "name", "path", "policies"] {
            ensure!(row[key] == listed[key], "{key}: {row} is listed as {listed}");
        }
        ensure!(row["request_bytes"] == listed["requestBytes"], "{row} is listed as {listed}");
        let day = listed["time"].as_str().and_then(|time| time.get(..10));
        ensure!(row["day"].as_str() == day && row["cluster"] == "rig", "{row}");
    }
    let made = ask("SELECT kind, name FROM effects WHERE change = 'created' ORDER BY name").await?;
    ensure!(
        made.len() == 8 && made[0] == json!({"kind": "ConfigMap", "name": "noise-0"}),
        "{made:?}"
    );
    // As docs/store.md has it.
    let sessions =
        ask("SELECT session, exchanges, created, username, len(groups) AS groups FROM sessions \
         QUALIFY row_number() OVER (PARTITION BY session ORDER BY segment DESC) = 1")
        .await?;
    let listed = recorder.sessions().await?;
    ensure!(sessions.len() == listed.len(), "{sessions:?} are listed as {listed:?}");
    for (row, listed) in sessions.iter().zip(&listed) {
        ensure!(row["session"] == listed["session"], "{row} is listed as {listed}");
        ensure!(row["exchanges"] == listed["exchanges"], "{row} is listed as {listed}");
        ensure!(row["created"] == listed["effects"]["created"], "{row} is listed as {listed}");
        ensure!(row["groups"] == 1 && row["username"] == "alice", "{row}");
    }
    Ok(())
}

/// Hours of outage in simulated time, and everything else that passes by itself.
async fn archive_through_bad_weather(scene: Rc<Scene>) -> Result<()> {
    let shore = Shore::new(&scene).await?;
    shore.minio.bucket("audit", false).await?;
    let store = shore.store("weather").await?;
    let archiver = shore.archiver(&store, "s3://audit/weather", shore.waits())?;
    let health = archiver.health();
    let mut running = pin!(archiver.run());
    let waits = shore.waits();

    shore.proxy.set(Weather::Down);
    waits.pass(6 * HOUR, &mut running).await?;
    let view = health.view();
    ensure!(view.alarm && view.archived_segments == 0, "after six hours: {view:?}");
    let failures = view.failures.get(&Class::Unreachable).copied().unwrap_or_default();
    ensure!((70..120).contains(&failures), "{failures} attempts in six hours");
    for (weather, class) in [
        (Weather::Busy, Class::Server),
        (Weather::Slow(3 * TIMEOUT), Class::Unreachable),
        (Weather::AnswersLost, Class::Unreachable),
    ] {
        let before = health.view().failures.get(&class).copied().unwrap_or_default();
        shore.proxy.set(weather);
        waits.pass(HOUR / 10, &mut running).await?;
        let view = health.view();
        let after = view.failures.get(&class).copied().unwrap_or_default();
        ensure!(after > before && view.alarm, "{weather:?}: {view:?}");
        ensure!(view.archived_segments == 0, "{weather:?}: {view:?}");
    }
    // The server itself goes away and comes back.
    let mut minio = shore.minio;
    shore.proxy.set(Weather::Fair);
    minio.stop().await?;
    waits.pass(HOUR / 10, &mut running).await?;
    ensure!(health.view().archived_segments == 0, "{:?}", health.view());
    minio.resume().await?;
    waits.pass(HOUR / 2, &mut running).await?;
    all_archived(&health, &store)?;
    let objects = minio.versions("audit").await?;
    let segments = objects.iter().filter(|(key, _)| key.contains("/segments/")).count();
    ensure!(segments == 3, "{objects:?}");
    Ok(())
}

/// What needs somebody raises the alarm at once, names the files, and heals without a restart.
async fn archive_credentials_and_buckets(scene: Rc<Scene>) -> Result<()> {
    let shore = Shore::new(&scene).await?;
    let store = shore.store("denied").await?;
    let right = std::fs::read(&shore.secret_key)?;
    let archiver = shore.archiver(&store, "s3://nowhere/x", shore.waits())?;
    let health = archiver.health();
    let mut running = pin!(archiver.run());
    let waits = shore.waits();
    let failing = |class: Class| {
        let view = health.view();
        let now = view.failing.as_ref().map(|(class, _)| *class);
        ensure!(view.alarm && now == Some(class), "{class:?} is expected: {view:?}");
        Ok(view)
    };
    waits.pass(Duration::from_secs(1), &mut running).await?;
    failing(Class::Missing)?;
    std::fs::write(&shore.secret_key, "not-the-secret-key")?;
    waits.pass(HOUR / 10, &mut running).await?;
    let view = failing(Class::Denied)?;
    let text = view.failing.map(|(_, text)| text).unwrap_or_default();
    ensure!(!text.contains("not-the-secret-key"), "{text}");
    std::fs::remove_file(&shore.secret_key)?;
    waits.pass(HOUR / 10, &mut running).await?;
    let view = failing(Class::Denied)?;
    let text = view.failing.map(|(_, text)| text).unwrap_or_default();
    ensure!(text.contains("secret-key"), "the file is not named: {text}");
    std::fs::write(&shore.secret_key, right)?;
    shore.minio.bucket("nowhere", false).await?;
    waits.pass(HOUR / 2, &mut running).await?;
    all_archived(&health, &store)
}

/// Under object lock with its versions nothing is ever stored twice, whoever races.
async fn archive_object_lock_and_competitors(scene: Rc<Scene>) -> Result<()> {
    let shore = Shore::new(&scene).await?;
    shore.minio.bucket("locked", true).await?;
    let store = shore.store("locked").await?;
    let url = "s3://locked/decklog";
    let segments = Reader::open(&store)?.segments()?;
    let name = |index: usize| {
        let info = &segments[index];
        format!("locked/decklog/segments/{}/{}.seg", info.header.gateway, info.segment)
    };
    // Somebody else's object under the last segment's name.
    shore.minio.call(Method::PUT, &name(2), "", &[LOCK_CHECKSUM], "abc").await?.success()?;
    let time = Arc::new(SystemTime) as Arc<dyn Time>;
    // The same store twice, as when one was restored from a backup beside the living one.
    let copy = shore.directory.join("copy").join("data");
    std::fs::create_dir_all(copy.join("segments"))?;
    for info in &segments {
        let name = info.path.file_name().context("a segment's name")?;
        std::fs::copy(&info.path, copy.join("segments").join(name))?;
    }
    let mut one = shore.archiver(&store, url, Arc::clone(&time))?;
    let mut other = shore.archiver(&copy, url, time)?;
    let (a, b) = tokio::join!(one.pass(), other.pass());
    for (pass, archiver) in [(a?, &one), (b?, &other)] {
        let view = archiver.health().view();
        ensure!(pass.held == 1 && view.alarm, "{pass:?} {view:?}");
        ensure!(view.failures.get(&Class::Conflict) == Some(&1), "{view:?}");
    }
    for store in [&store, &copy] {
        let archived: Vec<_> =
            segments.iter().map(|info| is_archived(store, info.segment)).collect();
        ensure!(archived == [true, true, false], "a stranger's object is no copy: {archived:?}");
    }
    let versions = shore.minio.versions("locked").await?;
    let mut keys: Vec<_> = versions.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    ensure!(count == keys.len(), "an object was overwritten: {versions:?}");
    for (key, version) in &versions {
        let query = format!("versionId={version}");
        let path = format!("locked/{key}");
        let deleted = shore.minio.call(Method::DELETE, &path, &query, &[], "").await?;
        ensure!(!deleted.status.is_success(), "{key} could be deleted: {}", deleted.status);
    }
    let foreign = shore.minio.call(Method::GET, &name(2), "", &[], "").await?.success()?;
    ensure!(foreign.body == "abc", "a stranger's object was touched");
    Ok(())
}

fn all_archived(health: &Health, store: &Path) -> Result<()> {
    let view = health.view();
    ensure!(view.pending_segments == 0 && !view.alarm && view.failing.is_none(), "{view:?}");
    for info in Reader::open(store)?.segments()? {
        ensure!(is_archived(store, info.segment), "{} is not archived", info.segment);
    }
    Ok(())
}

/// A MinIO behind a proxy, and what an archiver needs to reach it.
struct Shore {
    directory: PathBuf,
    minio: Minio,
    proxy: Proxy,
    key_id: PathBuf,
    secret_key: PathBuf,
    waits: Arc<Waits>,
}

impl Shore {
    async fn new(scene: &Scene) -> Result<Self> {
        let directory = scene.directory().to_owned();
        let secret = scene.secret(format!("object-store-secret-{}", std::process::id()));
        let minio = Minio::start(&directory, &secret).await?;
        let proxy = Proxy::start(&directory, &minio.address()).await?;
        let (key_id, secret_key) = minio.credential_files()?;
        let now = Timestamp::now().as_micros();
        let waits = Waits { now: now.into(), until: now.into(), reached: Notify::new() };
        Ok(Self { directory, minio, proxy, key_id, secret_key, waits: Arc::new(waits) })
    }

    fn waits(&self) -> Arc<Waits> {
        Arc::clone(&self.waits)
    }

    /// A store of three segments; the second is uploaded in parts.
    async fn store(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join(name).join("data");
        for megabytes in [1, 2 * (PART_BYTES_MIN >> 20) + 1, 1] {
            let clock = Arc::new(Timestamp::now);
            let (store, _) = Store::open(StoreOptions::new(directory.clone()), clock)?;
            let exchange = ExchangeId::new();
            for index in 0..megabytes {
                let data = Bytes::from(blake3_noise(u8::try_from(index)?, 1 << 20));
                let (direction, offset) = (Direction::Response, (index as u64) << 20);
                let chunk = Record::Chunk(Chunk { exchange, direction, at_us: 0, offset, data });
                store.recorder().append(chunk, Need::Written).await?;
            }
            store.close().await?;
        }
        Ok(directory)
    }

    fn archiver(&self, store: &Path, url: &str, time: Arc<dyn Time>) -> Result<Archiver> {
        let bucket = Bucket::open(&BucketOptions {
            url: url.parse::<ArchiveUrl>()?,
            endpoint: Some(self.proxy.url()),
            region: "us-east-1".to_owned(),
            certificate_authority: Some(self.proxy.authority_file().to_owned()),
            credentials: CredentialFiles {
                access_key_id: self.key_id.clone(),
                secret_access_key: self.secret_key.clone(),
                session_token: None,
            },
            timeout: TIMEOUT,
            part_bytes: PART_BYTES_MIN,
        })?;
        let options = ArchiverOptions {
            store: store.to_owned(),
            interval: Duration::from_secs(10),
            alarm_after: HOUR,
        };
        Ok(Archiver::new(options, bucket, time)?)
    }

    /// How to reach it, for a command that is told only where the archive is.
    fn variables(&self) -> Vec<(String, String)> {
        let options = self.arguments("").split_off(2);
        let name = |option: &str| {
            format!(
                "DECKLOG_ARCHIVE_{}",
                option.trim_start_matches("--").replace('-', "_").to_uppercase()
            )
        };
        options.chunks(2).map(|pair| (name(&pair[0]), pair[1].clone())).collect()
    }

    fn arguments(&self, url: &str) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        [
            ("--archive", url.to_owned()),
            ("--endpoint", self.proxy.url()),
            ("--certificate-authority", path(self.proxy.authority_file())),
            ("--access-key-id-file", path(&self.key_id)),
            ("--secret-access-key-file", path(&self.secret_key)),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
    }
}

/// Time that passes only where the archiver waits.
struct Waits {
    now: AtomicI64,
    until: AtomicI64,
    reached: Notify,
}

impl Waits {
    /// Lets the archiver run for so long.
    async fn pass(&self, time: Duration, running: &mut (impl Future + Unpin)) -> Result<()> {
        self.until.fetch_add(i64::try_from(time.as_micros())?, Ordering::SeqCst);
        tokio::select! {
            biased;
            () = self.reached.notified() => Ok(()),
            _ = running => anyhow::bail!("an archiver has no end"),
        }
    }
}

#[async_trait::async_trait]
impl Time for Waits {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::SeqCst))
    }

    async fn sleep(&self, duration: Duration) {
        let us = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let now = self.now.fetch_add(us, Ordering::SeqCst) + us;
        if now >= self.until.load(Ordering::SeqCst) {
            self.reached.notify_one();
            // Gives the scenario its turn; it polls again when more time is to pass.
            tokio::task::yield_now().await;
        }
    }
}

/// Bytes that no compression makes fewer.
fn blake3_noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
    noise
}

const HOUR: Duration = Duration::from_secs(3600);
/// Short, since slow weather is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A bucket with object lock takes no put without a checksum: CRC-32 of `abc`.
const LOCK_CHECKSUM: (&str, &str) = ("x-amz-checksum-crc32", "NSRBwg==");
