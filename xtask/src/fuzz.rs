//! `cargo xtask fuzz`: builds the fuzz targets with a nightly toolchain and runs each for a while.
//!
//! Seeds are in git (`fuzz/seeds/TARGET`); what a run finds beside them stays in the cache, and the next run goes
//! on from there. The first finding ends the run, with the input in `fuzz/artifacts`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::build_ebpf::{cache, scrubbed, succeed};

const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// Longest input that is tried, where the target has no bound of its own to reach.
const INPUT_BYTES_MAX: u32 = 16 << 10;

/// More memory than this is a finding: the codecs' bounds are far below.
const MEMORY_MIB_MAX: u32 = 1024;

/// Runs `targets`, or all there are.
///
/// # Errors
/// When something is missing that cannot be installed, a target does not build, or there is a finding.
pub(crate) fn run(seconds: u64, targets: &[String]) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("find the workspace")?;
    let known = known_targets(workspace)?;
    for target in targets {
        ensure!(known.contains(target), "no target {target}; there are {}", known.join(", "));
    }
    let nightly = scrubbed("rustup").args(["run", "nightly", "rustc", "--version"]).output();
    if !nightly.is_ok_and(|out| out.status.success()) {
        println!("xtask: installing a nightly toolchain, which sanitizers need");
        succeed(scrubbed("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
        ]))?;
    }
    let tools = install_cargo_fuzz()?;
    let target_dir = cache()?.join("fuzz");
    let chosen = if targets.is_empty() { &known } else { targets };
    for target in chosen {
        println!("xtask: fuzz {target} for {seconds} s");
        let found = target_dir.join("corpus").join(target);
        fs::create_dir_all(&found).context("make the corpus")?;
        let mut fuzz = cargo_fuzz(workspace, &tools)?;
        fuzz.args(["run", "--fuzz-dir", "fuzz", "--target-dir"]).arg(&target_dir);
        fuzz.arg(target).arg(&found).arg(workspace.join("fuzz/seeds").join(target));
        fuzz.args(["--", "-print_final_stats=1", "-timeout=10"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        succeed(&mut fuzz)?;
    }
    Ok(())
}

fn known_targets(workspace: &Path) -> Result<Vec<String>> {
    let folder = workspace.join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).context("list the fuzz targets")? {
        let path = entry.context("list the fuzz targets")?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// `cargo +nightly fuzz`, which finds its subcommand on PATH.
fn cargo_fuzz(workspace: &Path, tools: &Path) -> Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools.join("bin")).chain(env::split_paths(&path)))
        .context("put cargo-fuzz on PATH")?;
    let mut command = scrubbed("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]);
    command.env_remove("RUSTUP_TOOLCHAIN").env("PATH", path).current_dir(workspace);
    Ok(command)
}

/// Where cargo-fuzz is, built there when it is not of the version that we know.
fn install_cargo_fuzz() -> Result<PathBuf> {
    let tools = cache()?.join("tools");
    let version = scrubbed(tools.join("bin/cargo-fuzz")).args(["fuzz", "--version"]).output();
    let fits = version.is_ok_and(|out| {
        String::from_utf8_lossy(&out.stdout).split_whitespace().any(|w| w == CARGO_FUZZ_VERSION)
    });
    if !fits {
        println!("xtask: installing cargo-fuzz {CARGO_FUZZ_VERSION} (a minute)");
        succeed(scrubbed("cargo").args(["install", "--locked", "--root"]).arg(&tools).args([
            "cargo-fuzz",
            "--version",
            CARGO_FUZZ_VERSION,
        ]))?;
    }
    Ok(tools)
}
