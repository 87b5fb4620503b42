//! What the tests of the kernel witness have in common.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use recorder_ebpf::{ConnectionNotice, Notice, RingRecord};
use recorder_user::{
    model::Tier,
    witness::{Mode, Witness, WitnessOptions, cgroup},
};
use tokio::sync::mpsc::Receiver;

pub(crate) fn start(mode: Mode, options: &WitnessOptions) -> Witness {
    let witness = Witness::start(mode, options).expect("only Mode::Ebpf fails");
    let capability = witness.capability();
    assert!(capability.self_test || mode == Mode::Off, "{capability:?}");
    if mode == Mode::Auto && capability.tier != Tier::T1 {
        // The only excuses: no object, the system says no, or the kernel refuses a hook.
        let reason = capability.reason.as_deref().expect("a lower tier says why");
        let excused = reason.contains("cargo xtask build-ebpf")
            || reason.contains("os error")
            || capability.hooks.iter().any(|hook| hook.error.is_some());
        assert!(excused, "{capability:?}");
    }
    assert!(!capability.kernel.is_empty());
    witness
}

/// A witness whose programs count; None, with the excuse checked, where the kernel does not let them.
pub(crate) fn counting(options: &WitnessOptions) -> Option<Witness> {
    let witness = start(Mode::Auto, options);
    (witness.capability().tier == Tier::T1).then_some(witness)
}

/// A witness whose programs count, and choose sockets by themselves.
pub(crate) fn choosing() -> Option<Witness> {
    let witness = counting(&WitnessOptions::default())?;
    let chooses = witness.selection().is_some();
    let hooks = &witness.capability().hooks;
    assert!(chooses || hooks.iter().any(|hook| hook.error.is_some()), "{hooks:?}");
    chooses.then_some(witness)
}

pub(crate) fn pair() -> (TcpStream, TcpStream) {
    connect(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind"))
}

/// A connection to a listener: the connecting and the accepted end.
pub(crate) fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("TCP option");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("socket option");
    }
    (near, far)
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What a witness tells of others, kept until it is asked for.
pub(crate) struct Told {
    receiver: Receiver<RingRecord>,
    records: Vec<RingRecord>,
}

impl Told {
    pub(crate) fn by(witness: &Witness) -> Self {
        let receiver = witness.take_connections().expect("the only one to ask");
        Self { receiver, records: vec![] }
    }

    fn take_in(&mut self) {
        while let Ok(record) = self.receiver.try_recv() {
            self.records.push(record);
        }
    }

    /// The connection notices so far.
    pub(crate) fn connections(&mut self) -> impl Iterator<Item = ConnectionNotice> {
        self.take_in();
        self.records.iter().filter_map(|record| match record {
            RingRecord::Connection(notice) => Some(*notice),
            RingRecord::Socket(_) => None,
        })
    }

    /// Waits for a connection notice of this kind that fits.
    #[track_caller]
    pub(crate) fn connection(
        &mut self,
        kind: u16,
        fits: impl Fn(&ConnectionNotice) -> bool,
    ) -> ConnectionNotice {
        wait_for(&format!("a notice of kind {kind}"), || {
            self.connections().find(|notice| notice.head.kind == kind && fits(notice))
        })
    }

    /// Waits for a notice of this kind that fits.
    #[track_caller]
    pub(crate) fn notice(&mut self, kind: u16, fits: impl Fn(&Notice) -> bool) -> Notice {
        wait_for(&format!("a notice of kind {kind}"), || {
            self.take_in();
            self.records.iter().find_map(|record| match record {
                RingRecord::Socket(notice) if notice.head.kind == kind && fits(notice) => {
                    Some(*notice)
                }
                _ => None,
            })
        })
    }
}

/// A cgroup of the test's own. It is removed with it.
pub(crate) struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// Names must differ between tests.
    pub(crate) fn new(name: &str) -> Self {
        let root = cgroup::root().expect("hooks on cgroups are attached");
        let directory = root.join(format!("decklog-test-{name}-{}", std::process::id()));
        fs::create_dir(&directory).expect("make a cgroup");
        Self { directory }
    }

    pub(crate) fn id(&self) -> u64 {
        cgroup::id(&self.directory).expect("it is there")
    }

    /// A `bash` that lives in this cgroup from before its first command.
    pub(crate) fn bash(&self, script: &str) -> Child {
        let procs = self.directory.join("cgroup.procs");
        let enter = format!("echo $$ > {} && exec bash -c \"$1\"", procs.display());
        Command::new("bash")
            .args(["-ec", &enter, "bash", script])
            .stdin(Stdio::null())
            .spawn()
            .expect("bash is installed")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Who ended a moment ago may not have left yet.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.directory).is_err() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The command name of a notice.
pub(crate) fn comm(notice: &ConnectionNotice) -> String {
    String::from_utf8_lossy(&notice.comm).trim_end_matches('\0').to_owned()
}
