//! The recorded path between Kubernetes clients and API servers.
//!
//! A request goes through fixed phases, one module each: [`accept`] → [`identify`] → [`attribute`] →
//! [`authorize`] → [`open`] → [`forward`] → [`tap`] → [`settle`] → account (the end of [`settle`]).
//! [`exchange`] is their order. The gateway knows the store only through its writing end, and the kernel
//! only through the witness: it never names the index's database or the eBPF library.

pub mod accept;
pub mod admin;
pub mod archiving;
pub mod attribute;
pub mod authorize;
pub mod body;
pub mod bounds;
pub mod bypass;
pub mod config;
pub mod connection;
pub mod exchange;
pub mod forward;
pub mod gateway;
pub mod headers;
pub mod health;
pub mod identify;
pub mod kubeconfig;
pub mod late;
pub mod live;
pub mod metrics;
pub mod open;
pub mod passage;
mod placing;
pub mod policy;
pub mod prepare;
mod pruning;
pub mod redact_key;
pub mod refusals;
pub mod refuse;
pub mod run;
mod runtime;
pub mod sessions;
pub mod settle;
pub mod tap;
pub mod unrecorded;
pub mod upgrade;
pub mod upstream;
pub mod witnessing;
