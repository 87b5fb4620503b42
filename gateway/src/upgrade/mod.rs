//! Upgraded connections: exec, attach, port-forward and proxied protocols. A part of the phases forward
//! and tap: what the client asks for (`offer`), the API server's answer (`forward`), and then bytes in both
//! directions (`stream`, `flow`), each recorded before it is passed on (`book`).
//!
//! No client byte goes upstream before the API server's 101, and after any other answer nothing of either
//! connection is used again (CVE-2018-1002105, CVE-2020-8559). Bytes are never changed, with one
//! exception: a stream that the gateway cuts gets a last frame that tells its client why.

mod book;
mod flow;
mod forward;
pub mod long_target;
mod offer;
mod stream;

pub use forward::{Asking, Place, Upgrades, end_connection, forward};
pub use offer::{Offer, kind};
pub use stream::Limits;
