//! What may cross from one side to the other. Client headers are hostile: hop-by-hop fields and
//! everything that could speak of identity are taken out first, ours are set last.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use recorder_user::model::{ExchangeId, Principal, SessionId};

use crate::refuse::Refused;

/// RFC 9110 §7.6.1 and the older names that proxies still meet.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that the gateway sets itself, or that the API server would believe.
const OURS: [&str; 7] =
    ["authorization", "audit-id", "cookie", "expect", "forwarded", "x-forwarded-for", "x-real-ip"];

/// Compressed frames could not be decoded from the record, and nothing of Kubernetes offers them.
const EXTENSIONS: &str = "sec-websocket-extensions";

/// The WebSocket subprotocol in which browsers send a bearer token (k8s.io/apiserver, `bearertoken`).
pub const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether `text` begins with `prefix`, in any case.
#[must_use]
pub fn begins_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// A header name as a lax parser behind us might read it: `_` for `-`.
fn normal(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// The client's end-to-end headers.
#[must_use]
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let nominated = nominated(headers);
    let mut kept = HeaderMap::with_capacity(headers.len() + 8);
    for (name, value) in headers {
        let normal = normal(name);
        let drop = HOP_BY_HOP.contains(&normal.as_str())
            || OURS.contains(&normal.as_str())
            || normal.starts_with("impersonate-")
            || normal.starts_with("x-remote-")
            || nominated.contains(&normal)
            || normal == EXTENSIONS;
        if drop {
            continue;
        }
        if normal == header::SEC_WEBSOCKET_PROTOCOL.as_str() {
            if let Some(value) = without_token(value) {
                kept.append(name.clone(), value);
            }
        } else {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// The subprotocols without the one that carries a token; none when nothing is left.
fn without_token(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let protocols: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty() && !begins_with(protocol, BEARER_PROTOCOL))
        .collect();
    HeaderValue::from_str(&protocols.join(", ")).ok().filter(|value| !value.is_empty())
}

/// Takes the hop-by-hop fields out of a response of the API server.
pub fn strip_response(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What `Connection` nominates, except what must reach the API server whatever the client says.
fn nominated(headers: &HeaderMap) -> Vec<String> {
    const END_TO_END: [&str; 4] = ["content-length", "content-type", "accept", "host"];
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase().replace('_', "-"))
        .filter(|name| !name.is_empty() && !END_TO_END.contains(&name.as_str()))
        .collect()
}

/// What the API server shall know of the request, besides who asks.
pub struct Provenance<'a> {
    /// The exchange: becomes the API server's audit id.
    pub exchange: ExchangeId,
    /// The session.
    pub session: SessionId,
    /// The task label.
    pub task: Option<&'a str>,
    /// This gateway.
    pub gateway: &'a str,
    /// The client's address.
    pub peer: std::net::IpAddr,
}

/// Sets the gateway's credential and, last, whom it acts for.
///
/// # Errors
/// When the identity cannot be written as headers: then nothing may be forwarded.
pub fn identify(
    headers: &mut HeaderMap,
    principal: &Principal,
    provenance: &Provenance<'_>,
    credential: Option<&HeaderValue>,
) -> Result<(), Refused> {
    if principal.username.is_empty() {
        return Err(unwritable("an empty username"));
    }
    if let Some(credential) = credential {
        headers.insert(header::AUTHORIZATION, credential.clone());
    }
    headers.insert("audit-id", text(&provenance.exchange.to_string())?);
    headers.insert("x-forwarded-for", text(&provenance.peer.to_string())?);
    headers.insert("impersonate-user", text(&principal.username)?);
    for group in crate::identify::impersonation_groups(principal) {
        headers.append("impersonate-group", text(group)?);
    }
    if let Some(uid) = &principal.uid {
        headers.insert("impersonate-uid", text(uid)?);
    }
    for (key, values) in &principal.extra {
        for value in values {
            headers.append(extra_name(key)?, text(value)?);
        }
    }
    let session = provenance.session.to_string();
    let ours = [
        ("decklog.dev/session", Some(session.as_str())),
        ("decklog.dev/task", provenance.task),
        ("decklog.dev/gateway", Some(provenance.gateway)),
    ];
    for (key, value) in ours {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            headers.insert(extra_name(key)?, text(value)?);
        }
    }
    Ok(())
}

