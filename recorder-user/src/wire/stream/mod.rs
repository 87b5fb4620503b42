//! Upgraded connections: exec, attach, port-forward, and whatever else leaves HTTP by `101 Switching
//! Protocols`. Bytes of both sides, in any chunking, become [`Event`]s.
//!
//! The same decoder serves the gateway, which looks at live traffic and asks only where frames begin and
//! end, and replay, which wants the payloads: a payload is unmasked and decoded only when it is asked for.

mod event;

pub use event::{
    Agreement, Channel, CommandStatus, Event, EventKind, Payload, PortStream, Protocol, Side,
    Transport,
};
