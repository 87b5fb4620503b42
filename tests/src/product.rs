//! Decklog's own image: `gateway` and `recorder` with the libraries that they are linked to, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::image::{Config, Layer, image};
use crate::process;

/// The image's name, as the manifests in `deploy/` have it.
pub const IMAGE: &str = concat!("decklog:", env!("CARGO_PKG_VERSION"));

/// The user that the image runs as: nobody else's on a node.
pub const USER: u32 = 65_532;

/// Makes the image of the programs in `binaries`, as `docker save` would write it, in `output`.
///
/// # Errors
/// When a program is missing, or `strip` or `ldd` fails on it.
pub fn write(binaries: &Path, output: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("make a directory")?;
    let mut layer = Layer::new();
    for (directory, mode) in DIRECTORIES {
        layer.directory(directory, mode)?;
    }
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let (built, small) = (binaries.join(program), scratch.path().join(program));
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").arg(&small).arg(&built);
        run(strip)?;
        let bytes = fs::read(&small).with_context(|| format!("read {}", small.display()))?;
        layer.file(&format!("usr/bin/{program}"), &bytes, 0o755)?;
        libraries.extend(linked(&built)?);
    }
    for library in &libraries {
        let bytes = fs::read(library).with_context(|| format!("read {}", library.display()))?;
        let inside = library.strip_prefix("/").context("a library by a relative path")?;
        layer.file(&inside.display().to_string(), &bytes, 0o755)?;
    }
    for (file, text) in FILES {
        layer.file(file, text.as_bytes(), 0o644)?;
    }
    // Issuers and API servers whose authority is not configured are verified by the builder's own roots.
    if let Ok(roots) = fs::read(ROOTS) {
        layer.file(ROOTS.trim_start_matches('/'), &roots, 0o644)?;
    }
    let user = format!("{USER}:{USER}");
    let config = Config { command: &["gateway", "--help"], path: "/usr/bin", user: &user };
    let mut archive = Layer::new();
    let manifest = [image(&mut archive, IMAGE, &layer.finish()?, &config)?];
    archive.file("manifest.json", json!(manifest).to_string().as_bytes(), 0o644)?;
    let part = output.with_extension("part");
    fs::write(&part, archive.finish()?).with_context(|| format!("write {}", part.display()))?;
    // The name appears only when the file is whole.
    fs::rename(&part, output).with_context(|| format!("name {}", output.display()))
}

/// The shared libraries of a program, its loader included, by their paths.
fn linked(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program);
    let text = run(ldd)?;
    ensure!(!text.contains("not found"), "{} lacks a library:\n{text}", program.display());
    Ok(libraries(&text).map(PathBuf::from).collect())
}

/// The paths in what ldd says: `libc.so.6 => /lib/libc.so.6 (0x…)`, or the path alone.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        path.split_whitespace().next().filter(|path| path.starts_with('/'))
    })
}

fn run(command: Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = process::run_blocking(command, LIMIT)?;
    ensure!(output.success(), "{shown}: {}{}", output.stdout, output.stderr);
    Ok(output.stdout)
}

const PROGRAMS: [&str; 2] = ["gateway", "recorder"];
const DIRECTORIES: [(&str, u32); 4] =
    [("usr", 0o755), ("usr/bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)];
const FILES: [(&str, &str); 3] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/:/sbin/nologin\ndecklog:x:65532:65532:decklog:/:/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\ndecklog:x:65532:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_found() {
        let text = "\tlinux-vdso.so.1 (0x00007f2a)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x01)\n";
        let found: Vec<_> = libraries(text).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn the_image_holds_the_programs_and_runs_as_nobody() {
        let directory = tempfile::tempdir().unwrap();
        for program in PROGRAMS {
            fs::copy("/proc/self/exe", directory.path().join(program)).unwrap();
        }
        let output = directory.path().join("decklog.tar");
        write(directory.path(), &output).unwrap();
        let mut config = None;
        for entry in tar::Archive::new(fs::File::open(&output).unwrap()).entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            if path.extension().is_some_and(|end| end == "json")
                && path != Path::new("manifest.json")
            {
                config = Some(serde_json::from_reader::<_, serde_json::Value>(entry).unwrap());
            }
        }
        assert_eq!(config.unwrap()["config"]["User"], "65532:65532");
    }
}
