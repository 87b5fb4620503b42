//! Tells the witness's programs where this gateway listens, before it does: what the listener accepts is then
//! counted from its first byte, in whichever process the programs were loaded.

use std::{net::SocketAddr, os::fd::AsFd as _};

use recorder_user::witness::Witness;
use tokio::net::TcpListener;

/// This process is about to listen there.
pub(crate) fn about_to_listen(witness: &Witness, address: SocketAddr) {
    let (Some(selection), Some(identity)) = (witness.selection(), witness.identity()) else {
        return;
    };
    if let Err(error) = selection.add_gateway(identity, address.port()) {
        tracing::warn!(%error, "the witness's programs do not know where this gateway listens");
    }
}

/// It listens: a probe that comes later is told by the descriptor.
pub(crate) fn listening(witness: &Witness, listener: &TcpListener) {
    let (Some(selection), Some(identity)) = (witness.selection(), witness.identity()) else {
        return;
    };
    if witness.is_over_probe()
        && let Err(error) = selection.adopt_listener(listener.as_fd(), identity)
    {
        tracing::warn!(%error, "a probe that comes later will not know this listener");
    }
}

/// It is about to listen no more.
pub(crate) fn no_longer(witness: &Witness, address: SocketAddr) {
    let (Some(selection), Some(identity)) = (witness.selection(), witness.identity()) else {
        return;
    };
    if let Err(error) = selection.remove_gateway(identity, address.port()) {
        tracing::debug!(%error, "the witness's programs still look after this listener");
    }
}
