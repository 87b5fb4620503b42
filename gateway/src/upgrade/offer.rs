//! What a client asks its connection to become, and which answers fit.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use recorder_user::model::{RequestInfo, StreamKind};

use crate::refuse::Refused;

/// Kubernetes' negotiation over SPDY (k8s.io/apimachinery/pkg/util/httpstream).
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// An upgrade that the gateway can carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    kind: StreamKind,
    token: Token,
    /// The subprotocols offered, in order, without the one that carries a token.
    protocols: Vec<String>,
}

/// The protocol of the `Upgrade` header.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    WebSocket,
    Spdy,
    /// Behind a proxy anything may be spoken.
    Other(HeaderValue),
}

/// What kind of stream an upgraded request is; none for requests that are not carried upgraded: a watch
/// or a log over WebSocket would pass redaction and decoding by.
#[must_use]
pub fn kind(info: &RequestInfo) -> Option<StreamKind> {
    if !info.is_resource_request {
        return None;
    }
    let core = info.api_group.is_empty();
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "exec") if core => Some(StreamKind::Exec),
        ("pods", "attach") if core => Some(StreamKind::Attach),
        ("pods", "portforward") if core => Some(StreamKind::PortForward),
        ("pods" | "services" | "nodes", "proxy") if core => Some(StreamKind::Proxy),
        // Consoles and the like of aggregated API servers; groups of Kubernetes' own have none.
        (_, subresource) => {
            let foreign = info.api_group.contains('.') && !info.api_group.ends_with(".k8s.io");
            (foreign && !subresource.is_empty() && info.verb != "watch")
                .then_some(StreamKind::Other)
        }
    }
}

impl Offer {
    /// Reads the client's headers.
    ///
    /// # Errors
    /// When the request could be read in two ways, has a body, or is none that is carried upgraded.
    pub fn read(
        info: &RequestInfo,
        version: Version,
        headers: &HeaderMap,
        has_body: bool,
    ) -> Result<Self, Refused> {
        if version != Version::HTTP_11 {
            return Err(bad("an upgrade needs HTTP/1.1"));
        }
        let Some(kind) = kind(info) else {
            return Err(Refused::new(
                "attribute",
                501,
                "NotImplemented",
                "only exec, attach, port-forward and proxy requests are carried upgraded: \
                 ask again without an Upgrade header",
            ));
        };
        if has_body || headers.contains_key(TRANSFER_ENCODING) {
            return Err(bad("a request that asks for an upgrade has no body"));
        }
        if headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
            return Err(bad("a request that asks for an upgrade has no body"));
        }
        let token = token(headers, kind)?;
        let protocols = match token {
            Token::WebSocket => {
                listed(headers, &SEC_WEBSOCKET_PROTOCOL, crate::headers::BEARER_PROTOCOL)
            }
            Token::Spdy => listed(headers, &STREAM_PROTOCOL, crate::headers::BEARER_PROTOCOL),
            Token::Other(_) => Vec::new(),
        };
        Ok(Self { kind, token, protocols })
    }

    /// What kind of stream it asks for.
    #[must_use]
    pub const fn kind(&self) -> StreamKind {
        self.kind
    }

    /// The `Upgrade` header's protocol, in lower case: `websocket`, `spdy/3.1`, …
    #[must_use]
    pub fn token(&self) -> String {
        match &self.token {
            Token::WebSocket => "websocket".to_owned(),
            Token::Spdy => "spdy/3.1".to_owned(),
            Token::Other(value) => value.to_str().unwrap_or_default().to_ascii_lowercase(),
        }
    }

    /// Sets the hop-by-hop headers of the request for the API server.
    pub fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(
            UPGRADE,
            match &self.token {
                Token::WebSocket => HeaderValue::from_static("websocket"),
                Token::Spdy => HeaderValue::from_static("SPDY/3.1"),
                Token::Other(value) => value.clone(),
            },
        );
    }

    /// Checks a 101 of the API server, and gives the subprotocol that it names; empty for none.
    ///
    /// # Errors
    /// When it is no answer to what the client asked.
    pub fn agreed(&self, headers: &HeaderMap) -> Result<String, &'static str> {
        let answered = one(headers, &UPGRADE).ok_or("it names no protocol, or several")?;
        if !answered.eq_ignore_ascii_case(&self.token()) {
            return Err("it names a protocol that was not asked for");
        }
        if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err("it names WebSocket extensions, which were not offered");
        }
        let name = match self.token {
            Token::WebSocket => &SEC_WEBSOCKET_PROTOCOL,
            Token::Spdy => &STREAM_PROTOCOL,
            Token::Other(_) => return Ok(String::new()),
        };
        if !headers.contains_key(name) {
            // Behind a proxy a server need not choose; the API server always does.
            let free = matches!(self.kind, StreamKind::Proxy | StreamKind::Other);
            if self.protocols.is_empty() || free {
                return Ok(String::new());
            }
            return Err("it names no subprotocol");
        }
        let protocol = one(headers, name).ok_or("it names several subprotocols")?;
        if !self.protocols.iter().any(|offered| offered == protocol) {
            return Err("it names a subprotocol that the client did not offer");
        }
        Ok(protocol.to_owned())
    }

    /// Sets the hop-by-hop headers of the 101 for the client.
    pub fn answer(&self, headers: &mut HeaderMap) {
        self.ask(headers);
    }
}

