//! Query parameters as Go's `net/url` reads them.

use std::borrow::Cow;

use super::AttributeError;

/// Go reads no parameter at all of a query with more than this many (`urlmaxqueryparams`); refused here.
pub(super) const PARAMETERS_MAX: usize = 10_000;

/// A raw query; lookups decode on the way and take the first value, as the API server does.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Takes the raw query, without the question mark.
    ///
    /// # Errors
    /// When it holds more parameters than the API server would read.
    pub fn new(raw: Option<&'a str>) -> Result<Self, AttributeError> {
        let raw = raw.unwrap_or_default();
        if raw.bytes().filter(|byte| *byte == b'&').count() >= PARAMETERS_MAX {
            return Err(AttributeError::TooManyParameters);
        }
        Ok(Self(raw))
    }

    /// The first value of this parameter, decoded. Pairs that do not decode, and those with a semicolon, do
    /// not exist.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.pairs().find(|(key, _)| **key == *name.as_bytes()).map(|(_, value)| value)
    }

    /// Whether there is no parameter at all.
    pub(super) fn is_empty(&self) -> bool {
        self.pairs().next().is_none()
    }

    /// The API server's conversion of a parameter to a boolean: absent, `0` and `false` in any case are
    /// false, everything else is true, also the empty text.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| is_true(&value))
    }

    /// All parameters in order, decoded.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> + use<'a> {
        self.0.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(
            |pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((unescape(key, Plus::IsSpace)?, unescape(value, Plus::IsSpace)?))
            },
        )
    }
}

/// What a plus sign stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// In a query.
    IsSpace,
    /// In a path.
    IsPlus,
}

/// Go's `unescape`: none when a percent sign lacks its two digits.
pub(super) fn unescape(text: &str, plus: Plus) -> Option<Cow<'_, [u8]>> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|b| *b == b'%' || (*b == b'+' && plus == Plus::IsSpace)) {
        return Some(Cow::Borrowed(bytes));
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => {
                out.push(hexadecimal(*high)? << 4 | hexadecimal(*low)?);
                behind
            }
            (b'%', _) => return None,
            (b'+', _) if plus == Plus::IsSpace => {
                out.push(b' ');
                behind
            }
            _ => {
                out.push(byte);
                behind
            }
        };
    }
    Some(Cow::Owned(out))
}

fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The truth of a parameter that is present.
pub(super) fn is_true(value: &[u8]) -> bool {
    value != b"0" && !equals_false(value)
}

/// Whether a text is of digits only: what Go's `ParseUint` takes, but for its size.
pub(super) fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Go's `strings.EqualFold(value, "false")`: Unicode simple folding knows one more letter, the long s.
fn equals_false(value: &[u8]) -> bool {
    std::str::from_utf8(value)
        .is_ok_and(|text| text.replace('\u{17f}', "s").eq_ignore_ascii_case("false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_wins_and_broken_pairs_do_not_exist() {
        let query = Query::new(Some("a=%zz&a=1;b=2&=x&a=+%2b&a=3&b")).expect("few parameters");
        assert_eq!(query.first("a").as_deref(), Some(&b" +"[..]));
        assert_eq!(query.first("b").as_deref(), Some(&b""[..]));
        assert_eq!(query.first("c"), None);
        assert!(Query::new(Some("%zz&;&")).expect("few").is_empty());
    }

    #[test]
    fn booleans_follow_the_conversion_of_the_api_server() {
        for (text, truth) in [
            ("watch=1", true),
            ("watch", true),
            ("watch=", true),
            ("watch=no", true),
            ("watch=f", true),
            ("watch=0", false),
            ("watch=FALSE", false),
            ("watch=fal%c5%bfe", false),
            ("watch=false&watch=true", false),
            ("WATCH=true", false),
            ("", false),
        ] {
            assert_eq!(Query::new(Some(text)).expect("few").is_true("watch"), truth, "{text}");
        }
    }

    #[test]
    fn parameters_are_bounded() {
        assert!(Query::new(Some(&"&".repeat(PARAMETERS_MAX - 1))).is_ok());
        assert!(Query::new(Some(&"&".repeat(PARAMETERS_MAX))).is_err());
    }
}
