//! A node leaves nothing behind, neither when it is stopped nor when its run is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rig::node::pods::{Pod, manifest};
use rig::node::{Member, Node, Traces};
use rig::process::{Process, tail};
use rig::wait::{Level, until};

use crate::scene::Scene;

/// A node of its own, and a process in it that would outlive its parents if it could.
pub(super) async fn leaves_nothing(scene: Rc<Scene>) -> Result<()> {
    let directory = scene.directory();
    let parameters = kernel_parameters()?;
    let plane = scene.own_plane(rig::controlplane::Options::default()).await?;
    let node = Node::start(&plane, directory).await?;
    let command = ["/bin/sh", "-c", "trap '' TERM; setsid sleep 1000 & wait"];
    Pod::run(&plane, "leavings", &manifest("lasting", &command)).await?;
    let traces = node.traces()?;
    // What is looked for afterwards is found now, so that its absence says something.
    lasting(&traces).await?;
    let found = Found::look(&traces, directory)?;
    ensure!(
        found.mounts.is_empty() && !found.cgroups.is_empty() && found.interface,
        "a node that runs a pod has other than {found:?}"
    );
    node.stop()?;
    // A kubelet sets them for the whole machine, if it can.
    ensure!(kernel_parameters()? == parameters, "parameters of the machine's kernel were changed");
    // The kernel takes mounts and interfaces away after the last of the processes has ended.
    until("nothing is left", LIMIT, async || {
        let found = Found::look(&traces, directory)?;
        Ok(Level::when(found.is_nothing(), || format!("{found:?}")))
    })
    .await
}

/// A run that is killed cannot clean up: the kernel ends the processes, and the next run removes the rest.
pub(super) async fn killed_run(scene: Rc<Scene>) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    // It would not get to remove its directory.
    command
        .args(["--filter", "streams-node-leaves-nothing"])
        .env("TMPDIR", scene.directory().join("home"));
    let log = scene.directory().join("run.log");
    let mut run = Process::start("another run", command, &log)?;
    let traces = until("the other run has a node", RUN_LIMIT, async || {
        run.check()?;
        let traces = Traces::of_run(run.id())?;
        Ok(traces.map_or_else(|| Level::NotYet(tail(&log)), Level::Reached))
    })
    .await?;
    let cgroup = cgroup(lasting(&traces).await?.id)?;
    ensure!(cgroup.exists(), "{} is not a cgroup", cgroup.display());
    run.kill()?;
    until("its processes are gone", LIMIT, async || {
        let processes = traces.processes()?;
        Ok(Level::when(processes.is_empty(), || format!("{processes:?}")))
    })
    .await?;
    let plane = scene.own_plane(rig::controlplane::Options::default()).await?;
    let node = Node::start(&plane, scene.directory()).await?;
    ensure!(!cgroup.exists(), "{} is still there", cgroup.display());
    node.stop()
}

/// The process in the node's pod, once it is there.
async fn lasting(traces: &Traces) -> Result<Member> {
    until("the pod's process shows", RUN_LIMIT, async || {
        let processes = traces.processes()?;
        let lasting = processes.iter().find(|process| process.command.starts_with("sleep 1000"));
        Ok(match lasting {
            Some(lasting) => Level::Reached(lasting.clone()),
            None => Level::NotYet(format!("{processes:?}")),
        })
    })
    .await
}

/// The directory of a process's cgroup: in the one hierarchy of v2, or in one of v1's.
fn cgroup(process: u32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == wanted).then(|| path.trim_start_matches('/'))
        })
    };
    let root = Path::new("/sys/fs/cgroup");
    if let Some(path) = of("pids") {
        return Ok(root.join("pids").join(path));
    }
    Ok(root.join(of("").context("a process without a cgroup")?))
}

/// What there is of a node.
#[derive(Debug)]
struct Found {
    /// Command lines of its processes.
    processes: Vec<Member>,
    /// Mounts that this process sees below its directory: never any, at no time.
    mounts: Vec<String>,
    cgroups: Vec<String>,
    interface: bool,
}

impl Found {
    fn look(traces: &Traces, directory: &Path) -> Result<Self> {
        let directory = directory.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mounts = mounts.lines().filter(|line| line.contains(&directory));
        let cgroups = traces.cgroups.iter().filter(|cgroup| cgroup.exists());
        // The namespace's own view: /sys shows the interfaces of the one in which it was mounted.
        let interfaces = fs::read_to_string("/proc/self/net/dev")?;
        Ok(Self {
            processes: traces.processes()?,
            mounts: mounts.map(str::to_owned).collect(),
            cgroups: cgroups.map(|cgroup| cgroup.display().to_string()).collect(),
            interface: interfaces
                .lines()
                .any(|line| line.trim_start().starts_with(&format!("{}:", traces.interface))),
        })
    }

    fn is_nothing(&self) -> bool {
        let Self { processes, mounts, cgroups, interface } = self;
        processes.is_empty() && mounts.is_empty() && cgroups.is_empty() && !interface
    }
}

fn kernel_parameters() -> Result<Vec<String>> {
    let names = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
    names.iter().map(|name| Ok(fs::read_to_string(Path::new("/proc/sys").join(name))?)).collect()
}

const LIMIT: Duration = Duration::from_secs(20);
/// As long as a start takes on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(240);
