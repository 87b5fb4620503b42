//! Each hook by trial: what the kernel refuses is told, and the rest goes on.

use std::{
    collections::HashMap,
    error::Error,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::FileExt as _,
    },
};

use aya::{
    Btf, Ebpf,
    programs::{CgroupAttachMode, Program},
};

use super::chain;
use crate::{model::HookState, witness::cgroup};

/// The hooks that count bytes, and the one that gives slots back: without any of them there is no account by
/// eBPF.
pub(super) const NEEDED: [&str; 3] =
    ["sock_send_length", "sock_recv_length", "inet_sock_set_state"];

/// The hooks that choose sockets by themselves, at the root of cgroup2.
pub(super) const CHOOSING: [&str; 5] =
    ["sock_ops", "connect4", "connect6", "post_bind4", "post_bind6"];

/// The hooks that only add: queue times, retransmits, resets, the end of processes.
const USEFUL: [&str; 6] = [
    "tcp_destroy_sock",
    "sk_data_ready",
    "tcp_retransmit_skb",
    "tcp_send_reset",
    "tcp_receive_reset",
    "sched_process_exit",
];

/// Every hook, in the order in which they are attached: those that choose first, so that no byte of a
/// chosen socket goes uncounted.
pub(super) fn hooks() -> impl Iterator<Item = &'static str> {
    NEEDED.into_iter().chain(USEFUL).chain(CHOOSING)
}

/// What hooks are attached to.
struct Targets {
    btf: Result<Btf, String>,
    cgroup: Result<File, String>,
}

/// Loads and attaches every hook but those to be left out.
pub(super) fn attach_all(programs: &mut Ebpf, leave_out: &[String]) -> Vec<HookState> {
    let targets = Targets {
        btf: Btf::from_sys_fs().map_err(|error| format!("no BTF: {}", chain(&error))),
        cgroup: cgroup::root().and_then(File::open).map_err(|error| error.to_string()),
    };
    let attach = |hook: &'static str| {
        let error = if leave_out.iter().any(|left_out| left_out == hook) {
            Some("left out by configuration".to_owned())
        } else {
            attach(programs, hook, &targets).err().map(|error| chain(&*error))
        };
        HookState { hook: hook.to_owned(), error }
    };
    hooks().map(attach).collect()
}

fn attach(programs: &mut Ebpf, hook: &str, targets: &Targets) -> Result<(), Box<dyn Error>> {
    // The mode of links (kernel 5.7) without flags: they stand side by side. Older kernels take none of these
    // programs (`-C target-cpu=v3`), so that the exclusive attachment that the mode means there never happens.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let btf = || targets.btf.as_ref().map_err(String::as_str);
    let cgroup = || targets.cgroup.as_ref().map_err(String::as_str);
    match programs.program_mut(hook).ok_or("not in the object")? {
        Program::BtfTracePoint(program) => {
            program.load(hook, btf()?)?;
            program.attach()?;
        }
        Program::SockOps(program) => {
            program.load()?;
            program.attach(cgroup()?, MODE)?;
        }
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.attach(cgroup()?, MODE)?;
        }
        Program::CgroupSock(program) => {
            program.load()?;
            program.attach(cgroup()?, MODE)?;
        }
        _ => return Err("of a kind that this build does not know".into()),
    }
    Ok(())
}

/// What the kernel says of a descriptor of this process. It is kept open, since it is read four times a second.
struct Description(File);

impl Description {
    fn of(descriptor: &str) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/self/fdinfo/{descriptor}"))?))
    }

    /// What it says now, from its beginning.
    fn read(&self) -> io::Result<String> {
        let mut text = [0; DESCRIPTION_BYTES_MAX];
        let length = self.0.read_at(&mut text, 0)?;
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    }
}

/// Some two hundred bytes, of which the kernel gives as much as fits.
const DESCRIPTION_BYTES_MAX: usize = 4096;

/// A link that keeps a program attached.
pub(super) struct Link {
    pub(super) hook: String,
    description: Description,
    /// What the kernel said of it when it was made.
    described: String,
}

impl Link {
    /// Whether it still is what it was. Somebody with the right to do so can cut a program off: the
    /// descriptor stays, its description does not.
    pub(super) fn holds(&self) -> bool {
        self.description.read().is_ok_and(|now| now == self.described)
    }
}

/// The links of the programs. They are found by what `/proc` tells of this process's descriptors, which needs
/// no right, also later.
pub(super) fn links(programs: &Ebpf) -> io::Result<Vec<Link>> {
    let hooks: HashMap<String, &str> = programs
        .programs()
        .filter_map(|(hook, program)| Some((program.info().ok()?.id().to_string(), hook)))
        .collect();
    let mut links = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let descriptor = entry?.file_name().to_string_lossy().into_owned();
        // A descriptor may be closed while the list is read.
        let Ok(description) = Description::of(&descriptor) else { continue };
        let Ok(described) = description.read() else { continue };
        if field(&described, "link_id").is_none() {
            continue;
        }
        if let Some(hook) = field(&described, "prog_id").and_then(|id| hooks.get(id)) {
            links.push(Link { hook: (*hook).to_owned(), description, described });
        }
    }
    Ok(links)
}

/// A loaded program.
pub(super) struct Loaded {
    pub(super) hook: String,
    /// None where the kernel does not tell of it.
    description: Option<Description>,
}

impl Loaded {
    /// How often the kernel left the program out, since it was interrupted in itself: what happened then was
    /// not seen. 0 when it cannot be read.
    pub(super) fn misses(&self) -> u64 {
        let described = self.description.as_ref().and_then(|description| description.read().ok());
        let described = described.unwrap_or_default();
        field(&described, "recursion_misses").and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// The programs that were loaded.
pub(super) fn loaded(programs: &Ebpf) -> Vec<Loaded> {
    let loaded = programs.programs().filter_map(|(hook, program)| {
        let descriptor = program.fd().ok()?.as_fd().as_raw_fd().to_string();
        Some(Loaded { hook: hook.to_owned(), description: Description::of(&descriptor).ok() })
    });
    loaded.collect()
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// How many instructions the verifier may have to prove for a hook's program: by this project's own rule,
/// far below the kernel's million, so that a change that makes a program much dearer is noticed.
pub(super) fn budget(hook: &str) -> u32 {
    match hook {
        "sock_ops" => 12_000,
        "connect4" | "connect6" => 8_000,
        "post_bind4" | "post_bind6" => 4_000,
        _ => 2_000,
    }
}
