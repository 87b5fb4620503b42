//! Ids as people type them: a beginning or an end.

use std::str::FromStr;

use crate::model::{ExchangeId, SessionId};

/// The beginning or end of an id, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPart(String);

/// The text cannot be part of an id.
#[derive(Debug, thiserror::Error)]
#[error("not an id, nor at least {ID_PART_CHARS_MIN} hexadecimal digits of one")]
pub struct ParseIdPartError;

impl FromStr for IdPart {
    type Err = ParseIdPartError;

    fn from_str(text: &str) -> Result<Self, ParseIdPartError> {
        let part: String = text.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
        let digits = part.chars().all(|c| c.is_ascii_hexdigit());
        let long_enough = (ID_PART_CHARS_MIN..=ID_CHARS).contains(&part.len());
        if digits && long_enough { Ok(Self(part)) } else { Err(ParseIdPartError) }
    }
}

impl IdPart {
    /// The digits, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the id begins or ends with it.
    #[must_use]
    pub fn matches(&self, id: impl std::fmt::Display) -> bool {
        let id = id.to_string();
        id.starts_with(&self.0) || id.ends_with(&self.0)
    }

    /// The session and the exchange that it names if it is a whole id: there is nothing to look for then.
    #[must_use]
    pub fn whole(&self) -> Option<(SessionId, ExchangeId)> {
        Some((self.0.parse().ok()?, self.0.parse().ok()?))
    }
}

/// The ids that a part of one fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchingIds {
    /// Sessions.
    pub sessions: Vec<SessionId>,
    /// Exchanges. The end of a session's id may be the end of an exchange's too; sessions are looked for
    /// more often, so these are only looked for where no session fits.
    pub exchanges: Vec<ExchangeId>,
}

/// Shorter parts of ids are refused: they would rarely be unique.
pub const ID_PART_CHARS_MIN: usize = 4;

/// More ids that a part fits are not looked for: it is not unique in any case.
pub const MATCHING_IDS_MAX: usize = 6;

/// The length of a whole id.
const ID_CHARS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_ids() {
        let id = "0190f3c2aaaabbbbccccddddeeee1234";
        for (part, matches) in
            [("0190f3", true), ("EEEE1234", true), (id, true), ("aaaa", false), ("1235", false)]
        {
            assert_eq!(part.parse::<IdPart>().expect(part).matches(id), matches, "{part}");
        }
        let whole = id.parse::<IdPart>().expect(id).whole().expect(id);
        assert_eq!((whole.0.to_string(), whole.1.to_string()), (id.into(), id.into()));
        assert!(id[1..].parse::<IdPart>().expect(id).whole().is_none());
        for bad in ["", "123", "xyz1", "0190f3c2aaaabbbbccccddddeeee12345", "\u{1b}[31"] {
            assert!(bad.parse::<IdPart>().is_err(), "{bad}");
        }
    }
}
