//! Proof that what the store acknowledges survives: on a simulated disk that loses its page cache, and in
//! children that are killed.
//!
//! `cargo xtask crash` runs this with many seeds and kills; see docs/development.md.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod book;
mod chance;
mod disk;
mod killed;
mod lives;
mod plan;
mod platter;
#[path = "../store_suite/support.rs"]
#[allow(dead_code, reason = "shared with store_suite, which uses more of it")]
mod support;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use lives::{Failure, Tally};
use plan::Lie;

/// Runs seeds on all processors; gives the sums and the failures by seed.
fn run(seeds: std::ops::Range<u64>, lie: Option<Lie>) -> (Tally, Vec<Failure>) {
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new((Tally::default(), Vec::new()));
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = lives::run(seed, lie);
                    let mut results = results.lock().expect("nobody panics with it");
                    match result {
                        Ok(tally) => results.0.add(tally),
                        Err(failure) => results.1.push(failure),
                    }
                }
            });
        }
    });
    let (tally, mut failures) = results.into_inner().expect("nobody panicked with it");
    failures.sort_by_key(|failure| failure.seed);
    (tally, failures)
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.power_cuts += other.power_cuts;
        self.faults += other.faults;
        self.records += other.records;
    }
}

#[test]
fn a_simulated_disk_loses_nothing_that_was_acknowledged() {
    let seeds = match (number(SEED), number(SEEDS)) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(200),
    };
    let (tally, failures) = run(seeds.clone(), None);
    println!("seeds {seeds:?}: {tally:?}");
    for failure in failures.iter().take(5) {
        println!("{failure}");
    }
    let failed: Vec<_> = failures.iter().map(|failure| failure.seed).collect();
    assert!(failed.is_empty(), "{} of {seeds:?} fail: {failed:?}", failed.len());
}

/// The suite itself is proven: a disk that lies is found out.
#[test]
fn a_disk_that_lies_is_found_out() {
    for lie in [Lie::Sync, Lie::SyncDirectory, Lie::Write] {
        let (_, failures) = run(0..40, Some(lie));
        assert!(!failures.is_empty(), "nothing noticed that the disk lies about {lie:?}");
    }
}

/// A number that `cargo xtask crash` asks for.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

const SEED: &str = "DECKLOG_CRASH_SEED";
const SEEDS: &str = "DECKLOG_CRASH_SEEDS";
