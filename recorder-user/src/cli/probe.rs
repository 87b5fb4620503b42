//! `recorder probe`: the witness's programs in a process of their own, for gateways that have no rights.

use std::{io, sync::Arc, thread};

use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Outcome, ProbeArgs};
use crate::witness::{
    Mode, Witness, WitnessOptions,
    split::{ProbeSocket, ServeOptions},
};

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: &ProbeArgs) -> Result<Outcome, CliError> {
    let options =
        ServeOptions { socket: args.listen.clone(), users: args.users.clone(), group: args.group };
    // Before the rights go: a group can be given to the socket by root alone.
    let socket = ProbeSocket::bind(options).map_err(failed)?;
    let result = serve(args, Arc::new(socket));
    if let Err(error) = std::fs::remove_file(&args.listen) {
        tracing::debug!(%error, "the probe's socket stays behind");
    }
    result
}

fn serve(args: &ProbeArgs, socket: Arc<ProbeSocket>) -> Result<Outcome, CliError> {
    let options = WitnessOptions {
        object: args.object.clone(),
        ring_bytes: args.ring_size,
        confine: true,
        ..WitnessOptions::default()
    };
    let witness = Witness::start(Mode::Ebpf, &options).map_err(failed)?;
    let capability = witness.capability();
    tracing::info!(
        tier = ?capability.tier,
        kernel = capability.kernel,
        self_test = capability.self_test,
        listen = %args.listen.display(),
        "the programs are attached, the rights given up"
    );
    let (told, ended) = std::sync::mpsc::channel();
    let serving = told.clone();
    thread::Builder::new().name("probe-listen".to_owned()).spawn(move || {
        // The receiver goes with the process.
        drop(serving.send(socket.serve(&witness).map_err(failed)));
    })?;
    thread::Builder::new().name("probe-signals".to_owned()).spawn(move || {
        drop(told.send(until_signal().map_err(CliError::Output)));
    })?;
    ended.recv().unwrap_or(Ok(())).map(|()| Outcome::Fine)
}

/// As the first process of a container, a process that does not ask for SIGTERM never ends by it.
fn until_signal() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            // cancel-safe: signals are kept until they are received.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        Ok(())
    })
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Probe(Box::new(error))
}
