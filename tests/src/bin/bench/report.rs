//! The figures: tables for people, JSON for scripts.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::load::Slice;
use crate::measure::histogram;
use crate::record::Recorded;
use crate::streams::{Carried, Kind, Streams};
use crate::watches::Watched;
use crate::world::Target;

/// All slices of one case through one target.
pub(crate) struct Tally {
    case: &'static str,
    target: &'static str,
    latencies: Histogram<u64>,
    elapsed: Duration,
    cpu: Option<Duration>,
    api_cpu: Duration,
    stored: Option<u64>,
}

impl Tally {
    pub(crate) fn new(case: &'static str, target: &Target) -> Self {
        Self {
            case,
            target: target.name,
            latencies: histogram(),
            elapsed: Duration::ZERO,
            cpu: None,
            api_cpu: Duration::ZERO,
            stored: None,
        }
    }

    pub(crate) fn add(&mut self, slice: &Slice) -> Result<()> {
        self.latencies.add(&slice.latencies)?;
        self.elapsed += slice.elapsed;
        if let Some(cpu) = slice.cpu {
            *self.cpu.get_or_insert_default() += cpu;
        }
        self.api_cpu += slice.api_cpu;
        if let Some(stored) = slice.stored {
            *self.stored.get_or_insert_default() += stored;
        }
        Ok(())
    }

    pub(crate) fn is_of(&self, target: &str) -> bool {
        self.target == target
    }

    pub(crate) fn requests(&self) -> u64 {
        self.latencies.len()
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    fn figures(&self, direct: &Self) -> Value {
        let mut figures = json!({
            "case": self.case, "target": self.target,
            "requests": self.latencies.len(), "perSecond": self.per_second().round(),
            "toDirect": self.per_second() / direct.per_second(),
            "cpuMicros": per(self.cpu, self.latencies.len()),
            "apiServerCpuMicros": per(Some(self.api_cpu), self.latencies.len()),
            "storedBytes": self.stored.map(|bytes| bytes / self.latencies.len().max(1)),
        });
        latencies(&mut figures, &self.latencies, &direct.latencies);
        figures
    }
}

/// All that was measured.
pub(crate) struct Report {
    pub(crate) tallies: Vec<Vec<Tally>>,
    pub(crate) watched: Vec<Watched>,
    pub(crate) streams: Option<Streams>,
    pub(crate) recorded: Recorded,
    /// Why there are none although they were asked for.
    pub(crate) without_streams: Option<String>,
    without_envoy: Option<String>,
    /// What the others are held against.
    base: &'static str,
}

impl Report {
    pub(crate) fn new(without_envoy: Option<String>) -> Self {
        Self {
            tallies: Vec::new(),
            watched: Vec::new(),
            streams: None,
            recorded: Recorded::default(),
            without_streams: None,
            without_envoy,
            base: "direct access",
        }
    }