fn token(headers: &HeaderMap, kind: StreamKind) -> Result<Token, Refused> {
    let asks = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut words = asks.flat_map(|value| value.split(','));
    if !words.any(|word| word.trim().eq_ignore_ascii_case("upgrade")) {
        return Err(bad("the Connection header does not name Upgrade"));
    }
    let token = one(headers, &UPGRADE)
        .ok_or_else(|| bad("the Upgrade header must name exactly one protocol"))?;
    if token.eq_ignore_ascii_case("websocket") {
        return Ok(Token::WebSocket);
    }
    if token.eq_ignore_ascii_case("spdy/3.1") {
        return Ok(Token::Spdy);
    }
    let is_token = |text: &str| {
        let fits =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/' | b'+');
        (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
    };
    // `h2c` would carry requests that nobody identified or asked policy for.
    let smuggles = token.len() >= 2 && token[..2].eq_ignore_ascii_case("h2")
        || token.to_ascii_lowercase().starts_with("http")
        || token.to_ascii_lowercase().starts_with("tls");
    match HeaderValue::from_str(token) {
        Ok(value) if kind == StreamKind::Proxy && is_token(token) && !smuggles => {
            Ok(Token::Other(value))
        }
        _ => Err(bad("only the protocols websocket and SPDY/3.1 are carried")),
    }
}

/// The one value of a header that must not be a list.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    (values.next().is_none() && !value.is_empty() && !value.contains(',')).then_some(value)
}

/// The items of a comma-separated header, without those that begin with `hidden`.
fn listed(headers: &HeaderMap, name: &HeaderName, hidden: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(',')).map(str::trim);
    items
        .filter(|item| !item.is_empty() && !crate::headers::begins_with(item, hidden))
        .map(str::to_owned)
        .collect()
}

fn bad(message: &str) -> Refused {
    Refused::new(
        "attribute",
        400,
        "BadRequest",
        format!("the upgrade cannot be carried: {message}"),
    )
}

