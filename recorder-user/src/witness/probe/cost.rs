//! What the programs cost: instructions that the verifier had to prove, and time per run.
//!
//! The programs are loaded once more, beside those of a running gateway, and loopback connections run
//! through them: first ones that nobody chose, as most of a node's are, then chosen ones.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
};

use aya::sys::{Stats, enable_stats};
use recorder_ebpf::{Endpoint, SLOTS, Storage, endpoint, role};
use serde::Serialize;

use super::{LoadOptions, LoadProbeError, Loaded, attach, chain, load};
use crate::witness::sys;

/// Messages through one connection in each phase.
const MESSAGES: usize = 20_000;
/// Bytes of a message.
const MESSAGE_BYTES: usize = 64;
/// Connections in each phase.
const CONNECTIONS: usize = 500;
/// The ring is emptied after so many messages, as a gateway's drain thread does.
const DRAIN_EVERY: usize = 500;

/// What one hook's program costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookCost {
    /// The hook.
    pub hook: String,
    /// Why it is not attached; none when it is.
    pub error: Option<String>,
    /// Instructions that the verifier proved; none before kernel 5.16.
    pub verified_instructions: Option<u32>,
    /// How many they may be at most, by this project's own rule.
    pub budget_instructions: u32,
    /// Runs for sockets that nobody chose.
    pub foreign: Runs,
    /// Runs for chosen sockets. Foreign ones of other processes are among them.
    pub chosen: Runs,
}

/// Runs of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    /// How many.
    pub runs: u64,
    /// Nanoseconds for one, of which about 50 are the measurement's own; 0 without runs.
    pub ns_per_run: u64,
}

/// The cost could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureCostError {
    /// The programs could not be loaded.
    #[error("cannot load the eBPF programs")]
    Load(#[from] LoadProbeError),
    /// The kernel's own statistics could not be switched on.
    #[error("cannot switch on the kernel's statistics of eBPF programs (needs CAP_SYS_ADMIN)")]
    Statistics(#[source] Box<aya::sys::SyscallError>),
    /// A connection of the load broke.
    #[error("the load's own connections broke")]
    Connection(#[source] io::Error),
    /// A program's numbers could not be read.
    #[error("cannot read a program's numbers: {0}")]
    Numbers(String),
}

/// Loads the programs, drives a bounded load, and tells what each hook cost.
///
/// # Errors
/// When the programs cannot be loaded or their statistics cannot be had: both need rights.
pub fn measure(object: Option<&Path>) -> Result<Vec<HookCost>, MeasureCostError> {
    let options = LoadOptions { object, ring_bytes: 4 << 20, slots: SLOTS, leave_out: &[] };
    let mut loaded = load(&options)?;
    let _statistics = enable_stats(Stats::RunTime)
        .map_err(|error| MeasureCostError::Statistics(Box::new(error)))?;
    let start = numbers(&loaded)?;
    drive(&mut loaded, Phase::Foreign).map_err(MeasureCostError::Connection)?;
    let middle = numbers(&loaded)?;
    drive(&mut loaded, Phase::Chosen).map_err(MeasureCostError::Connection)?;
    let end = numbers(&loaded)?;
    let costs = loaded.hooks.iter().enumerate().map(|(nth, hook)| HookCost {
        hook: hook.hook.clone(),
        error: hook.error.clone(),
        verified_instructions: end[nth].verified,
        budget_instructions: attach::budget(&hook.hook),
        foreign: start[nth].until(middle[nth]),
        chosen: middle[nth].until(end[nth]),
    });
    Ok(costs.collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Foreign,
    Chosen,
}

/// A program's numbers at one instant.
#[derive(Clone, Copy, Default)]
struct Numbers {
    verified: Option<u32>,
    runs: u64,
    ns: u128,
}

impl Numbers {
    fn until(self, later: Self) -> Runs {
        let runs = later.runs.saturating_sub(self.runs);
        let ns = later.ns.saturating_sub(self.ns);
        let ns_per_run = ns.checked_div(runs.into()).unwrap_or(0);
        Runs { runs, ns_per_run: u64::try_from(ns_per_run).unwrap_or(u64::MAX) }
    }
}

/// In the order of `loaded.hooks`. All zero for a hook that is not attached.
fn numbers(loaded: &Loaded) -> Result<Vec<Numbers>, MeasureCostError> {
    let of = |hook: &crate::model::HookState| {
        if hook.error.is_some() {
            return Ok(Numbers::default());
        }
        let program = loaded.probe.programs.program(&hook.hook);
        let info = program.map(aya::programs::Program::info);
        match info {
            Some(Ok(info)) => Ok(Numbers {
                verified: info.verified_instruction_count(),
                runs: info.run_count(),
                ns: info.run_time().as_nanos(),
            }),
            Some(Err(error)) => Err(MeasureCostError::Numbers(chain(&error))),
            None => Err(MeasureCostError::Numbers(format!("no program {}", hook.hook))),
        }
    };
    loaded.hooks.iter().map(of).collect()
}

fn drive(loaded: &mut Loaded, phase: Phase) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let chosen = phase == Phase::Chosen;
    if chosen {
        let netns_cookie = sys::netns_cookie(listener.as_fd())?;
        let key = Endpoint::of(address, netns_cookie);
        loaded.probe.add_endpoint(key, endpoint::API).map_err(io::Error::other)?;
        let storage = Storage { role: role::LISTENER, ..Storage::default() };
        loaded.probe.adopt(listener.as_fd(), storage).map_err(io::Error::other)?;
    }
    let mut near = TcpStream::connect(address)?;
    let (mut far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    let mut message = [7; MESSAGE_BYTES];
    for nth in 0..MESSAGES {
        near.write_all(&message)?;
        far.read_exact(&mut message)?;
        if nth % DRAIN_EVERY == 0 {
            empty(loaded);
        }
    }
    for nth in 0..CONNECTIONS {
        let mut near = TcpStream::connect(address)?;
        let (mut far, _) = listener.accept()?;
        near.write_all(&message)?;
        far.read_exact(&mut message)?;
        if nth % (DRAIN_EVERY / 10) == 0 {
            empty(loaded);
        }
    }
    empty(loaded);
    Ok(())
}

fn empty(loaded: &mut Loaded) {
    while loaded.ring.drain(usize::MAX, |_| {}) > 0 {}
}
