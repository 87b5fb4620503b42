//! Container images made by hand: layers as tar archives, in the format of `docker save`, which every runtime
//! imports. No registry is ever asked, and the same content gives the same bytes.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What an image says of its process.
pub(crate) struct Config<'c> {
    /// The command.
    pub(crate) command: &'c [&'c str],
    /// Where programs are found.
    pub(crate) path: &'c str,
    /// User and group; empty for root.
    pub(crate) user: &'c str,
}

/// Adds an image of one layer (image-spec v1.2, without compression) and gives its entry in the manifest.
pub(crate) fn image(
    archive: &mut Layer,
    name: &str,
    layer: &[u8],
    config: &Config<'_>,
) -> Result<Value> {
    let digest = sha256(layer);
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {
            "Cmd": config.command, "Env": [format!("PATH={}", config.path)], "WorkingDir": "/",
            "User": config.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let config = config.to_string();
    let (config_file, layer_file) =
        (format!("{}.json", sha256(config.as_bytes())), format!("{digest}/layer.tar"));
    archive.file(&config_file, config.as_bytes(), 0o644)?;
    archive.file(&layer_file, layer, 0o644)?;
    Ok(json!({"Config": config_file, "RepoTags": [name], "Layers": [layer_file]}))
}

/// A tar archive in memory, the same bytes for the same content.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_size(bytes.len() as u64);
        self.0.append_data(&mut header, path, bytes).with_context(|| format!("add {path}"))
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(tar::EntryType::Directory, mode);
        self.0.append_data(&mut header, path, &[][..]).with_context(|| format!("add {path}"))
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        self.0.append_link(&mut header, path, target).with_context(|| format!("add {path}"))
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("finish an archive")
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As Go and with it image configurations name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