    /// For gateways that differ in their witness.
    pub(crate) fn of_witnesses() -> Self {
        Self { base: "the witness off", ..Self::new(None) }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": {"cpus": cpus()},
            "release": !cfg!(debug_assertions),
            "withoutEnvoy": self.without_envoy,
            "withoutStreams": self.without_streams,
            "recorded": {
                "witnessTier": self.recorded.tier,
                "exchanges": self.recorded.exchanges,
                "accounts": {
                    "complete": self.recorded.complete,
                    "gap": self.recorded.gap,
                    "unwitnessed": self.recorded.unwitnessed,
                },
            },
            "requests": self.requests(),
            "watches": self.watches(),
            "transfers": self.transfers(),
            "echoes": self.echoes(),
            "idleStreams": self.idle(),
        })
    }

    fn requests(&self) -> Vec<Value> {
        let figures = |case: &Vec<Tally>| -> Vec<_> {
            case.iter().map(|tally| tally.figures(&case[0])).collect()
        };
        self.tallies.iter().flat_map(figures).collect()
    }

    fn watches(&self) -> Vec<Value> {
        let figures = |watched: &Watched| {
            let mut figures = json!({
                "case": watched.case, "target": watched.target,
                "watches": watched.watches, "events": watched.events,
                "residentKiB": watched.resident_per_watch.map(|bytes| bytes / 1024.0),
                "cpuMicros": per(watched.cpu, watched.events),
            });
            // Direct access comes first in each case.
            let direct = self.watched.iter().find(|other| other.case == watched.case);
            let direct = direct.expect("it is among them itself");
            latencies(&mut figures, &watched.latencies, &direct.latencies);
            let last = |watched: &Watched| watched.last.value_at_quantile(0.5);
            figures["lastP50"] = last(watched).into();
            figures["addedLastP50"] =
                (last(watched).cast_signed() - last(direct).cast_signed()).into();
            figures
        };
        self.watched.iter().map(figures).collect()
    }

    /// Rounds of one kind of stream: those of direct access, and then those through each target.
    fn carried(&self, wanted: impl Fn(Kind) -> bool, figures: Figures) -> Vec<Value> {
        let cases = self.streams.iter().flat_map(|streams| &streams.carried);
        let cases = cases.filter(|case| wanted(case[0].case.1));
        cases.flat_map(|case| case.iter().map(|carried| figures(carried, &case[0]))).collect()
    }

    fn transfers(&self) -> Vec<Value> {
        let transfers = |kind| matches!(kind, Kind::Down | Kind::Up);
        self.carried(transfers, |carried, direct| {
            let mebibytes = carried.bytes as f64 / MIB;
            json!({
                "case": carried.case.0, "target": carried.target,
                "mebibytes": mebibytes, "mebibytesPerSecond": carried.rate() / MIB,
                "toDirect": carried.rate() / direct.rate(),
                "cpuMillisPerMebibyte":
                    carried.cpu.map(|cpu| cpu.as_secs_f64() * 1e3 / mebibytes),
                "storedToCarried":
                    carried.stored.map(|stored| stored as f64 / carried.bytes as f64),
            })
        })
    }

    fn echoes(&self) -> Vec<Value> {
        self.carried(
            |kind| kind == Kind::Echo,
            |carried, direct| {
                let mut figures = json!({
                    "case": carried.case.0, "target": carried.target,
                    "echoes": carried.latencies.len(),
                    "cpuMicros": per(carried.cpu, carried.latencies.len()),
                });
                latencies(&mut figures, &carried.latencies, &direct.latencies);
                figures
            },
        )
    }

    fn idle(&self) -> Vec<Value> {
        let idle = self.streams.iter().flat_map(|streams| &streams.idle);
        idle.map(|idle| {
            json!({
                "case": "exec idle", "target": idle.target, "streams": idle.streams,
                "residentKiB": idle.resident_per_stream / 1024.0,
            })
        })
        .collect()
    }

    pub(crate) fn print(&self) {
        println!("{} CPUs; times in microseconds; + is over {}", cpus(), self.base);
        let recorded = &self.recorded;
        println!(
            "gateway: witness tier {}, {} exchanges on record; accounts: {} complete, {} gap, {} unwitnessed",
            recorded.tier,
            recorded.exchanges,
            recorded.complete,
            recorded.gap,
            recorded.unwitnessed
        );
        if cfg!(debug_assertions) {
            println!("A DEBUG BUILD: the gateway's figures mean nothing");
        }
        if let Some(reason) = &self.without_envoy {
            println!("WITHOUT ENVOY: {reason}");
        }
        if let Some(reason) = &self.without_streams {
            println!("WITHOUT STREAMS: {reason}");
        }
        let tables: [(&[Column], Vec<Value>); 5] = [
            (&REQUEST_COLUMNS, self.requests()),
            (&WATCH_COLUMNS, self.watches()),
            (&TRANSFER_COLUMNS, self.transfers()),
            (&ECHO_COLUMNS, self.echoes()),
            (&IDLE_COLUMNS, self.idle()),
        ];
        for (columns, rows) in tables.iter().filter(|(_, rows)| !rows.is_empty()) {
            println!();
            table(columns, rows);
        }
    }
}

