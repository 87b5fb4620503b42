//! Field and label selectors, parsed as `k8s.io/apimachinery` parses them.
//!
//! They matter twice: a field selector can name an object in a list or a watch, and one selector that does
//! not parse makes the API server forget the other (see `info.rs`). Policies may ask for them too.

mod labels;

use thiserror::Error;

pub use self::labels::{LabelRequirement, parse_labels};

/// A selector that the API server would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the selector is invalid")]
pub struct InvalidSelector;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// For example `metadata.name`.
    pub field: String,
    /// `=` or `==`; otherwise `!=`.
    pub equal: bool,
    /// The value, unescaped.
    pub value: String,
}

/// Parses a field selector; terms come out in the API server's order.
///
/// # Errors
/// When a term has no operator or a bad escape.
pub fn parse_fields(selector: &str) -> Result<Vec<FieldRequirement>, InvalidSelector> {
    let mut terms = split_terms(selector);
    terms.sort_unstable();
    let mut requirements = Vec::with_capacity(terms.len());
    for term in terms.into_iter().filter(|term| !term.is_empty()) {
        let (field, equal, value) = split_term(term).ok_or(InvalidSelector)?;
        let value = unescape_value(value)?;
        // The API server drops a term that is empty on both sides of an equals sign.
        if !(field.is_empty() && value.is_empty()) {
            requirements.push(FieldRequirement { field: field.to_owned(), equal, value });
        }
    }
    Ok(requirements)
}

/// Whether a label selector parses.
pub(super) fn labels_are_valid(selector: &str) -> bool {
    selector.is_empty() || parse_labels(selector).is_ok()
}

fn split_terms(selector: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

/// The first operator splits: `!=` before `==` before `=` at one place.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in term.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], equal, value));
            }
        }
    }
    None
}

fn unescape_value(value: &str) -> Result<String, InvalidSelector> {
    let (mut out, mut escaped) = (String::with_capacity(value.len()), false);
    for c in value.chars() {
        match c {
            '\\' | ',' | '=' if escaped => {
                out.push(c);
                escaped = false;
            }
            _ if escaped => return Err(InvalidSelector),
            '\\' => escaped = true,
            ',' | '=' => return Err(InvalidSelector),
            _ => out.push(c),
        }
    }
    if escaped { Err(InvalidSelector) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(selector: &str) -> Result<Vec<(String, bool, String)>, InvalidSelector> {
        let parsed = parse_fields(selector)?;
        Ok(parsed.into_iter().map(|term| (term.field, term.equal, term.value)).collect())
    }

    #[test]
    fn field_selectors() {
        let term = |field: &str, equal, value: &str| (field.to_owned(), equal, value.to_owned());
        assert_eq!(terms(""), Ok(vec![]));
        assert_eq!(terms(",=,"), Ok(vec![]));
        assert_eq!(terms("b!=2,a==1"), Ok(vec![term("a", true, "1"), term("b", false, "2")]));
        assert_eq!(terms(r"a=x\,y\=z\\"), Ok(vec![term("a", true, r"x,y=z\")]));
        for bad in ["a", "a=b=c", r"a=\n", r"a=x\", "a<1"] {
            assert_eq!(terms(bad), Err(InvalidSelector), "{bad}");
        }
    }
}
