//! End-to-end scenarios on the rig: the real gateway between real clients and a real API server.
//!
//! `scenarios [--filter TEXT] [--list]`. Each scenario has its own gateways, stores and directory; most
//! share one control plane. All of it is in a network namespace of its own, where that can be made. A failed scenario keeps its directory and says where. The last line is
//! `N passed, N failed`.

mod account;
#[cfg(feature = "archive")]
mod archiving;
mod attribution;
mod authentication;
mod bypass;
mod crash;
mod disk;
mod ended;
mod fairness;
mod hostile;
mod impersonation;
mod kubectl;
mod leaks;
mod metrics;
mod outage;
mod passthrough;
mod player;
mod policies;
mod probe;
mod reads;
mod record;
mod retention;
mod runner;
mod scene;
mod streams;
mod times;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Runs the end-to-end scenarios.
#[derive(Parser)]
struct Arguments {
    /// Only scenarios whose name contains this; may be given more than once.
    #[arg(long)]
    filter: Vec<String>,
    /// Print the names and end.
    #[arg(long)]
    list: bool,
    /// Keep the directories of scenarios that passed, too.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    // The chain of causes; not the backtrace that `Result` would add to it.
    run().unwrap_or_else(|error| {
        eprintln!("scenarios: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut scenarios = all();
    if !arguments.filter.is_empty() {
        let wanted = |name: &str| arguments.filter.iter().any(|part| name.contains(part.as_str()));
        scenarios.retain(|scenario| wanted(scenario.name));
    }
    if arguments.list {
        scenarios.iter().for_each(|scenario| println!("{}", scenario.name));
        return Ok(ExitCode::SUCCESS);
    }
    // Before there is any other thread. Without a namespace of our own all that needs no pods still works.
    if let Err(error) = rig::network::isolate() {
        eprintln!("scenarios: no network namespace of our own, so no pods: {error:#}");
    }
    // Dropped last: a scenario that is cut short has its processes until its task is dropped.
    let mut root = tempfile::Builder::new().prefix("decklog-scenarios-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let kept = if arguments.keep { runner::Keep::Always } else { runner::Keep::Failed };
    tokio::task::LocalSet::new().block_on(&runtime, runner::run(scenarios, kept, &mut root))
}

fn all() -> Vec<runner::Scenario> {
    let topics = [
        kubectl::scenarios(),
        attribution::scenarios(),
        policies::scenarios(),
        authentication::scenarios(),
        hostile::scenarios(),
        impersonation::scenarios(),
        passthrough::scenarios(),
        watch::scenarios(),
        ended::scenarios(),
        record::scenarios(),
        reads::scenarios(),
        retention::scenarios(),
        player::scenarios(),
        account::scenarios(),
        probe::scenarios(),
        times::scenarios(),
        bypass::scenarios(),
        leaks::scenarios(),
        metrics::scenarios(),
        fairness::scenarios(),
        outage::scenarios(),
        disk::scenarios(),
        crash::scenarios(),
        streams::scenarios(),
        #[cfg(feature = "archive")]
        archiving::scenarios(),
    ];
    topics.into_iter().flatten().collect()
}
