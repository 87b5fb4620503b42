//! What must not reach the disk: pure, streaming, bounded.
//!
//! A [`BodyPlan`] decides from the heads alone what happens to a body: it passes untouched, its secret
//! values are replaced by keyed digests as it streams, or it is withheld. A [`Redactor`] carries the
//! plan out. It only decides what is *stored*: the traffic itself is never changed.
//!
//! The rule for bodies that may hold secrets: what cannot be read exactly as the API server reads it
//! is not stored. What was stored before such a point was already redacted.
//!
//! What counts as secret by itself:
//! - `secrets`, every verb: everything under a key `data` or `stringData`, at any depth; so single
//!   objects, lists, watch events, tables with included objects and merge patches are all covered by
//!   one rule. Also the last-applied annotation, and in JSON patches all but `op`, `path` and `from`.
//! - `serviceaccounts/token` and `tokenreviews`: every `token`.
//! - Requests through a `proxy` subresource whose path names one of these.
//!
//! Not secret: certificate signing requests (a request and a certificate are both public) and the
//! `SelfSubject…` and `SubjectAccessReview` kinds (names and attributes only).

mod digest;
mod head;
mod json;
mod plan;
mod protobuf;
mod redactor;
mod rules;
mod tally;
#[cfg(test)]
mod tests;

pub use digest::RedactKey;
pub use head::{REMOVED, redact_target, request_head, response_head};
pub use plan::BodyPlan;
pub use redactor::Redactor;
