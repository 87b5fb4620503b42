//! The gateway beside direct access and beside Envoy, on one API server: `cargo xtask bench`.
//!
//! Each round runs every case against every target before the next round begins, so that what the machine
//! does meanwhile falls on all of them alike. The steadiest figure is the CPU time of the proxy's process.

mod cases;
mod load;
mod measure;
mod report;
mod watches;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::cases::{Case, cases};
use crate::report::{Report, Tally};
use crate::world::World;

/// Measures the gateway beside direct access and beside Envoy.
///
/// At concurrency c a case uses up to 8 connections and, over HTTP/2, shares them beyond that. Direct
/// access is the same user with a client certificate.
#[derive(Parser)]
struct Arguments {
    /// Within 80 seconds: shorter rounds, fewer watches.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this; the watches' is `watch`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// How many watches are open at a time.
    #[arg(long, value_name = "N")]
    watches: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = tokio::runtime::Runtime::new()
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(bench(&arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<_> = cases()
        .into_iter()
        .filter(|case| case.name.contains(&arguments.filter))
        .map(Arc::new)
        .collect();
    let watching = watches::NAME.contains(&arguments.filter);
    ensure!(watching || !chosen.is_empty(), "no case contains `{}`", arguments.filter);
    let place = tempfile::Builder::new().prefix("decklog-bench-").tempdir()?;
    let started = Instant::now();
    let world = tokio::select! {
        world = World::start(place.path()) => world?,
        _ = tokio::signal::ctrl_c() => return Ok(()),
    };
    eprintln!("bench: all is up after {:.0} s", started.elapsed().as_secs_f64());
    tokio::select! {
        report = measure(&world, &chosen, watching, arguments) => {
            let report = report?;
            if arguments.json {
                println!("{}", report.json());
            } else {
                report.print();
            }
            eprintln!("bench: done after {:.0} s", started.elapsed().as_secs_f64());
        }
        _ = tokio::signal::ctrl_c() => eprintln!("bench: stopped"),
    }
    Ok(())
}

async fn measure(
    world: &World,
    cases: &[Arc<Case>],
    watching: bool,
    arguments: &Arguments,
) -> Result<Report> {
    let plan = if arguments.quick { QUICK } else { FULL };
    let mut report = Report::new(world.without_envoy.clone());
    // First: memory that the load has freed would hide what a watch needs.
    if watching {
        let count = arguments.watches.unwrap_or(plan.watches);
        for target in &world.targets {
            eprintln!("bench: {count} watches, {}", target.name);
            let watched = watches::run(world, target, count).await;
            report.watched.push(watched.with_context(|| format!("watches, {}", target.name))?);
        }
    }
    let mut tallies: Vec<Vec<_>> = cases
        .iter()
        .map(|case| world.targets.iter().map(|target| Tally::new(case.name, target.name)).collect())
        .collect();
    for round in 1..=plan.rounds {
        eprintln!("bench: round {round} of {}", plan.rounds);
        for (case, tallies) in cases.iter().zip(&mut tallies) {
            for (target, tally) in world.targets.iter().zip(tallies) {
                let slice = load::run(target, case, plan.slice, round).await;
                tally.add(&slice.with_context(|| format!("{}, {}", case.name, target.name))?)?;
            }
        }
    }
    report.tallies = tallies;
    Ok(report)
}

struct Plan {
    rounds: u32,
    slice: Duration,
    watches: usize,
}

const FULL: Plan = Plan { rounds: 4, slice: Duration::from_millis(1800), watches: 1000 };
const QUICK: Plan = Plan { rounds: 2, slice: Duration::from_millis(400), watches: 300 };
