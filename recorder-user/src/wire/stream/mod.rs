//! Upgraded connections: exec, attach, port-forward, and whatever else leaves HTTP by `101 Switching
//! Protocols`. Bytes of both sides, in any chunking, become [`Event`]s.
//!
//! The same decoder serves the gateway, which looks at live traffic and asks only where frames begin and
//! end, and replay, which wants the payloads: a payload is unmasked and decoded only when it is asked for.

//!
//! ```text
//! agreement          what both ends said with the 101
//! decoder            one side's bytes through the layers below, events out
//!   websocket        RFC 6455 frames
//!   channels         numbered channels in messages (exec, legacy port-forward)
//!   spdy             SPDY/3.1 frames;  spdy/headers: the header blocks of one direction
//!   streams          streams by id, for both sides
//!   command          the error channel's status and the terminal's sizes
//! closing            what the gateway appends to end a connection with a reason
//! mask, carry        consumers: stdin as zeros, payloads of the base64 forms
//! ```

mod agreement;
mod carry;
mod channels;
mod closing;
mod command;
mod decoder;
mod event;
mod mask;
mod span;
mod spdy;
mod streams;
#[cfg(test)]
mod tests;
mod websocket;

pub use agreement::Asked;
pub use carry::{Base64Carry, NotBase64};
pub use decoder::Decoder;
pub use event::{
    Agreement, Channel, CommandStatus, Event, EventKind, Payload, PortStream, Protocol, Side,
    Transport,
};
pub use mask::StdinMask;
