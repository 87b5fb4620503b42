//! Much data: both ways through exec, and files by cp. Every byte arrives, and every byte is on record.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::gateway::Options;
use serde_json::Value;

use super::visit::Visit;
use crate::scene::Scene;

const GIB: u64 = 1 << 30;

/// 1 GiB each way that compresses well, and 64 MiB each way that does not.
pub(super) async fn both_ways(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "bulk", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    let hashes = visit
        .script(
            "data() { yes 0123456789abcdef | head -c 1073741824; }
             data | sha256sum
             kubectl exec box -- sh -c 'yes 0123456789abcdef | head -c 1073741824' | sha256sum
             data | kubectl exec -i box -- sha256sum
             head -c 67108864 /dev/urandom > noise
             sha256sum < noise
             kubectl exec -i box -- sh -c 'cat > /tmp/noise; sha256sum < /tmp/noise' < noise
             kubectl exec box -- cat /tmp/noise | sha256sum",
            Duration::from_secs(560),
        )
        .await?
        .stdout;
    let hashes: Vec<_> = hashes.lines().map(|line| line.split(' ').next()).collect();
    ensure!(hashes.len() == 6 && hashes[0] == hashes[1] && hashes[0] == hashes[2], "{hashes:?}");
    ensure!(hashes[3] == hashes[4] && hashes[3] == hashes[5], "{hashes:?}");

    let rows = visit.streams("exec", 4).await?;
    for (row, direction, bytes) in [
        (&rows[0], "responseBytes", GIB),
        (&rows[1], "requestBytes", GIB),
        (&rows[2], "requestBytes", 64 << 20),
        (&rows[3], "responseBytes", 64 << 20),
    ] {
        let passed = row[direction].as_u64().context("no byte count")?;
        // Frames cost a little.
        ensure!(passed > bytes && passed < bytes + bytes / 50, "{direction} is {passed}: {row}");
        ensure!(row["account"]["state"] == "complete", "{row}");
    }
    let noise = exported_hash(&visit, &rows[3], "stdout").await?;
    ensure!(Some(noise.as_str()) == hashes[3], "stdout on record is {noise}, was {:?}", hashes[3]);
    let noise = exported_hash(&visit, &rows[2], "stdin").await?;
    ensure!(Some(noise.as_str()) == hashes[3], "stdin on record is {noise}, was {:?}", hashes[3]);
    visit.gateway.recorder()?.verify().await?;
    pod.delete().await
}

async fn exported_hash(visit: &Visit, row: &Value, channel: &str) -> Result<String> {
    let file = visit.scene.directory().join(format!("exported-{channel}"));
    let file = file.display().to_string();
    visit.exported(row, &["--format", "raw", "--channel", channel, "--output", &file]).await?;
    let hash = visit.script(&format!("sha256sum < '{file}'"), Duration::from_secs(60)).await?;
    Ok(hash.stdout.split(' ').next().unwrap_or_default().to_owned())
}

/// A tree there and back; the record names its files.
pub(super) async fn copy(scene: Rc<Scene>) -> Result<()> {
    let visit = Visit::start(&scene, "copy", &Options::default()).await?;
    let pod = visit.pod("box").await?;
    visit
        .script(
            "mkdir -p tree/deep/er
             head -c 3000000 /dev/urandom > tree/noise
             seq 100000 > tree/deep/numbers
             : > tree/deep/er/empty
             echo 'a name' > 'tree/deep/with space'
             kubectl cp tree box:/tmp/tree
             kubectl cp box:/tmp/tree back
             diff -r tree back",
            Duration::from_secs(60),
        )
        .await?;
    let rows = visit.streams("exec", 2).await?;
    let copies: Vec<_> = {
        let mut copies = Vec::new();
        for row in &rows {
            let shown = visit.shown(row).await?;
            if shown["stream"]["copied"]["files"].as_array().is_some_and(|files| !files.is_empty())
            {
                copies.push(shown["stream"]["copied"].clone());
            }
        }
        copies
    };
    ensure!(copies.len() == 2, "copies on record: {copies:?}");
    for (copy, direction) in copies.iter().zip(["into", "outOf"]) {
        ensure!(copy["way"] == direction, "{copy}");
        let files = copy["files"].as_array().context("no files")?;
        for (name, bytes) in
            [("noise", 3_000_000), ("numbers", 588_895), ("with space", 7), ("empty", 0)]
        {
            let listed = files.iter().any(|file| {
                let path = file["path"].as_str().unwrap_or_default();
                path.ends_with(name) && file["bytes"] == bytes
            });
            ensure!(listed, "{name} is not among {files:?}");
        }
    }
    pod.delete().await
}
