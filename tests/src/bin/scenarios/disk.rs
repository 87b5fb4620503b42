//! The disk runs out, or the store goes away: nothing passes that cannot be recorded, and everything works
//! again afterwards.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{Request, StatusCode};
use recorder_user::model::{Record, UnrecordedSpan};
use recorder_user::store::Reader;
use rig::client::{Endpoint, Protocol, full};
use rig::gateway::{Gateway, Options};
use rig::recorder::Recorder;
use rig::wait::{Level, until};
use serde_json::json;

use crate::ended::ends_with;
use crate::runner::{Scenario, scenario};
use crate::scene::Scene;
use crate::watch::Watch;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("disk-full-and-free-again", disk_full_and_free_again),
        scenario!("disk-below-its-floor", disk_below_its_floor),
        scenario!("no-inodes-left", no_inodes_left),
        scenario!("store-deleted-under-the-gateway", store_deleted_under_the_gateway),
    ]
}

/// `sre` may read without a record while the store does not work; nobody else may.
const POLICY: &str = r#"
@id("everything")
permit(principal, action, resource);

@id("on-call-reads")
@unrecorded("allow")
permit(principal in k8s::Group::"sre", action in [k8s::Action::"get", k8s::Action::"list", k8s::Action::"watch"], resource);
"#;

const SOON: Duration = Duration::from_secs(10);
const COLLECTION: &str = "/api/v1/namespaces/full/configmaps";

async fn disk_full_and_free_again(scene: Rc<Scene>) -> Result<()> {
    let disk = SmallDisk::mount(&scene.directory().join("disk"))?;
    let options = Options {
        config: json!({"store": {"directory": disk.path().join("store")}}),
        ..Options::access(POLICY)
    };
    let mut gateway = scene.gateway(&options).await?;
    scene.plane().namespace("full").await?;
    scene.plane().namespace("noise").await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    bob.json("POST", COLLECTION, &config_map("before")).await?.success()?;
    let path = format!("{COLLECTION}?watch=true");
    let mut watches = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut watch = Watch::open(&bob, protocol, &path).await?;
        watch.about("before", SOON).await?;
        watches.push(watch);
    }

    disk.fill()?;
    // Not where it is watched: an event that is cut in its midst has no place for ours behind it.
    use_up_what_was_set_aside(&bob, "/api/v1/namespaces/noise/configmaps").await?;
    scene.plane().config_map("full", "news", &json!({})).await?;
    for watch in &mut watches {
        ends_with(watch, 503, "cannot record").await?;
    }
    until("reads are refused", Duration::from_secs(20), async || {
        let reply = bob.get(COLLECTION).await?;
        Ok(Level::when(reply.status == StatusCode::SERVICE_UNAVAILABLE, || reply.text()))
    })
    .await?;
    let refused = bob.json("POST", COLLECTION, &config_map("unrecorded")).await?;
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE, "a create: {}", refused.text());
    ensure!(refused.json()?["kind"] == "Status", "{}", refused.text());
    let (status, body) = gateway.health("/readyz").await?;
    ensure!(status == 503 && body.contains("store"), "/readyz: {status} {body}");

    let alice = scene.as_user(&gateway, "alice").await?;
    alice.get(COLLECTION).await?.success().context("a read that policy lets pass unrecorded")?;
    let secrets = alice.get("/api/v1/namespaces/full/secrets").await?;
    ensure!(secrets.status == StatusCode::SERVICE_UNAVAILABLE, "secrets: {}", secrets.status);
    let written = alice.json("POST", COLLECTION, &config_map("unrecorded")).await?;
    ensure!(written.status == StatusCode::SERVICE_UNAVAILABLE, "a create: {}", written.status);

    disk.free()?;
    until("the store works again", Duration::from_secs(30), async || {
        let (status, body) = gateway.health("/readyz").await?;
        Ok(Level::when(status == 200, || format!("{status} {body}")))
    })
    .await?;
    bob.json("POST", COLLECTION, &config_map("after")).await?.success()?;
    let absent = scene.plane().get(&format!("{COLLECTION}/unrecorded")).await;
    ensure!(absent.is_err(), "what could not be recorded reached the API server");
    let span = until("the gap is stated", Duration::from_secs(10), async || {
        let span = unrecorded(disk.path())?;
        Ok(span.map_or_else(|| Level::NotYet("no gap record".into()), Level::Reached))
    })
    .await?;
    ensure!(span.exchanges == 1, "one read passed unrecorded, not {}", span.exchanges);
    Recorder::over(&disk.path().join("store"))?.verify().await?;
    // Before the disk goes away.
    gateway.stop().await
}

