//! Our side of the differential test against the API server's `RequestInfo` (see `tests/differential`):
//!
//! ```text
//! requestinfo cases SEED COUNT | differential | requestinfo compare
//! ```
//!
//! `cases` writes the corpus and COUNT generated requests as JSON lines, `compare` reads the Go program's
//! answers and exits with 1 when one differs from ours.

#[path = "../tests/attribute_cases/mod.rs"]
mod attribute_cases;

use std::{
    io::{self, BufRead, BufWriter, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use attribute_cases::{Agreement, Answer, Case, compare, corpus, generate};

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["cases", seed, count] => {
            let seed = seed.parse().context("parse the seed")?;
            cases(seed, count.parse().context("parse the count")?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["compare"] => compare_all(),
        _ => bail!("usage: requestinfo cases SEED COUNT | requestinfo compare"),
    }
}

fn cases(seed: u64, count: usize) -> anyhow::Result<()> {
    let mut cases: Vec<Case> = corpus();
    cases.extend(generate(seed, count));
    cases.sort();
    cases.dedup();
    let mut out = BufWriter::new(io::stdout().lock());
    for case in cases {
        serde_json::to_writer(&mut out, &case).context("write a case")?;
        out.write_all(b"\n").context("write a case")?;
    }
    out.flush().context("write the cases")
}

fn compare_all() -> anyhow::Result<ExitCode> {
    let (mut same, mut refused, mut differences) = (0_u64, 0_u64, 0_u64);
    for line in io::stdin().lock().lines() {
        let line = line.context("read an answer")?;
        let answer: Answer = serde_json::from_str(&line).context("parse an answer")?;
        match compare(&answer) {
            Ok(Agreement::Same) => same += 1,
            Ok(Agreement::BothRefuse | Agreement::WeRefuse) => refused += 1,
            Err(difference) => {
                differences += 1;
                println!("{difference}");
            }
        }
    }
    println!("{same} the same, {refused} refused, {differences} different");
    Ok(if differences == 0 && same > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
