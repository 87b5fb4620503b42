//! Heads without credentials.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::model::{RequestHead, ResponseHead};

/// What stands in the place of a credential.
pub const REMOVED: &str = "[removed]";

/// The WebSocket subprotocol in which browsers send a bearer token to the API server.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Parts of names (lower case, `_` for `-`) by which credentials are known, in headers and queries.
const SECRET_NAMES: [&str; 10] = [
    "authorization",
    "token",
    "secret",
    "passw",
    "cookie",
    "credential",
    "api_key",
    "apikey",
    "bearer",
    "x_auth",
];

/// Names that are credentials only as a whole.
const SECRET_NAMES_WHOLE: [&str; 7] =
    ["auth", "sig", "signature", "x_amz_signature", "jwt", "assertion", "session_key"];

/// A request's head as it is recorded.
#[must_use]
pub fn request_head(
    method: &Method,
    target: &str,
    version: Version,
    headers: &HeaderMap,
) -> RequestHead {
    RequestHead {
        method: method.as_str().to_owned(),
        target: redact_target(target).into_owned(),
        version: match version {
            Version::HTTP_2 => "HTTP/2".to_owned(),
            other => format!("{other:?}"),
        },
        headers: recorded(headers),
    }
}

/// A response's head as it is recorded.
#[must_use]
pub fn response_head(status: u16, headers: &HeaderMap) -> ResponseHead {
    ResponseHead { status, headers: recorded(headers) }
}

/// A request target with the values of credentials in its query (and any user information) replaced.
#[must_use]
pub fn redact_target(target: &str) -> Cow<'_, str> {
    let target = without_user(target);
    let Some((path, query)) = target.split_once('?') else { return target };
    // `;` and `#` are no separators to the API server, but to others on the way.
    let separators = ['&', ';', '#', '?'];
    if !query.split(separators).any(is_secret_parameter) {
        return target;
    }
    let mut redacted = format!("{path}?");
    for part in query.split_inclusive(separators) {
        let (parameter, separator) = match part.char_indices().next_back() {
            Some((at, last)) if separators.contains(&last) => part.split_at(at),
            _ => (part, ""),
        };
        match parameter.split_once('=') {
            Some((name, _)) if is_secret_parameter(parameter) => {
                redacted.push_str(name);
                redacted.push('=');
                redacted.push_str(REMOVED);
            }
            _ => redacted.push_str(parameter),
        }
        redacted.push_str(separator);
    }
    Cow::Owned(redacted)
}

/// `https://user:password@host/…` without the user.
fn without_user(target: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = target.split_once("://") else { return Cow::Borrowed(target) };
    // A scheme has no slash: otherwise this is a path that holds a URL.
    if scheme.contains(['/', '?']) {
        return Cow::Borrowed(target);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => Cow::Owned(format!("{scheme}://{REMOVED}{}", &rest[at..])),
        None => Cow::Borrowed(target),
    }
}

fn is_secret_parameter(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    !value.is_empty() && is_secret_name(&decoded(name))
}

/// Whether the name of a header or parameter is that of a credential.
fn is_secret_name(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|part| name.contains(part)) || SECRET_NAMES_WHOLE.contains(&&*name)
}

/// Percent-decoded, for comparison only.
fn decoded(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn recorded(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), kept(name, value))).collect()
}

fn kept(name: &HeaderName, value: &HeaderValue) -> String {
    let text: String = value.as_bytes().iter().map(|byte| *byte as char).collect();
    match name.as_str() {
        // Who is acted for is the record's subject, whatever an extra key is called.
        name if name.starts_with("impersonate-") => text,
        // With `_` it is no subprotocol to us, but a token may be in it all the same.
        "sec-websocket-protocol" | "sec_websocket_protocol" => protocols(&text),
        "location" | "content-location" | "referer" => redact_target(&text).into_owned(),
        name if is_secret_name(name) => REMOVED.to_owned(),
        _ => text,
    }
}

