//! What was asked, as HTTP and as Kubernetes sees it.

use serde::{Deserialize, Serialize};

/// Kubernetes' view of a request, equal to the API server's `RequestInfo`
/// (k8s.io/apiserver/pkg/endpoints/request/requestinfo.go, v1.36).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestInfo {
    /// Whether the path names a resource (`/api/…`, `/apis/…`).
    pub is_resource_request: bool,
    /// The decoded path, without the gateway's own prefix.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`, or the
    /// lower-case method of a request that is not for a resource.
    pub verb: String,
    /// `api` or `apis`.
    #[serde(rename = "apiPrefix")]
    pub api_prefix: String,
    /// Empty for the core group.
    #[serde(rename = "apiGroup")]
    pub api_group: String,
    /// For example `v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Empty for cluster-scoped requests and for all namespaces.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// For example `scale`, `status`, `exec`.
    pub subresource: String,
    /// Empty for collections.
    pub name: String,
    /// The parts of the path from the resource on.
    #[serde(default)]
    pub parts: Vec<String>,
    /// The field selector, as given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field_selector: String,
    /// The label selector, as given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label_selector: String,
}

impl RequestInfo {
    /// Whether the verb can change the cluster. Everything that is not known to only read counts.
    #[must_use]
    pub fn may_change(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

/// A request's first line and headers, without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestHead {
    /// The HTTP method.
    pub method: String,
    /// Path and query as received, credentials in the query replaced.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: String,
    /// Headers in order, names in lower case; bytes over 0x7f are kept as Latin-1.
    pub headers: Vec<(String, String)>,
}

/// A response's status and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

impl RequestHead {
    /// The first header of this (lower-case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

impl ResponseHead {
    /// The first header of this (lower-case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}
