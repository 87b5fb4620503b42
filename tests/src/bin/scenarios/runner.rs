//! Runs scenarios one after the other and sums up.

use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rig::kubectl::Versions;
use rig::tools::Tools;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::scene::{Scene, World};
use crate::{account, leaks};

/// What a scenario's function returns.
pub(crate) type Run = Pin<Box<dyn Future<Output = Result<()>>>>;

/// A named scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) limit: Duration,
    pub(crate) run: fn(Rc<Scene>) -> Run,
}

/// `scenario!("name", function)`, or with a limit in seconds as third argument.
macro_rules! scenario {
    ($name:literal, $function:path) => {
        $crate::runner::scenario!($name, $function, 120)
    };
    ($name:literal, $function:path, $seconds:literal) => {
        $crate::runner::Scenario {
            name: $name,
            limit: std::time::Duration::from_secs($seconds),
            run: |scene| Box::pin($function(scene)),
        }
    };
}
pub(crate) use scenario;

/// Whose directories are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Failed,
    Always,
}

/// Runs all; ends early, with everything stopped and removed, on SIGINT and SIGTERM.
pub(crate) async fn run(
    scenarios: Vec<Scenario>,
    keep: Keep,
    root: &mut TempDir,
) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        code = run_all(scenarios, keep, root) => code,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

async fn run_all(scenarios: Vec<Scenario>, keep: Keep, root: &mut TempDir) -> Result<ExitCode> {
    println!("scenarios: building or finding the control plane's programs");
    let tools = tokio::task::spawn_blocking(Tools::build).await??;
    let versions = Versions::find(&tools.kubectl)?;
    let world = match World::start(root.path(), tools, versions).await {
        Ok(world) => Rc::new(world),
        Err(error) => {
            root.disable_cleanup(true);
            return Err(error.context(format!("start the rig (kept: {})", root.path().display())));
        }
    };
    let mut failed = Vec::new();
    let (total, begun) = (scenarios.len(), Instant::now());
    for (index, scenario) in scenarios.iter().enumerate() {
        println!("[{}/{total}] {} …", index + 1, scenario.name);
        let started = Instant::now();
        let scene = Rc::new(Scene::new(Rc::clone(&world), scenario.name)?);
        let outcome = attempt(scenario, &scene).await;
        let took = started.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                println!("[{}/{total}] {} passed in {took:.1} s", index + 1, scenario.name);
                if keep == Keep::Failed {
                    std::fs::remove_dir_all(scene.directory())
                        .context("remove a scenario's directory")?;
                }
            }
            Err(error) => {
                println!(
                    "[{}/{total}] {} FAILED in {took:.1} s: {error:#}",
                    index + 1,
                    scenario.name
                );
                println!("      kept: {}", scene.directory().display());
                failed.push(scenario.name);
            }
        }
    }
    for name in &failed {
        println!("failed: {name}");
    }
    for kubectl in &world.versions.found {
        println!("kubectl {}: run", kubectl.version());
    }
    for minor in &world.versions.absent {
        println!("kubectl 1.{minor}: not run (none on PATH or in DECKLOG_KUBECTL_DIR)");
    }
    if !failed.is_empty() || keep == Keep::Always {
        root.disable_cleanup(true);
        println!("directories kept in {}", root.path().display());
    }
    println!("scenarios took {} s", begun.elapsed().as_secs());
    println!("{} passed, {} failed", total - failed.len(), failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One scenario, in a task of its own so that a panic is its failure alone; then what it left on disk is
/// searched for tokens and Secret values.
async fn attempt(scenario: &Scenario, scene: &Rc<Scene>) -> Result<()> {
    let mut task = tokio::task::spawn_local((scenario.run)(Rc::clone(scene)));
    match tokio::time::timeout(scenario.limit, &mut task).await {
        Ok(Ok(result)) => result?,
        Ok(Err(error)) => return Err(anyhow!("{error}")),
        Err(_) => {
            task.abort();
            // The task's processes die when its future is dropped.
            let _ = task.await;
            return Err(anyhow!("took longer than {:?}", scenario.limit));
        }
    }
    account::check(scene, scenario.name)?;
    leaks::check(scene)
}