/// The longest protocol name that is passed to what is behind a proxy.
const TOKEN_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::attribute::request_info;

    fn info(target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        request_info(&Method::GET, path, query).expect("attributable")
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn read(target: &str, fields: &[(&'static str, &'static str)]) -> Result<Offer, u16> {
        Offer::read(&info(target), Version::HTTP_11, &map(fields), false).map_err(|r| r.status)
    }

    const EXEC: &str = "/api/v1/namespaces/n/pods/p/exec";
    const ASKS: (&str, &str) = ("connection", "keep-alive, Upgrade");

    #[test]
    fn what_is_carried_upgraded() {
        for (target, expected) in [
            (EXEC, Some(StreamKind::Exec)),
            ("/api/v1/namespaces/n/pods/p/attach", Some(StreamKind::Attach)),
            ("/api/v1/namespaces/n/pods/p/portforward", Some(StreamKind::PortForward)),
            ("/api/v1/namespaces/n/pods/p/proxy/x", Some(StreamKind::Proxy)),
            ("/api/v1/nodes/n/proxy/exec/n/p/c", Some(StreamKind::Proxy)),
            (
                "/apis/subresources.kubevirt.io/v1/namespaces/n/virtualmachineinstances/v/vnc",
                Some(StreamKind::Other),
            ),
            ("/api/v1/namespaces/n/pods/p/log", None),
            ("/api/v1/pods?watch=1", None),
            ("/apis/apps.example.org/v1/things?watch=1", None),
            ("/apis/metrics.k8s.io/v1/namespaces/n/pods/p/exec", None),
            ("/version", None),
        ] {
            assert_eq!(kind(&info(target)), expected, "{target}");
        }
    }

    #[test]
    fn an_offer_is_read_in_one_way_or_refused() {
        let websocket = [
            ASKS,
            ("upgrade", "WebSocket"),
            ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"),
        ];
        let offer = read(EXEC, &websocket).expect("an offer");
        assert_eq!(offer.token(), "websocket");
        assert_eq!(offer.protocols, ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
        let spdy = [
            ASKS,
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "channel.k8s.io"),
        ];
        assert_eq!(read(EXEC, &spdy).expect("an offer").protocols.len(), 2);
        for refused in [
            &[ASKS][..],
            &[("upgrade", "websocket")],
            &[ASKS, ("upgrade", "websocket, spdy/3.1")],
            &[ASKS, ("upgrade", "websocket"), ("upgrade", "spdy/3.1")],
            &[ASKS, ("upgrade", "h2c")],
            &[ASKS, ("upgrade", "spdy/2")],
            &[ASKS, ("upgrade", "websocket"), ("content-length", "4")],
            &[ASKS, ("upgrade", "websocket"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(read(EXEC, refused), Err(400), "{refused:?}");
        }
        assert_eq!(read("/api/v1/pods?watch=1", &websocket), Err(501));
        let proxy = "/api/v1/namespaces/n/pods/p/proxy/";
        assert!(read(proxy, &[ASKS, ("upgrade", "my-protocol")]).is_ok());
        for smuggler in ["h2c", "H2", "HTTP/2.0", "TLS/1.3"] {
            assert_eq!(read(proxy, &[ASKS, ("upgrade", smuggler)]), Err(400), "{smuggler}");
        }
        let spoken = Offer::read(&info(EXEC), Version::HTTP_2, &map(&websocket), false);
        assert_eq!(spoken.map_err(|refused| refused.status), Err(400));
    }

    #[test]
    fn an_answer_names_what_was_offered() {
        let bearer = "base64url.bearer.authorization.k8s.io.YWJj, v5.channel.k8s.io";
        let offer =
            read(EXEC, &[ASKS, ("upgrade", "websocket"), ("sec-websocket-protocol", bearer)]);
        let offer = offer.expect("an offer");
        let answered = |protocol| {
            offer.agreed(&map(&[("upgrade", "websocket"), ("sec-websocket-protocol", protocol)]))
        };
        assert_eq!(answered("v5.channel.k8s.io").as_deref(), Ok("v5.channel.k8s.io"));
        for wrong in [
            "v4.channel.k8s.io",
            "base64url.bearer.authorization.k8s.io.YWJj",
            "v5.channel.k8s.io, v4.channel.k8s.io",
        ] {
            assert!(answered(wrong).is_err(), "{wrong}");
        }
        assert!(offer.agreed(&map(&[("upgrade", "websocket")])).is_err());
        assert!(offer.agreed(&map(&[("upgrade", "SPDY/3.1")])).is_err());
        assert!(offer.agreed(&HeaderMap::new()).is_err());
        let extended =
            [("upgrade", "websocket"), ("sec-websocket-extensions", "permessage-deflate")];
        assert!(offer.agreed(&map(&extended)).is_err());
    }
}
