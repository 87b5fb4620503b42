//! The disk is full: nothing passes that cannot be recorded, and everything works again afterwards.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use recorder_user::model::{Record, UnrecordedSpan};
use recorder_user::store::Reader;
use rig::gateway::Options;
use rig::recorder::Recorder;
use rig::wait::{Level, until};
use serde_json::json;

use crate::runner::{Scenario, scenario};
use crate::scene::Scene;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!("disk-full-and-free-again", disk_full_and_free_again)]
}

/// `sre` may read without a record while the store does not work; nobody else may.
const POLICY: &str = r#"
@id("everything")
permit(principal, action, resource);

@id("on-call-reads")
@unrecorded("allow")
permit(principal in k8s::Group::"sre", action in [k8s::Action::"get", k8s::Action::"list", k8s::Action::"watch"], resource);
"#;

const COLLECTION: &str = "/api/v1/namespaces/full/configmaps";

async fn disk_full_and_free_again(scene: Rc<Scene>) -> Result<()> {
    let disk = SmallDisk::mount(&scene.directory().join("disk"))?;
    let options = Options {
        config: json!({"store": {"directory": disk.path().join("store")}}),
        ..Options::access(POLICY)
    };
    let mut gateway = scene.gateway(&options).await?;
    scene.plane().namespace("full").await?;
    let bob = scene.as_user(&gateway, "bob").await?;
    bob.json("POST", COLLECTION, &config_map("before")).await?.success()?;

    disk.fill()?;
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

fn config_map(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
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
        std::fs::create_dir_all(path)?;
        let (kind, target) = (c"tmpfs", CString::new(path.as_os_str().as_encoded_bytes())?);
        // SAFETY: four C strings that outlive the call.
        let result = unsafe {
            libc::mount(
                kind.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                0,
                c"size=24m".as_ptr().cast(),
            )
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
