//! The record: what a recording is made of, how it is kept, proven and replayed.
//!
//! The `gateway` writes through this crate and the `recorder` command reads through it. Modules depend
//! one way: `wire` ← `model` ← {`effect`, `redact`, `witness`, `store`} ← `socket` ← `replay` ← `export` ← `cli`.
//! `wire`, `model`, `effect` and `redact` are pure: no I/O and nothing of tokio.

pub mod cli;
pub mod effect;
pub mod export;
pub mod model;
pub mod redact;
pub mod replay;
pub mod socket;
pub mod store;
pub mod wire;
pub mod witness;
