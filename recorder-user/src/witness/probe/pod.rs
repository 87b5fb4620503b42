//! The ABI's map keys and values as aya takes them.
#![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use recorder_ebpf::{Endpoint, GatewayKey, GatewayValue, Storage};

/// `aya::Pod` cannot be implemented for a type of another crate, hence the wrapper.
#[repr(transparent)]
#[derive(Clone, Copy, Default)]
pub(super) struct Pod<T>(pub(super) T);

// SAFETY: integers, `repr(C)`, without padding (asserted by size in recorder-ebpf): any bytes are valid.
unsafe impl aya::Pod for Pod<Storage> {}
// SAFETY: as above.
unsafe impl aya::Pod for Pod<GatewayKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Pod<GatewayValue> {}
// SAFETY: as above.
unsafe impl aya::Pod for Pod<Endpoint> {}