/// Long before a write fails: what is new is refused, what is under way is recorded to its end.
async fn disk_below_its_floor(scene: Rc<Scene>) -> Result<()> {
    let disk = SmallDisk::mount(&scene.directory().join("disk"))?;
    let store = json!({"directory": disk.path().join("store"), "freeSpaceFloor": "8MiB"});
    let options = Options { config: json!({"store": store}), ..Options::default() };
    let mut gateway = scene.gateway(&options).await?;
    scene.plane().namespace("full").await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    bob.json("POST", COLLECTION, &config_map("floor")).await?.success()?;
    let path = format!("{COLLECTION}?watch=true&timeoutSeconds=600");
    let mut watching = bob.connect(Protocol::Http2).await?;
    let watch = watching.send(Request::get(path).body(full(""))?).await?;
    ensure!(watch.status() == StatusCode::OK, "a watch: {}", watch.status());

    disk.fill_but(4 << 20)?;
    ready(&gateway, false).await?;
    let (_, metrics) = gateway.health("/metrics").await?;
    for line in [
        "decklog_store_state{what=\"low_space\"} 1",
        "decklog_store_state{what=\"writable\"} 1",
        "decklog_store_state{what=\"free_floor_bytes\"} 8388608",
    ] {
        ensure!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    let refused = bob.json("POST", COLLECTION, &config_map("below")).await?;
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE, "a create: {}", refused.text());
    drop(watch);
    drop(watching);

    disk.free()?;
    ready(&gateway, true).await?;
    bob.json("POST", COLLECTION, &config_map("below")).await?.success()?;
    Recorder::over(&disk.path().join("store"))?.verify().await?;
    gateway.stop().await
}

/// There are bytes and no inodes: the store goes on in its segment, and fails when it needs another.
async fn no_inodes_left(scene: Rc<Scene>) -> Result<()> {
    let disk = SmallDisk::with(&scene.directory().join("disk"), c"size=64m,nr_inodes=64")?;
    let store = json!({"directory": disk.path().join("store"), "segmentSize": "1MiB"});
    let options = Options { config: json!({"store": store}), ..Options::default() };
    let mut gateway = scene.gateway(&options).await?;
    scene.plane().namespace("full").await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    bob.json("POST", COLLECTION, &config_map("inodes")).await?.success()?;

    disk.use_inodes()?;
    let (_, metrics) = gateway.health("/metrics").await?;
    // The gauge may be half a second old; what it is for is to be seen long before.
    ensure!(metrics.contains("decklog_store_state{what=\"free_files\"}"), "{metrics}");
    let mut passed = 0;
    let mut refused = 0;
    // Each records more than a tenth of a segment that does not compress.
    for round in 0..40 {
        let noise = noise(round, 120_000);
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("noise-{round}")},
            "data": {"noise": noise},
        });
        match bob.json("POST", COLLECTION, &object).await.map(|reply| reply.status) {
            Ok(StatusCode::CREATED) => passed += 1,
            // A refusal that comes before the body was read may close the connection under it.
            Ok(StatusCode::SERVICE_UNAVAILABLE) | Err(_) => refused += 1,
            Ok(other) => bail!("round {round}: {other}"),
        }
    }
    ensure!(passed > 0 && refused > 0, "{passed} passed, {refused} were refused");
    ready(&gateway, false).await?;

    disk.free_inodes()?;
    ready(&gateway, true).await?;
    bob.json("POST", COLLECTION, &config_map("again")).await?.success()?;
    let recorder = Recorder::over(&disk.path().join("store"))?;
    recorder.verify().await?;
    gateway.stop().await
}

