//! What the witness costs: the same requests through gateways that differ in it alone.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use crate::cases::Case;
use crate::load;
use crate::record::Recorded;
use crate::report::{Report, Tally};
use crate::world::World;
use crate::{Plan, turns};

/// As `witness.mode` has them; the first is what the others are held against.
const MODES: [&str; 3] = ["off", "tcp-info", "ebpf"];

/// Measures in turns. Only one of the gateways runs at a time: eBPF programs run for every socket of the
/// machine, those of the other gateways included.
pub(crate) async fn compare(world: &World, cases: &[Arc<Case>], plan: &Plan) -> Result<Report> {
    ensure!(!cases.is_empty(), "--witness compares requests: no such case was chosen");
    let api_server = world.plane.api_server_id().context("the API server runs")?;
    let mut report = Report::of_witnesses();
    report.tallies = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=plan.rounds {
        for turn in turns(round, MODES.len()) {
            let mode = MODES[turn];
            eprintln!("bench: round {round} of {}, witness {mode}", plan.rounds);
            let mut side = world.witnessed(mode, &format!("{mode}-{round}")).await?;
            let target = side.targets.pop().context("the gateway is the last")?;
            for (case, tallies) in cases.iter().zip(&mut report.tallies) {
                let slice = load::run(&target, api_server, case, plan.slice, round).await;
                let slice = slice.with_context(|| format!("{}, {mode}", case.name))?;
                let known = tallies.iter().position(|tally: &Tally| tally.is_of(mode));
                let place = known.unwrap_or_else(|| {
                    tallies.push(Tally::new(case.name, &target));
                    tallies.len() - 1
                });
                tallies[place].add(&slice)?;
            }
            let recorded = Recorded::of(&side.gateway).await?;
            ensure!(mode != "ebpf" || recorded.gap == 0, "accounts with gaps: {recorded:?}");
            report.recorded.add(&recorded);
            side.gateway.stop().await?;
        }
    }
    for tallies in &mut report.tallies {
        tallies.sort_by_key(|tally| MODES.iter().position(|mode| tally.is_of(mode)));
    }
    Ok(report)
}
