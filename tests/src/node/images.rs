//! The images of the rig's pods, made by hand: no registry is ever asked.
//!
//! `pause` holds a pod's namespaces; `box` is a static busybox with all of its applets: a shell, cat, tar
//! (which `kubectl cp` needs), nc, stty and the like, and a server that echoes (`echod`). Both in one
//! `docker save` archive, in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::packages::{self, find};
use crate::image::{Config, Layer, image};
use crate::{cache, process};

/// The image of the pods' own containers.
pub const BOX: &str = "docker.io/decklog/box:1";
/// The image that holds a pod's namespaces.
pub const PAUSE: &str = "docker.io/decklog/pause:1";

/// Built images.
#[derive(Clone, Debug)]
pub struct Images {
    /// Both, as `docker save` writes them.
    pub archive: PathBuf,
    /// The program of the `pause` image, which can run outside a container, too.
    pub pause: PathBuf,
}

impl Images {
    /// Finds them in the cache or builds them: a second, when the packages that it needs are there.
    ///
    /// # Errors
    /// When busybox or a C compiler is missing and cannot be installed, or the build fails.
    pub fn build() -> Result<Self> {
        packages::require(&[
            ("busybox", "busybox-static"),
            ("gcc", "gcc"),
            (C_LIBRARY, "libc6-dev"),
        ])?;
        let busybox = find("busybox").expect("just required");
        let busybox_bytes =
            fs::read(&busybox).with_context(|| format!("read {}", busybox.display()))?;
        ensure!(
            !has_interpreter(&busybox_bytes),
            "{} is dynamically linked; install busybox-static",
            busybox.display()
        );
        let sources = [PAUSE_SOURCE.as_bytes(), ECHO_SOURCE.as_bytes()];
        let key = cache::digest(&[sources[0], sources[1], &busybox_bytes, LAYOUT]);
        let directory = cache::directory()?.join("images").join(key);
        let images = Self { archive: directory.join("images.tar"), pause: directory.join("pause") };
        if images.archive.exists() {
            return Ok(images);
        }
        let _lock = cache::lock("images")?;
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        compile(&directory, "pause", PAUSE_SOURCE)?;
        let echo = fs::read(compile(&directory, "echod", ECHO_SOURCE)?)?;
        let pause = fs::read(&images.pause)?;
        let archive = archive(&pause, &busybox_bytes, &echo, &applets(&busybox)?)?;
        let part = directory.join("part");
        fs::write(&part, archive).context("write the images")?;
        // The name appears only when the file is whole.
        fs::rename(&part, &images.archive).context("name the images")?;
        Ok(images)
    }
}

fn compile(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let (source, output) = (directory.join(format!("{name}.c")), directory.join(name));
    fs::write(&source, text).with_context(|| format!("write {}", source.display()))?;
    let mut command = Command::new("gcc");
    command.args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(&output).arg(&source);
    let compiled = process::run_blocking(command, COMMAND_LIMIT)?;
    ensure!(compiled.success(), "compile {name}.c: {}", compiled.stderr);
    Ok(output)
}

fn applets(busybox: &Path) -> Result<Vec<String>> {
    let mut command = Command::new(busybox);
    command.arg("--list");
    let listed = process::run_blocking(command, COMMAND_LIMIT)?;
    ensure!(listed.success(), "list busybox's applets: {}", listed.stderr);
    Ok(listed.stdout.lines().map(str::to_owned).filter(|applet| applet != "busybox").collect())
}

fn archive(pause: &[u8], busybox: &[u8], echo: &[u8], applets: &[String]) -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.file("pause", pause, 0o755)?;
    let pause = layer.finish()?;
    let mut layer = Layer::new();
    for (directory, mode) in [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)] {
        layer.directory(directory, mode)?;
    }
    layer.file("bin/busybox", busybox, 0o755)?;
    layer.file("bin/echod", echo, 0o755)?;
    layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
    layer.file("etc/group", b"root:x:0:\n", 0o644)?;
    for applet in applets {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    let boxed = layer.finish()?;

    let mut archive = Layer::new();
    let manifest = [
        image(&mut archive, PAUSE, &pause, &config(&["/pause"]))?,
        image(&mut archive, BOX, &boxed, &config(&["/bin/sh"]))?,
    ];
    archive.file("manifest.json", json!(manifest).to_string().as_bytes(), 0o644)?;
    archive.finish()
}

fn config<'c>(command: &'c [&'c str]) -> Config<'c> {
    Config { command, path: "/bin", user: "" }
}

/// Whether an ELF program asks for a dynamic loader, which an image of one file has not.
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| {
        let bytes = elf.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0_usize, |value, &byte| value << 8 | usize::from(byte)))
    };
    // ELF-64, little-endian: e_phoff, e_phentsize, e_phnum; p_type comes first in a program header.
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).any(|index| number(table + index * size, 4) == Some(PT_INTERP as usize))
}

const PAUSE_SOURCE: &str = include_str!("../../rig/pause.c");
const ECHO_SOURCE: &str = include_str!("../../rig/echo.c");
/// Without it gcc cannot link a static program.
const C_LIBRARY: &str = "/usr/include/stdlib.h";
/// To be changed with what is in the archive besides the programs.
const LAYOUT: &[u8] = b"2";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::image::sha256;

    #[test]
    fn an_archive_names_its_layers_by_their_content() {
        let applets = ["sh".to_owned(), "cat".to_owned()];
        let bytes = archive(b"pause", b"busybox", b"echo", &applets).unwrap();
        assert_eq!(bytes, archive(b"pause", b"busybox", b"echo", &applets).unwrap());

        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(path, content);
        }
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[1]["RepoTags"], json!([BOX]));
        for image in manifest.as_array().unwrap() {
            let config: Value =
                serde_json::from_slice(&files[image["Config"].as_str().unwrap()]).unwrap();
            let layer = &files[image["Layers"][0].as_str().unwrap()];
            assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", sha256(layer))]));
        }
        let layer = &files[manifest[1]["Layers"][0].as_str().unwrap()];
        let mut layer = tar::Archive::new(&layer[..]);
        let link = layer
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| entry.path().unwrap() == Path::new("bin/cat"));
        let target = link.unwrap().link_name().unwrap().unwrap().into_owned();
        assert_eq!(target, Path::new("busybox"));
    }

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(has_interpreter(&own));
        let mut without = own;
        // No program headers, no loader.
        without[56..58].fill(0);
        assert!(!has_interpreter(&without));
    }
}
