//! What is asked for.

use anyhow::Result;
use http::Request;
use rig::client::{Body, Protocol, full};

use crate::world::{NAMESPACE, PATCHED_NAMESPACE};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) concurrency: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Get,
    List { accept: &'static str, encoding: &'static str },
    Patch,
}

impl Case {
    /// The request of one worker; `nonce` makes each patch a change.
    pub(crate) fn request(&self, worker: usize, nonce: u64) -> Result<Request<Body>> {
        Ok(match self.kind {
            Kind::Get => Request::get(format!("{}/small", collection(NAMESPACE)))
                .header("accept", JSON)
                .body(full(""))?,
            Kind::List { accept, encoding } => Request::get(collection(NAMESPACE))
                .header("accept", accept)
                .header("accept-encoding", encoding)
                .body(full(""))?,
            Kind::Patch => {
                let path = format!("{}/patched-{worker}", collection(PATCHED_NAMESPACE));
                Request::patch(path)
                    .header("accept", JSON)
                    .header("content-type", "application/merge-patch+json")
                    .body(full(format!("{{\"data\":{{\"nonce\":\"{nonce}\"}}}}")))?
            }
        })
    }
}

pub(crate) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

pub(crate) fn cases() -> Vec<Case> {
    let list = |accept, encoding| Kind::List { accept, encoding };
    let case = |name, protocol, concurrency, kind| Case { name, protocol, concurrency, kind };
    let (http1, http2) = (Protocol::Http1, Protocol::Http2);
    vec![
        case("get h2 c=1", http2, 1, Kind::Get),
        case("get h2 c=8", http2, 8, Kind::Get),
        case("get h2 c=64", http2, 64, Kind::Get),
        case("get h1 c=1", http1, 1, Kind::Get),
        case("get h1 c=8", http1, 8, Kind::Get),
        case("get h1 c=64", http1, 64, Kind::Get),
        case("list json h2 c=1", http2, 1, list(JSON, "identity")),
        case("list json h2 c=8", http2, 8, list(JSON, "identity")),
        case("list json h2 c=64", http2, 64, list(JSON, "identity")),
        case("list json h1 c=8", http1, 8, list(JSON, "identity")),
        case("list protobuf h2 c=8", http2, 8, list(PROTOBUF, "identity")),
        case("list gzip h2 c=8", http2, 8, list(JSON, "gzip")),
        case("patch h2 c=1", http2, 1, Kind::Patch),
        case("patch h2 c=8", http2, 8, Kind::Patch),
        case("patch h2 c=64", http2, WORKERS_MAX, Kind::Patch),
        case("patch h1 c=8", http1, 8, Kind::Patch),
    ]
}

/// The most workers of any case: each patches an object of its own.
pub(crate) const WORKERS_MAX: usize = 64;
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
