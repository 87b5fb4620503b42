//! The verbs of development: `cargo xtask test | demo | bench | images | image | build-ebpf | fuzz | crash | check`.
//!
//! A verb prints each step before it runs and ends at the first that fails. It runs the same cargo and
//! the same target directory as the caller, and installs nothing but what `build-ebpf` and `fuzz` say they install.

mod build_ebpf;
mod fuzz;

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests, shows and measures Decklog")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Everything that can be tested here: unit tests, then the end-to-end scenarios on a real control plane.
    Test {
        /// Only scenarios whose name contains this (and no unit tests).
        #[arg(long)]
        filter: Vec<String>,
        /// Keep the directories of scenarios that passed, too.
        #[arg(long)]
        keep: bool,
        /// Instead: lints and tests of `recorder query`, which costs more to build than all the rest.
        #[arg(long)]
        query: bool,
    },
    /// Shows an agent's visit: control plane, issuer, gateway, kubectl, and what the record says of it.
    Demo {
        /// Passed on; see `cargo xtask demo -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures the gateway beside direct access and beside Envoy; `bench store` durable appends beside other logs.
    Bench {
        /// Passed on; see `cargo xtask bench -- --help` and `bench store --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the eBPF object, with a toolchain that it finds or installs.
    BuildEbpf {
        /// Succeed without an object when there is no toolchain.
        #[arg(long)]
        optional: bool,
    },
    /// Builds the images of the pods that `test` runs; it does so itself where they are missing.
    Images,
    /// Builds Decklog's own image, for `docker load` or `ctr images import`.
    Image {
        /// Of a plain build instead of a release: quicker to make, slower to run.
        #[arg(long)]
        debug: bool,
        /// Where to write it; `decklog-VERSION.tar` in the target directory by default.
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Runs the fuzz targets of the codecs, each for a while; needs a nightly toolchain.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Only these; all when none is named.
        targets: Vec<String>,
    },
    /// Loses the store's disk and kills its writer, many times over: for a night.
    Crash {
        /// How many seeds of the simulated disk.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// Only this seed, with all that is done to its disk; kills nothing.
        #[arg(long, conflicts_with_all = ["seeds", "kills"])]
        seed: Option<u64>,
        /// How many children are killed.
        #[arg(long, default_value_t = 2000)]
        kills: u64,
    },
    /// Formatting, lints, licences and documentation: what must hold before `test` is worth running.
    Check,
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Test { query: true, .. } => query(),
        Verb::Test { filter, keep, .. } => test(&filter, keep),
        Verb::Demo { arguments } => {
            ebpf()?;
            step("build the binaries", cargo(&["build", "--bins"]))?;
            step("demo", with(cargo(&["run", "--quiet", "--bin", "demo", "--"]), &arguments))
        }
        Verb::Bench { arguments } if arguments.first().is_some_and(|first| first == "store") => {
            let example = [
                "run",
                "--release",
                "--quiet",
                "-p",
                "recorder-user",
                "--example",
                "store_cost",
                "--",
            ];
            step("bench store", with(cargo(&example), &arguments[1..]))
        }
        Verb::Bench { arguments } => {
            ebpf()?;
            step("build the binaries, optimized", cargo(&["build", "--release", "--bins"]))?;
            let bench = cargo(&["run", "--release", "--quiet", "--bin", "bench", "--"]);
            step("bench", with(bench, &arguments))
        }
        Verb::BuildEbpf { optional } => build_ebpf::run(optional),
        Verb::Images => step("images", cargo(&["run", "--quiet", "--bin", "images"])),
        Verb::Image { debug, output } => image(debug, output),
        Verb::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Verb::Crash { seed: Some(seed), .. } => {
            step("one seed", with_variables(crash(&["simulated"]), &[("SEED", seed)]))
        }
        Verb::Crash { seeds, kills, .. } => step(
            "lost disks, killed writers",
            with_variables(crash(&[]), &[("SEEDS", seeds), ("KILLS", kills)]),
        ),
        Verb::Check => check(),
    }
}

