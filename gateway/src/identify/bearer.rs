//! Where a token may be: in exactly one `Authorization` header.

use http::{HeaderMap, header::AUTHORIZATION};

use super::IdentifyError;

/// The request's one bearer token.
///
/// # Errors
/// None, several, another scheme, or text that cannot be a token (RFC 6750 `b64token`).
pub fn bearer(headers: &HeaderMap) -> Result<&str, IdentifyError> {
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
    let fits = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
    };
    if token.is_empty() || !token.bytes().all(fits) {
        return Err(NOT_A_TOKEN);
    }
    Ok(token)
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
        assert_eq!(bearer(&headers), expected, "{values:?}");
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
}
