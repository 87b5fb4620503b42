//! The ABI's socket state as a map value of aya.
#![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use recorder_ebpf::v1::SocketState;

/// `aya::Pod` cannot be implemented for a type of another crate, hence the wrapper.
#[repr(transparent)]
#[derive(Clone, Copy, Default)]
pub(super) struct State(pub(super) SocketState);

// SAFETY: eleven u64, `repr(C)`, without padding (asserted by size in recorder-ebpf): any bytes are valid.
unsafe impl aya::Pod for State {}