fn test(filter: &[String], keep: bool) -> Result<()> {
    ebpf()?;
    let build = ["build", "--bins", "--examples", "-p", "archive"];
    let members = ["recorder-user", "gateway", "xtask", "tests"];
    let mut build = cargo(&build);
    build.args(members.iter().flat_map(|member| ["-p", member])).args(ARCHIVE);
    step("build the binaries", build)?;
    if filter.is_empty() {
        let mut tests = cargo(&["test", "--workspace", "--exclude", "query", "--quiet"]);
        tests.args(ARCHIVE);
        step("unit tests", tests)?;
    }
    let mut scenarios = cargo(&["run", "--quiet"]);
    scenarios.args(ARCHIVE).args(["--bin", "scenarios", "--"]);
    for part in filter {
        scenarios.args(["--filter", part]);
    }
    if keep {
        scenarios.arg("--keep");
    }
    step("scenarios", scenarios)
}

fn image(debug: bool, output: Option<PathBuf>) -> Result<()> {
    ebpf()?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let binaries = target.join(if debug { "debug" } else { "release" });
    let mut build = cargo(&["build", "--bins", "-p", "gateway", "-p", "recorder-user"]);
    build.args(["--features", "gateway/archive"]);
    if !debug {
        build.arg("--release");
    }
    step("build the binaries", build)?;
    let name = concat!("decklog-", env!("CARGO_PKG_VERSION"), ".tar");
    let mut image = cargo(&["run", "--quiet", "--bin", "images", "--"]);
    image.arg("--product").arg(binaries);
    image.arg("--output").arg(output.unwrap_or_else(|| target.join(name)));
    step("image", image)
}

fn query() -> Result<()> {
    let lints = cargo(&["clippy", "-p", "query", "--all-targets", "--", "-D", "warnings"]);
    step("lints of the query", lints)?;
    step("the query's tests", cargo(&["test", "-p", "query"]))
}

/// Everything but `query`, which costs more to build than all the rest: `test --query` checks it.
fn check() -> Result<()> {
    step("formatting", cargo(&["fmt", "--all", "--check"]))?;
    let members = ["--workspace", "--exclude", "query"];
    for features in [&[][..], &ARCHIVE[..]] {
        let mut lints = cargo(&["clippy", "--all-targets"]);
        lints.args(members).args(features).args(["--", "-D", "warnings"]);
        step("lints", lints)?;
    }
    step(
        "dependencies",
        cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]),
    )?;
    let mut docs = cargo(&["doc", "--no-deps", "--document-private-items", "--quiet"]);
    docs.args(members).args(ARCHIVE);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", docs)
}

/// The suite of `recorder-user/tests/store_crash`, with more of each.
fn crash(filter: &[&str]) -> Command {
    let mut command = cargo(&["test", "--package", "recorder-user"]);
    command.args(["--test", "store_crash", "--", "--nocapture"]).args(filter);
    command
}

fn with_variables(mut command: Command, variables: &[(&str, u64)]) -> Command {
    for (name, value) in variables {
        command.env(format!("DECKLOG_CRASH_{name}"), value.to_string());
    }
    command
}

/// Without an object everything still builds, and the witness says so at run time.
fn ebpf() -> Result<()> {
    println!("xtask: eBPF object");
    build_ebpf::run(true)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

fn with(mut command: Command, arguments: &[String]) -> Command {
    command.args(arguments);
    command
}

fn step(what: &str, mut command: Command) -> Result<()> {
    println!("xtask: {what}");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("run {what}"))?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    println!("xtask: {what} took {} s", started.elapsed().as_secs());
    Ok(())
}

/// What tests and releases have and a plain build does not.
const ARCHIVE: [&str; 2] = ["--features", "gateway/archive,tests/archive"];
