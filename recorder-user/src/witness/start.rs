//! How a witness starts: by trial, from the best tier down, each tested before it is believed.

use std::{
    fs, io,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    Means, Mode, Shared, Sight, StartWitnessError, Witness, WitnessOptions, clock, confine, probe,
    programs::Ebpf, self_test,
};
use crate::model::{CapabilityRecord, HookState, Tier};

impl Witness {
    /// Starts the witness and tests it on a loopback connection. With [`Mode::Auto`] this never fails: what
    /// is not possible is told in [`Witness::capability`].
    ///
    /// # Errors
    /// Only with [`Mode::Ebpf`], when the kernel does not allow it.
    pub fn start(mode: Mode, options: &WitnessOptions) -> Result<Self, StartWitnessError> {
        match mode {
            Mode::Off => Ok(Self::off()),
            Mode::TcpInfo => Ok(Self::tcp_info(vec![], "TCP_INFO by configuration".to_owned())),
            Mode::Ebpf => Self::ebpf(options).map_err(|refused| refused.error),
            Mode::Auto => Ok(Self::ebpf(options).unwrap_or_else(|refused| {
                let reason = probe::chain(&refused.error);
                tracing::warn!(%reason, "no eBPF witness, TCP_INFO takes its place");
                match refused.programs {
                    Some(programs) => Self::choosing_only(programs, refused.hooks, reason),
                    None => Self::tcp_info(refused.hooks, reason),
                }
            })),
        }
    }

    fn ebpf(options: &WitnessOptions) -> Result<Self, Box<Refused>> {
        if !options.slots.is_power_of_two() {
            return Err(Refused::at_once(StartWitnessError::Slots(options.slots)));
        }
        let load = probe::LoadOptions {
            object: options.object.as_deref(),
            ring_bytes: options.ring_bytes,
            slots: options.slots,
            leave_out: &options.leave_out,
        };
        let mut loaded = probe::load(&load).map_err(|error| Refused {
            error: error.into(),
            hooks: vec![],
            programs: None,
        })?;
        if options.confine {
            let refused = |error| Refused::at_once(StartWitnessError::Confine(error));
            confine::drop_capabilities().map_err(refused)?;
        }
        let hooks = std::mem::take(&mut loaded.hooks);
        loaded.hooks.clone_from(&hooks);
        let counts = probe::counts_bytes(&hooks);
        let threads = |error| Refused {
            error: StartWitnessError::Threads(error),
            hooks: hooks.clone(),
            programs: None,
        };
        let programs = Box::new(Ebpf::start(loaded, options).map_err(threads)?);
        if !counts {
            let errors = hooks.iter().filter_map(|hook| Some((&hook.hook, hook.error.as_ref()?)));
            let errors: Vec<_> = errors.map(|(hook, error)| format!("{hook}: {error}")).collect();
            let error = StartWitnessError::Hooks(errors.join("; "));
            let programs = programs.chooses.then_some(programs);
            return Err(Refused::after(error, hooks, programs));
        }
        let mut witness = Self::new(Tier::T1, hooks.clone(), None, Means::Ebpf(programs));
        if let Err(why) = self_test::run(&witness) {
            return Err(Refused::after(StartWitnessError::SelfTest(why), hooks, None));
        }
        witness.passed_self_test();
        witness.begin(true).map_err(threads)?;
        Ok(witness)
    }

    /// Programs that only choose and tell: TCP's own counters stand for the gateway's sockets.
    fn choosing_only(programs: Box<Ebpf>, hooks: Vec<HookState>, reason: String) -> Self {
        let means = Means::TcpInfo(Some(programs));
        let mut witness = Self::new(Tier::T4, hooks.clone(), Some(reason.clone()), means);
        let tested = self_test::run(&witness).is_ok();
        if tested {
            witness.passed_self_test();
        }
        match witness.begin(false) {
            Ok(()) if tested => witness,
            _ => Self::tcp_info(hooks, reason),
        }
    }

    fn tcp_info(hooks: Vec<HookState>, reason: String) -> Self {
        let means = Means::TcpInfo(None);
        let mut witness = Self::new(Tier::T5, hooks.clone(), Some(reason.clone()), means);
        match self_test::run(&witness) {
            Ok(()) => {
                witness.passed_self_test();
                witness
            }
            Err(why) => {
                tracing::warn!(%why, "TCP_INFO failed its self-test: accounts will be unwitnessed");
                let reason = format!("{reason}; TCP_INFO failed its self-test: {why}");
                Self::new(Tier::T5, hooks, Some(reason), Means::TcpInfo(None))
            }
        }
    }

    fn off() -> Self {
        Self::new(Tier::Off, vec![], Some("switched off by configuration".to_owned()), Means::Off)
    }

    fn new(tier: Tier, hooks: Vec<HookState>, reason: Option<String>, means: Means) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = kernel.trim().to_owned();
        Self::with(CapabilityRecord { tier, kernel, hooks, self_test: false, reason }, means)
    }

    pub(super) fn with(capability: CapabilityRecord, means: Means) -> Self {
        let zero = AtomicU64::default;
        Self {
            shared: Arc::new(Shared {
                sight: Sight::default(),
                capability,
                means,
                anchor: clock::Anchor::new(),
                adopted: zero(),
                closed: zero(),
                unwitnessed: zero(),
                unread_totals: zero(),
            }),
        }
    }

    fn passed_self_test(&mut self) {
        // The test's sockets are gone, so that this is the only handle.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.capability.self_test = true;
        }
    }

    /// Tests how the programs choose sockets, and begins to look after the witness's health. Hooks that choose
    /// wrongly are told, and not used.
    fn begin(&mut self, beats: bool) -> io::Result<()> {
        let Some(shared) = Arc::get_mut(&mut self.shared) else { return Ok(()) };
        let ebpf = match &mut shared.means {
            Means::Ebpf(ebpf) | Means::TcpInfo(Some(ebpf)) => ebpf,
            Means::Probe(_) | Means::TcpInfo(None) | Means::Off => return Ok(()),
        };
        if ebpf.chooses {
            match self_test::chosen(ebpf) {
                Ok(identity) => ebpf.identity = Some(identity),
                Err(why) => {
                    tracing::warn!(%why, "the programs choose sockets wrongly: not used for that");
                    ebpf.chooses = false;
                    probe::failed_test(&mut shared.capability.hooks, &why);
                }
            }
        }
        ebpf.monitor(beats)
    }
}

/// eBPF is not to be had; what was tried is told all the same.
struct Refused {
    error: StartWitnessError,
    hooks: Vec<HookState>,
    /// Programs that choose sockets, where those that count are refused.
    programs: Option<Box<Ebpf>>,
}

impl Refused {
    /// Nothing was tried yet.
    fn at_once(error: StartWitnessError) -> Box<Self> {
        Self::after(error, vec![], None)
    }

    fn after(
        error: StartWitnessError,
        hooks: Vec<HookState>,
        programs: Option<Box<Ebpf>>,
    ) -> Box<Self> {
        Box::new(Self { error, hooks, programs })
    }
}
