//! Where a token may be: in exactly one `Authorization` header, or in exactly one WebSocket subprotocol.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{
    HeaderMap,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
};

use super::IdentifyError;
use crate::headers::{BEARER_PROTOCOL, begins_with};

/// The request's one bearer token.
///
/// # Errors
/// None, several, another scheme, or text that cannot be a token (RFC 6750 `b64token`).
pub fn bearer(headers: &HeaderMap) -> Result<Cow<'_, str>, IdentifyError> {
    let from_protocol = subprotocol(headers)?;
    if headers.contains_key(AUTHORIZATION) {
        if from_protocol.is_some() {
            return Err(IdentifyError::Several);
        }
        return authorization(headers).map(Cow::Borrowed);
    }
    from_protocol.map(Cow::Owned).ok_or(IdentifyError::Missing)
}

/// The token of the subprotocol `base64url.bearer.authorization.k8s.io.`, in which browsers send it
/// (k8s.io/apiserver/pkg/authentication/request/websocket). It needs another protocol beside it, which the
/// server can choose.
fn subprotocol(headers: &HeaderMap) -> Result<Option<String>, IdentifyError> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let (mut token, mut others) = (None, false);
    for protocol in texts.flat_map(|text| text.split(',')).map(str::trim) {
        if !begins_with(protocol, BEARER_PROTOCOL) {
            others |= !protocol.is_empty();
        } else if token.replace(&protocol[BEARER_PROTOCOL.len()..]).is_some() {
            return Err(IdentifyError::Several);
        }
    }
    let Some(encoded) = token else { return Ok(None) };
    if !others {
        return Err(IdentifyError::Malformed("its subprotocol must not be the only one offered"));
    }
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| NOT_A_TOKEN)?;
    let text = String::from_utf8(decoded).map_err(|_| NOT_A_TOKEN)?;
    if is_token(&text) { Ok(Some(text)) } else { Err(NOT_A_TOKEN) }
}

fn is_token(text: &str) -> bool {
    let fits = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
    };
    !text.is_empty() && text.bytes().all(fits)
}

fn authorization(headers: &HeaderMap) -> Result<&str, IdentifyError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(IdentifyError::Missing)?;
    if values.next().is_some() {
        return Err(IdentifyError::Several);
    }
    let text = value.to_str().map_err(|_| NOT_A_TOKEN)?;
    let (scheme, token) = text.split_once(' ').ok_or(IdentifyError::Scheme)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(IdentifyError::Scheme);
    }
    if token.contains(',') {
        return Err(IdentifyError::Several);
    }
    if is_token(token) { Ok(token) } else { Err(NOT_A_TOKEN) }
}

const NOT_A_TOKEN: IdentifyError =
    IdentifyError::Malformed("it holds characters that no token has");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(values: &[&'static [u8]], expected: Result<&str, IdentifyError>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).expect("a header value"));
        }
        assert_eq!(bearer(&headers), expected.map(Cow::Borrowed), "{values:?}");
    }

    #[test]
    fn exactly_one_bearer_token() {
        check(&[b"Bearer a.b.c"], Ok("a.b.c"));
        check(&[b"bearer a.b.c"], Ok("a.b.c"));
        check(&[], Err(IdentifyError::Missing));
        check(&[b"Bearer a", b"Bearer a"], Err(IdentifyError::Several));
        check(&[b"Bearer a", b"Basic YTpi"], Err(IdentifyError::Several));
        check(&[b"Bearer a, Bearer b"], Err(IdentifyError::Several));
        check(&[b"Basic YTpi"], Err(IdentifyError::Scheme));
        check(&[b"a.b.c"], Err(IdentifyError::Scheme));
        check(&[b""], Err(IdentifyError::Scheme));
        check(&[b"Bearer"], Err(IdentifyError::Scheme));
        for malformed in
            [&b"Bearer "[..], b"Bearer  a", b"Bearer a b", b"Bearer \xff", b"Bearer a\tb"]
        {
            check(&[malformed], Err(NOT_A_TOKEN));
        }
    }

    #[test]
    fn or_one_subprotocol_beside_another() {
        let check = |protocols: &'static str,
                     authorization: bool,
                     expected: Result<&str, IdentifyError>| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
            if authorization {
                headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
            }
            assert_eq!(bearer(&headers), expected.map(Cow::Borrowed), "{protocols}");
        };
        let alone = IdentifyError::Malformed("its subprotocol must not be the only one offered");
        check(
            "base64url.bearer.authorization.k8s.io.YS5iLmM, v5.channel.k8s.io",
            false,
            Ok("a.b.c"),
        );
        check(
            "v5.channel.k8s.io,BASE64URL.bearer.authorization.k8s.io.YS5iLmM",
            false,
            Ok("a.b.c"),
        );
        check("base64url.bearer.authorization.k8s.io.YS5iLmM", false, Err(alone));
        check(
            "base64url.bearer.authorization.k8s.io.YS5iLmM, v5",
            true,
            Err(IdentifyError::Several),
        );
        check(
            "base64url.bearer.authorization.k8s.io.YQ, base64url.bearer.authorization.k8s.io.YQ, v5",
            false,
            Err(IdentifyError::Several),
        );
        check("base64url.bearer.authorization.k8s.io.*, v5", false, Err(NOT_A_TOKEN));
        check("base64url.bearer.authorization.k8s.io.YQ==, v5", false, Err(NOT_A_TOKEN));
        check("base64url.bearer.authorization.k8s.io._w, v5", false, Err(NOT_A_TOKEN));
        check("v5.channel.k8s.io", true, Ok("a.b.c"));
        check("v5.channel.k8s.io", false, Err(IdentifyError::Missing));
    }
}