/// A file that is deleted takes bytes as before: that must not count as recorded.
async fn store_deleted_under_the_gateway(scene: Rc<Scene>) -> Result<()> {
    let store = scene.directory().join("deleted");
    let options = Options { config: json!({"store": {"directory": store}}), ..Options::default() };
    let mut gateway = scene.gateway(&options).await?;
    scene.plane().namespace("full").await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    bob.json("POST", COLLECTION, &config_map("seen")).await?.success()?;

    std::fs::remove_dir_all(&store)?;
    let refused = bob.json("POST", COLLECTION, &config_map("unseen")).await?;
    ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE, "a create: {}", refused.text());
    ready(&gateway, false).await?;
    let absent = scene.plane().get(&format!("{COLLECTION}/unseen")).await;
    ensure!(absent.is_err(), "what could not be recorded reached the API server");

    gateway.kill()?;
    gateway.resume().await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    bob.json("POST", COLLECTION, &config_map("unseen")).await?.success()?;
    Recorder::over(&store)?.verify().await
}

async fn ready(gateway: &Gateway, ready: bool) -> Result<()> {
    let what = if ready { "the store works again" } else { "the store is not ready" };
    until(what, Duration::from_secs(30), async || {
        let (status, body) = gateway.health("/readyz").await?;
        let store = !body.contains("[-]store");
        Ok(Level::when((status == 200, store) == (ready, ready), || format!("{status} {body}")))
    })
    .await
}

/// Text that does not compress, the same for the same seed.
fn noise(seed: u64, bytes: usize) -> String {
    let mut text = vec![0; bytes / 2];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut text);
    text.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn config_map(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// A full disk shows only when the segment has no room of its own any more.
pub(crate) async fn use_up_what_was_set_aside(endpoint: &Endpoint, collection: &str) -> Result<()> {
    for number in 0..10 {
        // Hardly to be compressed.
        let mut noise = vec![0; 600_000];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut noise);
        let mut object = config_map(&format!("noise-{number}"));
        object["binaryData"] = json!({"noise": BASE64_STANDARD.encode(noise)});
        // Refused, or cut in the midst of the answer, whose outcome has no room.
        match endpoint.json("POST", collection, &object).await {
            Ok(reply) if reply.status != StatusCode::SERVICE_UNAVAILABLE => reply.success()?,
            Ok(_) | Err(_) => return Ok(()),
        };
    }
    bail!("6 MB were recorded on a full disk")
}

fn unrecorded(disk: &Path) -> Result<Option<UnrecordedSpan>> {
    for record in Reader::open(&disk.join("store"))?.records() {
        if let Record::UnrecordedSpan(span) = record?.record {
            return Ok(Some(span));
        }
    }
    Ok(None)
}

/// A file system of its own, small enough to be filled.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(path: &Path) -> Result<Self> {
        Self::with(path, c"size=24m")
    }

    fn with(path: &Path, options: &CStr) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let (kind, target) = (c"tmpfs", CString::new(path.as_os_str().as_encoded_bytes())?);
        // SAFETY: four C strings that outlive the call.
        let result = unsafe {
            libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast())
        };
        ensure!(result == 0, "mount a tmpfs: {}", std::io::Error::last_os_error());
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all the room there is.
    pub(crate) fn fill(&self) -> Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.filler())?;
        for size in [64 << 10, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    /// Leaves so many bytes.
    fn fill_but(&self, bytes: u64) -> Result<()> {
        self.fill()?;
        let file = std::fs::File::options().write(true).open(self.filler())?;
        let length = file.metadata()?.len();
        file.set_len(length.checked_sub(bytes).context("the disk is smaller")?)?;
        Ok(())
    }

    fn inodes(&self) -> PathBuf {
        self.0.join("inodes")
    }

    /// Takes all the inodes there are.
    fn use_inodes(&self) -> Result<()> {
        std::fs::create_dir(self.inodes())?;
        for n in 0.. {
            if std::fs::write(self.inodes().join(n.to_string()), "").is_err() {
                break;
            }
        }
        Ok(())
    }

    fn free_inodes(&self) -> Result<()> {
        std::fs::remove_dir_all(self.inodes()).context("remove the files")
    }

    pub(crate) fn free(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("remove the filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.0.as_os_str().as_encoded_bytes()) {
            // Lazily: a gateway that is still being ended may hold a file.
            // SAFETY: one C string that outlives the call.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
