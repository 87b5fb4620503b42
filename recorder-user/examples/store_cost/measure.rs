//! Times, and what they come to.

use std::time::{Duration, Instant};

/// What one run of one case gave.
pub(crate) struct Case {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
    pub(crate) bytes: u64,
    /// Flushes, where they can be counted.
    pub(crate) flushes: Option<u64>,
}

/// All runs of one case.
pub(crate) struct Tally {
    name: &'static str,
    writers: usize,
    all: Case,
}

impl Tally {
    pub(crate) fn new(name: &'static str, writers: usize, all: Case) -> Self {
        Self { name, writers, all }
    }

    pub(crate) fn is(&self, name: &str, writers: usize) -> bool {
        self.name == name && self.writers == writers
    }

    pub(crate) fn add(&mut self, mut case: Case) {
        self.all.latencies.append(&mut case.latencies);
        self.all.took += case.took;
        self.all.cpu += case.cpu;
        self.all.bytes += case.bytes;
        self.all.flushes = self.all.flushes.zip(case.flushes).map(|(all, more)| all + more);
    }
}

/// A table, by writers.
pub(crate) fn print(tallies: &[Tally]) {
    println!(
        "| writers | log | appends/s | p50 µs | p99 µs | CPU µs | appends a flush | bytes an append |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|");
    for Tally { name, writers, all } in tallies {
        let mut latencies = all.latencies.clone();
        latencies.sort_unstable();
        let count = latencies.len().max(1);
        let at = |part: usize| latencies.get(count * part / 100).map_or(0, Duration::as_micros);
        let each = |all: f64| all / count as f64;
        let flushes = all
            .flushes
            .map_or("-".into(), |flushes| format!("{:.1}", count as f64 / flushes.max(1) as f64));
        println!(
            "| {writers} | {name} | {:.0} | {} | {} | {:.0} | {flushes} | {:.0} |",
            count as f64 / all.took.as_secs_f64(),
            at(50),
            at(99),
            each(all.cpu.as_secs_f64() * 1e6),
            each(all.bytes as f64),
        );
    }
}

/// The CPU time of this process so far.
pub(crate) fn cpu() -> Duration {
    // Fields 14 and 15 of proc(5)'s stat, in ticks of a hundredth of a second; the name before them may hold spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The bytes of all files of a directory.
pub(crate) fn bytes(directory: &std::path::Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

/// Runs something again and again until the time is up; gives how long each took.
pub(crate) fn repeat<E>(
    until: Instant,
    mut one: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Duration>, E> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        one()?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}
