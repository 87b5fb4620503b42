//! The HTTP layer below `object_store`: a refusal becomes an error with its code, and the completion of an
//! upload in parts becomes conditional.

use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpService, ReqwestConnector,
    },
};

use crate::failure::Class;

/// The object store answered, and not with what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object store answers {status} {code}")]
pub(crate) struct Refusal {
    status: StatusCode,
    /// S3's word, for example `SignatureDoesNotMatch`; empty without one.
    code: String,
}

impl Refusal {
    pub(crate) fn class(&self) -> Class {
        match self.status {
            // Clocks that differ by more than 15 minutes look like a wrong key too.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Class::Denied,
            StatusCode::NOT_FOUND => Class::Missing,
            // The region's redirect.
            StatusCode::MOVED_PERMANENTLY => Class::Denied,
            StatusCode::BAD_REQUEST if DENIED_CODES.contains(&&*self.code) => Class::Denied,
            _ => Class::Server,
        }
    }
}

/// Makes the client of [`Answers`].
#[derive(Debug, Default)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Answers { inner }))
    }
}

#[derive(Debug)]
struct Answers {
    inner: HttpClient,
}

#[async_trait::async_trait]
impl HttpService for Answers {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let method = request.method().clone();
        // object_store has conditions for a whole put only. SigV4 need not cover this header.
        let query = request.uri().query().unwrap_or("");
        if method == Method::POST && query.split('&').any(|pair| pair.starts_with("uploadId=")) {
            request.headers_mut().insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        let response = self.inner.execute(request).await?;
        let status = response.status();
        let expected = status.is_success()
            || matches!(
                status,
                StatusCode::NOT_MODIFIED | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED
            )
            // No such object is an answer; to a put it can only be the bucket that is missing.
            || (status == StatusCode::NOT_FOUND && matches!(method, Method::GET | Method::HEAD));
        if expected {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let refusal = Refusal { status, code: code(&String::from_utf8_lossy(&body)) };
        Err(HttpError::new(HttpErrorKind::Unknown, refusal))
    }
}

/// The word in `<Code>`: letters only, since it goes to logs.
fn code(body: &str) -> String {
    let word = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let letters = |c: &char| c.is_ascii_alphanumeric();
    word.map_or("", |(word, _)| word).chars().filter(letters).take(64).collect()
}

/// What S3 says with a 400 where others say 403.
const DENIED_CODES: [&str; 5] = [
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidRequest",
    "InvalidToken",
];
const BODY_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_a_word_whatever_the_body() {
        for (body, expected) in [
            ("<Error><Code>NoSuchBucket</Code><Message>x</Message></Error>", "NoSuchBucket"),
            ("<Code>a\u{1b}[31m b</Code>", "a31mb"),
            ("<Code>unended", ""),
            ("</Code><Code>", ""),
            ("", ""),
        ] {
            assert_eq!(code(body), expected, "{body:?}");
        }
    }
}
