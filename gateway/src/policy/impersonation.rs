//! What a client asks for with `Impersonate-*` headers (`kubectl --as`).

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use recorder_user::model::Principal;
use thiserror::Error;

/// Values in all `Impersonate-*` headers of a request: more are refused, since each asks policy once.
const VALUES_MAX: usize = 64;

/// Why `Impersonate-*` headers are refused without asking policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImpersonationError {
    /// Groups, uid or extras without a user.
    #[error("the client impersonates without Impersonate-User")]
    NoUser,
    /// A header that may occur once occurs again.
    #[error("the header {0} occurs more than once")]
    Repeated(&'static str),
    /// An empty value, one that is not UTF-8, or one with space around it.
    #[error("the value of the header {0} is empty, not UTF-8, or has space around it")]
    Value(String),
    /// `Impersonate-Something`, which no API server knows yet.
    #[error("the header {0} is unknown")]
    Unknown(String),
    /// More values than are looked at.
    #[error("more than {VALUES_MAX} values to impersonate")]
    TooMany,
}

impl ImpersonationError {
    /// HTTP status, `Status` reason and message for the client.
    #[must_use]
    pub fn status(&self) -> (u16, &'static str, String) {
        (403, "Forbidden", self.to_string())
    }
}

/// Reads whom a client wants to be from its `Impersonate-*` headers; none when there are none. Issuer and
/// subject stay empty, the username is not. Extra keys are in lower case and percent-decoded.
///
/// # Errors
/// When the headers are malformed. They are refused, never ignored.
pub fn impersonation(headers: &HeaderMap) -> Result<Option<Principal>, ImpersonationError> {
    let (mut claim, mut user, mut values) = (Principal::default(), None, 0);
    for (name, value) in headers {
        // `_` for `-`: whoever maps one to the other behind us must not see ours beside it.
        let name = name.as_str().replace('_', "-");
        let Some(what) = name.strip_prefix("impersonate-") else { continue };
        values += 1;
        if values > VALUES_MAX {
            return Err(ImpersonationError::TooMany);
        }
        let value = std::str::from_utf8(value.as_bytes())
            .ok()
            .filter(|text| !text.is_empty() && text.trim() == *text)
            .ok_or_else(|| ImpersonationError::Value(name.clone()))?
            .to_owned();
        match what {
            "user" => set_once(&mut user, value, "impersonate-user")?,
            "uid" => set_once(&mut claim.uid, value, "impersonate-uid")?,
            "group" => claim.groups.push(value),
            _ => {
                let key = what.strip_prefix("extra-").filter(|key| !key.is_empty());
                let key = key.ok_or_else(|| ImpersonationError::Unknown(name.clone()))?;
                claim.extra.entry(decode(key).into_owned()).or_default().push(value);
            }
        }
    }
    match user {
        Some(username) => Ok(Some(Principal { username, ..claim })),
        None if values == 0 => Ok(None),
        None => Err(ImpersonationError::NoUser),
    }
}

fn set_once(
    slot: &mut Option<String>,
    value: String,
    name: &'static str,
) -> Result<(), ImpersonationError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ImpersonationError::Repeated(name)),
    }
}

/// The API server keeps a key that does not decode as it is.
fn decode(key: &str) -> Cow<'_, str> {
    percent_decode_str(key).decode_utf8().unwrap_or(Cow::Borrowed(key))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Principal>, ImpersonationError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a header name");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        impersonation(&headers)
    }

    #[test]
    fn claims_are_read() {
        assert_eq!(read(&[("authorization", "x")]), Ok(None));
        let claim = read(&[
            ("Impersonate-User", "ada"),
            ("Impersonate-Group", "a,b"),
            ("impersonate-group", "c"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-Scopes", "x"),
            ("Impersonate-Extra-Acme.com%2Fproject", "y"),
        ]);
        let claim = claim.expect("valid").expect("some");
        assert_eq!((claim.username.as_str(), claim.uid.as_deref()), ("ada", Some("7")));
        assert_eq!(claim.groups, ["a,b", "c"]);
        assert_eq!(claim.extra["scopes"], ["x"]);
        assert_eq!(claim.extra["acme.com/project"], ["y"]);
    }

    #[test]
    fn malformed_claims_are_refused() {
        let user = ("impersonate-user", "ada");
        assert_eq!(read(&[("impersonate-group", "g")]), Err(ImpersonationError::NoUser));
        assert_eq!(read(&[("impersonate-uid", "7")]), Err(ImpersonationError::NoUser));
        assert!(matches!(read(&[user, user]), Err(ImpersonationError::Repeated(_))));
        assert!(matches!(
            read(&[user, ("Impersonate_User", "bob")]),
            Err(ImpersonationError::Repeated(_))
        ));
        for value in ["", " ada", "ada ", "\t"] {
            assert!(matches!(
                read(&[("impersonate-user", value)]),
                Err(ImpersonationError::Value(_))
            ));
        }
        for name in ["impersonate-foo", "impersonate-extra-", "impersonate-users", "impersonate-"] {
            assert!(
                matches!(read(&[user, (name, "x")]), Err(ImpersonationError::Unknown(_))),
                "{name}"
            );
        }
        let many = [user; VALUES_MAX + 1].map(|(_, value)| ("impersonate-group", value));
        assert_eq!(read(&many), Err(ImpersonationError::TooMany));
    }
}