fn latencies(figures: &mut Value, own: &Histogram<u64>, direct: &Histogram<u64>) {
    for (name, added, quantile) in [("p50", "addedP50", 0.5), ("p99", "addedP99", 0.99)] {
        let (own, direct) = (own.value_at_quantile(quantile), direct.value_at_quantile(quantile));
        figures[name] = own.into();
        figures[added] = (own.cast_signed() - direct.cast_signed()).into();
    }
}

fn per(cpu: Option<Duration>, count: u64) -> Option<f64> {
    cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count.max(1) as f64)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, std::num::NonZero::get)
}

/// The figures of one way, held against direct access.
type Figures = fn(&Carried, &Carried) -> Value;

const MIB: f64 = (1 << 20) as f64;

/// A column: its head, the figure's name, and how many decimals it is worth.
type Column = (&'static str, &'static str, usize);

fn table(columns: &[Column], rows: &[Value]) {
    let mut lines = vec![columns.iter().map(|(head, ..)| (*head).to_owned()).collect::<Vec<_>>()];
    for (number, row) in rows.iter().enumerate() {
        // A direct row has no overhead over itself: blanks keep the eye on what is compared.
        let direct = row["target"] == rows[0]["target"];
        if direct && number > 0 {
            lines.push(Vec::new());
        }
        lines.push(columns.iter().map(|column| cell(row, column, direct)).collect());
    }
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            // Names to the left, figures to the right.
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn cell(row: &Value, (_, name, decimals): &Column, direct: bool) -> String {
    match &row[name] {
        _ if direct && (name.starts_with("added") || *name == "toDirect") => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if name.starts_with("added") => {
            format!("{:+.decimals$}", number.as_f64().unwrap_or(0.0))
        }
        Value::Number(number) => format!("{:.decimals$}", number.as_f64().unwrap_or(0.0)),
        _ => "-".into(),
    }
}

const REQUEST_COLUMNS: [Column; 12] = [
    ("case", "case", 0),
    ("target", "target", 0),
    ("requests", "requests", 0),
    ("per s", "perSecond", 0),
    ("/direct", "toDirect", 2),
    ("p50", "p50", 0),
    ("+p50", "addedP50", 0),
    ("p99", "p99", 0),
    ("+p99", "addedP99", 0),
    ("CPU/request", "cpuMicros", 1),
    ("API CPU", "apiServerCpuMicros", 0),
    ("B stored", "storedBytes", 0),
];

const WATCH_COLUMNS: [Column; 12] = [
    ("case", "case", 0),
    ("target", "target", 0),
    ("watches", "watches", 0),
    ("KiB/watch", "residentKiB", 1),
    ("events", "events", 0),
    ("p50", "p50", 0),
    ("+p50", "addedP50", 0),
    ("last", "lastP50", 0),
    ("+last", "addedLastP50", 0),
    ("p99", "p99", 0),
    ("+p99", "addedP99", 0),
    ("CPU/event", "cpuMicros", 1),
];

const TRANSFER_COLUMNS: [Column; 7] = [
    ("case", "case", 0),
    ("target", "target", 0),
    ("MiB", "mebibytes", 0),
    ("MiB/s", "mebibytesPerSecond", 1),
    ("/direct", "toDirect", 2),
    ("CPU ms/MiB", "cpuMillisPerMebibyte", 2),
    ("stored/carried", "storedToCarried", 2),
];

const ECHO_COLUMNS: [Column; 8] = [
    ("case", "case", 0),
    ("target", "target", 0),
    ("echoes", "echoes", 0),
    ("p50", "p50", 0),
    ("+p50", "addedP50", 0),
    ("p99", "p99", 0),
    ("+p99", "addedP99", 0),
    ("CPU/echo", "cpuMicros", 1),
];

const IDLE_COLUMNS: [Column; 4] = [
    ("case", "case", 0),
    ("target", "target", 0),
    ("streams", "streams", 0),
    ("KiB/stream", "residentKiB", 1),
];
