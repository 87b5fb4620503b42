//! The gateway beside direct access and beside Envoy, on one API server: `cargo xtask bench`.
//!
//! Each round runs every case against every target before the next round begins, so that what the machine
//! does meanwhile falls on all of them alike. The steadiest figure is the CPU time of the proxy's process.

mod cases;
mod load;
mod measure;
mod record;
mod report;
mod watches;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::cases::{Case, cases};
use crate::record::Recorded;
use crate::report::{Report, Tally};
use crate::watches::Kind;
use crate::world::{Side, World};

/// Measures the gateway beside direct access and beside Envoy.
///
/// At concurrency c a case uses c connections; over HTTP/2 at most 8, shared. Direct access is the same
/// user with the same token, which the API server then verifies itself.
#[derive(Parser)]
struct Arguments {
    /// Within 90 seconds: shorter rounds, fewer watches.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this; those of watches begin with `watch`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// How often all cases are measured: more rounds, steadier figures.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
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
    let watching: Vec<_> =
        watches::KINDS.into_iter().filter(|kind| kind.name.contains(&arguments.filter)).collect();
    ensure!(!watching.is_empty() || !chosen.is_empty(), "no case contains `{}`", arguments.filter);
    let place = tempfile::Builder::new().prefix("decklog-bench-").tempdir()?;
    let started = Instant::now();
    let world = tokio::select! {
        world = World::start(place.path()) => world?,
        _ = tokio::signal::ctrl_c() => return Ok(()),
    };
    eprintln!("bench: all is up after {:.0} s", started.elapsed().as_secs_f64());
    tokio::select! {
        report = measure(&world, &chosen, &watching, arguments) => {
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
    watching: &[Kind],
    arguments: &Arguments,
) -> Result<Report> {
    let plan = if arguments.quick { QUICK } else { FULL };
    let plan = Plan { rounds: arguments.rounds.unwrap_or(plan.rounds), ..plan };
    let mut report = Report::new(world.without_envoy());
    for &kind in watching {
        let count = arguments.watches.unwrap_or(plan.watches);
        let side = world.side(kind.slug).await?;
        for target in &side.targets {
            eprintln!("bench: {}, {count} watches, {}", kind.name, target.name);
            let watched = watches::run(world.plane.admin(), target, kind, count).await;
            report.watched.push(watched.with_context(|| format!("watches, {}", target.name))?);
        }
        report.recorded.add(&Recorded::of(&side.gateway).await?);
    }
    if !cases.is_empty() {
        let side = world.side("load").await?;
        report.tallies = load(world, &side, cases, &plan).await?;
        report.recorded.add(&Recorded::of(&side.gateway).await?);
        let asked: u64 = report.tallies.iter().flatten().map(Tally::recorded).sum();
        ensure!(report.recorded.exchanges >= asked, "only {:?} of {asked}", report.recorded);
    }
    Ok(report)
}

async fn load(
    world: &World,
    side: &Side,
    cases: &[Arc<Case>],
    plan: &Plan,
) -> Result<Vec<Vec<Tally>>> {
    let api_server = world.plane.api_server_id().context("the API server runs")?;
    let tallies = |case: &Arc<Case>| {
        side.targets.iter().map(|target| Tally::new(case.name, target)).collect::<Vec<_>>()
    };
    let mut tallies: Vec<_> = cases.iter().map(tallies).collect();
    for round in 1..=plan.rounds {
        eprintln!("bench: round {round} of {}", plan.rounds);
        for (case, tallies) in cases.iter().zip(&mut tallies) {
            // Each comes first in turn: what the last one left behind falls on all of them alike.
            for turn in 0..side.targets.len() {
                let turn = (turn + round as usize) % side.targets.len();
                let target = &side.targets[turn];
                let slice = load::run(target, api_server, case, plan.slice, round).await;
                let slice = slice.with_context(|| format!("{}, {}", case.name, target.name))?;
                tallies[turn].add(&slice)?;
            }
        }
    }
    Ok(tallies)
}

struct Plan {
    rounds: u32,
    slice: Duration,
    watches: usize,
}

const FULL: Plan = Plan { rounds: 4, slice: Duration::from_millis(1000), watches: 1000 };
const QUICK: Plan = Plan { rounds: 2, slice: Duration::from_millis(250), watches: 200 };
