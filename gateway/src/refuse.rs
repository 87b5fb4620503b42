//! Answers that the gateway gives itself, in the form that Kubernetes clients read: a `Status`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use recorder_user::model::Refusal;

use crate::body::Body;

/// Why a request is answered by the gateway. `message` says what to do, and never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The phase that refused.
    pub phase: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The `Status` reason (k8s.io/apimachinery `metav1.StatusReason`).
    pub reason: &'static str,
    /// For the person at the client.
    pub message: String,
}

impl Refused {
    /// A refusal of `phase`.
    pub fn new(
        phase: &'static str,
        status: u16,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { phase, status, reason, message: message.into() }
    }

    /// The recorder cannot take what would have to be recorded.
    #[must_use]
    pub fn recorder_failed() -> Self {
        Self::new(
            "open",
            503,
            "ServiceUnavailable",
            "the recorder cannot write, so nothing is forwarded: ask the operator of the gateway to \
             look at its /readyz?verbose",
        )
    }

    /// The API server could not be reached, or left before it answered.
    #[must_use]
    pub fn upstream(cluster: &str, why: &str) -> Self {
        Self::new(
            "forward",
            503,
            "ServiceUnavailable",
            format!("the API server of cluster {cluster:?} did not answer: {why}"),
        )
    }

    /// What the record says of it.
    #[must_use]
    pub fn record(&self) -> Refusal {
        Refusal {
            phase: self.phase.to_owned(),
            status: self.status,
            reason: self.reason.to_owned(),
            message: self.message.clone(),
        }
    }

    /// The response.
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        let document = status_json(self.status, self.reason, &self.message);
        let mut response = Response::new(Body::full(Bytes::from(document)));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            401 => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            429 | 503 => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// A failure in the form that Kubernetes clients read (k8s.io/apimachinery `metav1.Status`).
#[must_use]
pub fn status_json(code: u16, reason: &str, message: &str) -> String {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
    .to_string()
}
