//! The gateway beside direct access and beside Envoy, on one API server: `cargo xtask bench`.
//!
//! Each round runs every case against every target before the next round begins, so that what the machine
//! does meanwhile falls on all of them alike. The steadiest figure is the CPU time of the proxy's process.

mod cases;
mod load;
mod measure;
mod record;
mod report;
mod streams;
mod watches;
mod witness;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use rig::wait::{Level, until};

use crate::cases::{Case, cases};
use crate::record::Recorded;
use crate::report::{Report, Tally};
use crate::streams::Amount;
use crate::watches::Kind;
use crate::world::{GATEWAY, Side, World};

/// Measures the gateway beside direct access and beside Envoy.
///
/// At concurrency c a case uses c connections; over HTTP/2 at most 8, shared. Direct access is the same
/// user with the same token, which the API server then verifies itself.
#[derive(Parser)]
struct Arguments {
    /// Within three minutes: shorter rounds, fewer watches and streams.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this; those of watches begin with `watch`, those of
    /// streams with `exec`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// How often all cases are measured: more rounds, steadier figures.
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Only requests, through gateways whose witness is off, TCP_INFO and eBPF, in turns: what it costs.
    #[arg(long)]
    witness: bool,
    /// Another build of the gateway, measured beside: the directory of its `gateway`.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "witness")]
    against: Option<PathBuf>,
    /// How many watches are open at a time.
    #[arg(long, value_name = "N")]
    watches: Option<usize>,
    /// How many idle streams are open at a time.
    #[arg(long, value_name = "N")]
    idle: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Before there is any other thread. Without a namespace of our own there are no pods.
    let isolated = rig::network::isolate();
    let result = tokio::runtime::Runtime::new()
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(bench(&arguments, isolated)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The cases that were asked for.
struct Chosen {
    requests: Vec<Arc<Case>>,
    watching: Vec<Kind>,
    streams: Vec<streams::Case>,
}

impl Chosen {
    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.watching.is_empty() && self.streams.is_empty()
    }
}

async fn bench(arguments: &Arguments, isolated: Result<()>) -> Result<()> {
    let requests: Vec<_> = cases()
        .into_iter()
        .filter(|case| case.name.contains(&arguments.filter))
        .map(Arc::new)
        .collect();
    let watching: Vec<_> =
        watches::KINDS.into_iter().filter(|kind| kind.name.contains(&arguments.filter)).collect();
    let streams: Vec<_> =
        streams::CASES.into_iter().filter(|(name, _)| name.contains(&arguments.filter)).collect();
    let cases = Chosen { requests, watching, streams };
    ensure!(!cases.is_empty(), "no case contains `{}`", arguments.filter);
    let other = arguments.against.as_ref().map(|directory| directory.join("gateway"));
    let place = tempfile::Builder::new().prefix("decklog-bench-").tempdir()?;
    let started = Instant::now();
    let world = tokio::select! {
        world = World::start(place.path(), other) => world?,
        _ = tokio::signal::ctrl_c() => return Ok(()),
    };
    eprintln!("bench: all is up after {:.0} s", started.elapsed().as_secs_f64());
    tokio::select! {
        report = measure(&world, &cases, arguments, isolated) => {
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
    cases: &Chosen,
    arguments: &Arguments,
    isolated: Result<()>,
) -> Result<Report> {
    let plan = if arguments.quick { QUICK } else { FULL };
    let streams = Amount {
        rounds: arguments.rounds.unwrap_or(plan.streams.rounds),
        idle: arguments.idle.unwrap_or(plan.streams.idle),
        ..plan.streams
    };
    let plan = Plan { rounds: arguments.rounds.unwrap_or(plan.rounds), streams, ..plan };
    if arguments.witness {
        return witness::compare(world, &cases.requests, &plan).await;
    }
    let mut report = Report::new(world.without_envoy());
    for &kind in &cases.watching {
        let count = arguments.watches.unwrap_or(plan.watches);
        let side = world.side(kind.slug).await?;
        let watched = watches::run(world.plane.admin(), &side, kind, count, plan.rounds).await?;
        report.watched.extend(watched);
        report.recorded.add(&Recorded::of(&side.gateway).await?);
    }
    if !cases.requests.is_empty() {
        let side = world.side("load").await?;
        report.tallies = load(world, &side, &cases.requests, &plan).await?;
        report.recorded.add(&Recorded::of(&side.gateway).await?);
        let asked = report.tallies.iter().flatten().filter(|tally| tally.is_of(GATEWAY));
        let asked: u64 = asked.map(Tally::requests).sum();
        ensure!(report.recorded.exchanges >= asked, "only {:?} of {asked}", report.recorded);
    }
    match isolated {
        _ if cases.streams.is_empty() => {}
        Err(error) => report.without_streams = Some(format!("{error:#}")),
        // Last: a node has work of its own.
        Ok(()) => carry(world, &cases.streams, plan.streams, &mut report).await?,
    }
    Ok(report)
}

async fn carry(
    world: &World,
    cases: &[streams::Case],
    amount: Amount,
    report: &mut Report,
) -> Result<()> {
    let side = world.side("streams").await?;
    let streams = streams::run(world, &side, cases, amount).await?;
    let expected = streams.recorded;
    report.streams = Some(streams);
    // The streams have ended; their outcomes are written behind that.
    until("all streams are on record", RECORDED_LIMIT, async || {
        let recorded = Recorded::of(&side.gateway).await?;
        Ok(Level::when(recorded.exchanges >= expected, || format!("{recorded:?} of {expected}")))
    })
    .await?;
    report.recorded.add(&Recorded::of(&side.gateway).await?);
    Ok(())
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
            for turn in turns(round, side.targets.len()) {
                let target = &side.targets[turn];
                let slice = load::run(target, api_server, case, plan.slice, round).await;
                let slice = slice.with_context(|| format!("{}, {}", case.name, target.name))?;
                tallies[turn].add(&slice)?;
            }
        }
    }
    Ok(tallies)
}

/// Each comes first in turn: what the last one left behind falls on all of them alike.
fn turns(round: u32, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round as usize) % count)
}

struct Plan {
    rounds: u32,
    slice: Duration,
    watches: usize,
    streams: Amount,
}

const FULL: Plan = Plan {
    rounds: 4,
    slice: Duration::from_millis(1000),
    watches: 1000,
    streams: Amount { rounds: 4, bytes: 256 << 20, echoes: 500, idle: 1000 },
};
const QUICK: Plan = Plan {
    rounds: 2,
    slice: Duration::from_millis(250),
    watches: 200,
    streams: Amount { rounds: 2, bytes: 64 << 20, echoes: 500, idle: 100 },
};
const RECORDED_LIMIT: Duration = Duration::from_secs(20);