/// The subprotocols, the one that carries a token cut to its name.
fn protocols(text: &str) -> String {
    let protocols = text.split(',').map(|protocol| {
        let is_bearer = |protocol: &str| {
            let head = protocol.get(..BEARER_PROTOCOL.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(BEARER_PROTOCOL))
        };
        if is_bearer(protocol.trim()) {
            Cow::Owned(format!(" {BEARER_PROTOCOL}{REMOVED}"))
        } else {
            Cow::Borrowed(protocol)
        }
    });
    protocols.collect::<Vec<_>>().join(",").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (target, expected) in [
            ("/api/v1/pods?limit=500&continue=abc", None),
            ("/api/v1/pods", None),
            ("/x?token=", None),
            ("/x?token=s3cr3t", Some("/x?token=[removed]")),
            ("/x?a=1&access_token=s3cr3t&b=2", Some("/x?a=1&access_token=[removed]&b=2")),
            ("/x?%74oken=s3cr3t", Some("/x?%74oken=[removed]")),
            ("/x?a=1;ID-Token=s3cr3t#c", Some("/x?a=1;ID-Token=[removed]#c")),
            ("/x?a=b?token=s3cr3t=x", Some("/x?a=b?token=[removed]")),
            ("https://u:s3cr3t@h/x", Some("https://[removed]@h/x")),
            ("https://h/x@y?token=s3cr3t", Some("https://h/x@y?token=[removed]")),
            ("/proxy/http://u@h", None),
            ("/x?%zz=1&password=s3cr3t", Some("/x?%zz=1&password=[removed]")),
        ] {
            assert_eq!(redact_target(target), expected.unwrap_or(target));
        }
    }

    #[test]
    fn heads_hold_no_credentials() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer s3cr3t"),
            ("authorization", "Basic s3cr3t"),
            ("proxy-authorization", "s3cr3t"),
            ("cookie", "s3cr3t"),
            ("set-cookie", "s3cr3t"),
            ("x-auth-request-user", "s3cr3t"),
            ("x-forwarded-access-token", "s3cr3t"),
            ("x-api-key", "s3cr3t"),
            ("x_api_key", "s3cr3t"),
            ("location", "https://idp/?code=1&token=s3cr3t"),
            (
                "sec-websocket-protocol",
                "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.s3cr3t",
            ),
            ("sec_websocket_protocol", "base64url.bearer.authorization.k8s.io.s3cr3t"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let removed = headers.len();
        for (name, value) in [
            ("impersonate-user", "kept"),
            ("impersonate-extra-token", "kept"),
            ("user-agent", "kept"),
            ("kubectl-session", "kept"),
            ("audit-id", "kept"),
            ("www-authenticate", "kept"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let head = request_head(&Method::GET, "/x?token=s3cr3t", Version::HTTP_2, &headers);
        assert_eq!(head.version, "HTTP/2");
        assert_eq!(head.headers.len(), headers.len());
        let text = format!("{head:?}");
        assert!(!text.contains("s3cr3t"), "{text}");
        assert_eq!(text.matches(REMOVED).count(), removed + 1, "{text}");
        assert_eq!(text.matches("kept").count(), headers.len() - removed, "{text}");
        assert_eq!(
            head.header("sec-websocket-protocol"),
            Some("v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.[removed]")
        );
        let response = response_head(101, &headers);
        assert!(!format!("{response:?}").contains("s3cr3t"));
    }

    #[test]
    fn bytes_over_ascii_are_latin_1() {
        let mut headers = HeaderMap::new();
        headers.append("x", HeaderValue::from_bytes(b"caf\xe9").expect("opaque"));
        let head = request_head(&Method::GET, "/", Version::HTTP_11, &headers);
        assert_eq!((head.header("x"), head.version.as_str()), (Some("café"), "HTTP/1.1"));
    }
}