/// `Impersonate-Extra-` and the key, percent-encoded: a header name holds no slash.
fn extra_name(key: &str) -> Result<HeaderName, Refused> {
    use std::fmt::Write as _;
    let mut name = String::from("impersonate-extra-");
    for byte in key.to_ascii_lowercase().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02x}").expect("a String takes any text");
        }
    }
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| unwritable("an extra key"))
}

fn text(value: &str) -> Result<HeaderValue, Refused> {
    // Visible bytes and UTF-8 pass as they are; HeaderValue refuses control characters.
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unwritable("a value"))
}

fn unwritable(what: &str) -> Refused {
    Refused::new(
        "forward",
        500,
        "InternalError",
        format!("the identity has {what} that cannot be sent to the API server"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn provenance(session: SessionId) -> Provenance<'static> {
        Provenance {
            exchange: ExchangeId::new(),
            session,
            task: Some("fix-1"),
            gateway: "g",
            peer: [127, 0, 0, 1].into(),
        }
    }

    #[test]
    fn a_client_cannot_name_or_unname_an_identity() {
        let hostile = map(&[
            (
                "connection",
                "Impersonate-User, Authorization, Impersonate-Extra-decklog.dev%2Fsession",
            ),
            ("te", "impersonate-user"),
            ("trailer", "impersonate-user"),
            ("x-remote-user", "root"),
            ("x_remote_group", "system:masters"),
            ("impersonate_user", "root"),
            ("authorization", "Bearer client"),
            ("audit-id", "forged"),
            ("accept", "application/json"),
        ]);
        let mut headers = end_to_end(&hostile);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
        let principal = Principal {
            username: "alice".into(),
            groups: vec!["sre,admins".into(), "agents".into()],
            ..Principal::default()
        };
        let session = SessionId::new();
        let credential = HeaderValue::from_static("Bearer ours");
        identify(&mut headers, &principal, &provenance(session), Some(&credential)).expect("valid");
        assert_eq!(headers["impersonate-user"], "alice");
        assert_eq!(headers["authorization"], "Bearer ours");
        let groups: Vec<_> = headers.get_all("impersonate-group").iter().collect();
        assert_eq!(groups, ["sre,admins", "agents"]);
        assert_eq!(
            headers["impersonate-extra-decklog.dev%2fsession"].to_str().expect("ascii"),
            session.to_string()
        );
        assert!(!headers.contains_key("connection"));
    }

    #[test]
    fn a_token_among_subprotocols_does_not_pass() {
        let hostile = map(&[
            (
                "sec-websocket-protocol",
                "Base64URL.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io,v4.channel.k8s.io",
            ),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.YWJj"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-key", "x"),
        ]);
        let headers = end_to_end(&hostile);
        let protocols: Vec<_> = headers.get_all("sec-websocket-protocol").iter().collect();
        assert_eq!(protocols, ["v5.channel.k8s.io, v4.channel.k8s.io"]);
        assert!(!headers.contains_key("sec-websocket-extensions"));
        assert!(headers.contains_key("sec-websocket-key"));
    }

    #[test]
    fn an_identity_that_cannot_be_written_is_not_forwarded() {
        for username in ["", "a\nb", "a\0"] {
            let principal = Principal { username: username.into(), ..Principal::default() };
            let mut headers = HeaderMap::new();
            assert!(
                identify(&mut headers, &principal, &provenance(SessionId::new()), None).is_err()
            );
        }
    }
}
