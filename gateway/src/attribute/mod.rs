//! Attribution: which cluster, task and Kubernetes operation a request is about.
//!
//! The answer must be the API server's own, because policy decides on it: [`request_info`] follows
//! `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go` of v1.36 and is compared with it on thousands of
//! requests (`tests/differential`). Where a target could be read in two ways (encoded slashes, dot and
//! empty segments, control bytes), it is refused instead of interpreted: a request that cannot be
//! attributed is denied before any byte is forwarded. Nothing here rewrites a target.

mod info;
mod options;
mod query;
mod route;
pub mod selector;
mod stream;

use thiserror::Error;

pub use self::{
    info::request_info,
    options::stream_request,
    query::Query,
    route::{Route, TASK_BYTES_MAX, is_task, long_target, route, target},
    stream::{effective_verb, is_long_running, is_upgrade, may_change},
};

/// Why a request cannot be attributed; it is denied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttributeError {
    /// The target is `*`, an absolute URL over HTTP/1, an authority, or does not begin with a slash.
    #[error("the request target is not a path")]
    NotAPath,
    /// A percent sign without two hexadecimal digits.
    #[error("the path holds an invalid percent-encoding")]
    PercentEncoding,
    /// A byte below 0x20, or 0x7f, raw or encoded.
    #[error("the path holds a control character")]
    ControlCharacter,
    /// The decoded path, a selector, or what a stream is to run, is not UTF-8.
    #[error("the {what} is not UTF-8")]
    NotText {
        /// `path`, `field selector`, `label selector`, `container name` or `command`.
        what: &'static str,
    },
    /// `%2f`: the API server reads it as a separator, others do not.
    #[error("the path holds an encoded slash")]
    EncodedSlash,
    /// `.` or `..`, raw or encoded.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// `//`.
    #[error("the path holds an empty segment")]
    EmptySegment,
    /// `/api/v1/watch` or `/api/v1/proxy` without a resource: the API server answers 500.
    #[error("the resource cannot be determined from the path")]
    NoResource,
    /// A verb in the path that means reading, with a method that does not.
    #[error("a watch is read with GET")]
    WatchMethod,
    /// `CONNECT`, also the extended one of HTTP/2.
    #[error("the CONNECT method is not served")]
    Connect,
    /// More query parameters than the API server reads.
    #[error("more than {} query parameters", query::PARAMETERS_MAX)]
    TooManyParameters,
    /// The ports of a port-forward are not a list of numbers below 65,536: the API server refuses them too.
    #[error("the ports are not a list of numbers below 65536")]
    Ports,
    /// The name behind `/clusters/` or `/tasks/` is malformed.
    #[error("the {what} in the path must be 1 to {TASK_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
    Prefix {
        /// `cluster name` or `task`.
        what: &'static str,
    },
}

impl AttributeError {
    /// HTTP status, `Status` reason and message for the client.
    #[must_use]
    pub fn status(&self) -> (u16, &'static str, String) {
        (403, "Forbidden", format!("the request cannot be attributed, so it is denied: {self}"))
    }
}
