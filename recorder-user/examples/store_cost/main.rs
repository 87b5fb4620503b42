//! What a durable append costs: `cargo xtask bench store`.
//!
//! The store beside what one would otherwise take: a plain log that is flushed after each record, SQLite in WAL mode
//! with `synchronous = FULL`, and sled alone. All get the same records, from 1, 8 and 64 writers that each wait until
//! their record is durable before they give the next. Each round runs all of them, so that what the machine does
//! meanwhile falls on all alike.

mod logs;
mod measure;
mod records;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;

use measure::Tally;

/// Measures durable appends.
#[derive(Parser)]
struct Arguments {
    /// Where to write: on the disk that is to be measured. A directory is made in it, and removed.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Seconds for each case and round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often all cases are measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

const WRITERS: [usize; 3] = [1, 8, 64];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let place = tempfile::tempdir_in(&arguments.directory).context("make a directory")?;
    let time = Duration::from_secs(arguments.seconds);
    let mut tallies: Vec<Tally> = Vec::new();
    for round in 0..arguments.rounds {
        for writers in WRITERS {
            for (name, run) in logs::ALL {
                eprintln!("round {} of {}: {name}, {writers} writers", round + 1, arguments.rounds);
                let directory = place.path().join("case");
                std::fs::create_dir(&directory).context("make a directory")?;
                let case = run(&directory, writers, time).with_context(|| name.to_owned())?;
                std::fs::remove_dir_all(&directory).context("clean up")?;
                match tallies.iter_mut().find(|tally| tally.is(name, writers)) {
                    Some(tally) => tally.add(case),
                    None => tallies.push(Tally::new(name, writers, case)),
                }
            }
        }
    }
    measure::print(&tallies);
    Ok(())
}
