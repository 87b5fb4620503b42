//! The rig: a real control plane and node, a real OIDC issuer, the real gateway and the real kubectl, on
//! loopback or in a network namespace of this process's own ([`network`]).
//!
//! Scenarios, demo and benchmark share it. It builds what it starts from pinned sources into one cache
//! ([`cache`]), reserves its ports so that parallel runs do not meet ([`port`]), and everything that it
//! starts dies with the value that owns it, or with this process, however that ends ([`process`]).
//! It must never listen anywhere else, and never touch the user's own kubeconfig.

#![warn(missing_docs)]

pub mod cache;
pub mod client;
pub mod confined;
pub mod controlplane;
pub mod dialogue;
pub mod envoy;
pub mod frozen;
pub mod gateway;
mod image;
pub mod issuer;
pub mod kubectl;
pub mod minio;
pub mod network;
pub mod node;
pub mod pki;
pub mod player;
pub mod policy;
pub mod port;
pub mod probe;
pub mod process;
pub mod product;
pub mod prometheus;
pub mod recorder;
pub mod stopped;
pub mod terminal;
pub mod theft;
pub mod tools;
pub mod wait;
pub mod websocket;
