//! Policy: may a request pass, and how much of it is kept.
//!
//! Two sets of Cedar policies: `access/*.cedar` decides (default deny, a forbid wins, any error of
//! evaluation is a deny) and `recording/*.cedar` says how much is recorded (no match or any error: all of
//! it). A set is parsed, validated strictly against [`SCHEMA`] and run against the operator's own tests
//! before it takes effect; a bad set never replaces a good one. `docs/policy.md` is the guide for operators.
//!
//! Three rules are built in, because Cedar alone would let a broad permit say more than its author meant:
//! a proxied request (`pods/proxy`, `services/proxy`, `nodes/proxy`) and impersonation must be permitted by
//! a policy that names them, and a verb that the vocabulary does not know is denied. They show up as the
//! policies [`BUILTIN_PROXY`], [`BUILTIN_IMPERSONATE`] and [`BUILTIN_VERB`].
//!
//! This module never forwards, never reads a token, and takes the task only as a label.

mod annotation;
pub mod command;
mod described;
mod entity;
mod impersonation;
mod load;
mod memory;
mod message;
mod set;
mod store;
mod stream;
mod suite;

pub use self::{
    described::StreamDescription,
    impersonation::{ImpersonationError, impersonation},
    load::{LoadPolicyError, PolicySource, Problem},
    message::{denied, impersonation_denied},
    set::{BUILTIN_IMPERSONATE, BUILTIN_PROXY, BUILTIN_VERB, Explanation, PolicySet, Question},
    store::{PolicyStatus, PolicyStore, Reload},
};

/// The schema that every policy is validated against.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
