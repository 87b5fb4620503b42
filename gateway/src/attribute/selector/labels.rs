//! Label selectors: the lexer and parser of `k8s.io/apimachinery/pkg/labels`, with their quirks.

use std::collections::BTreeSet;

use super::InvalidSelector;

/// A label's name and value have at most this many bytes.
const LABEL_BYTES_MAX: usize = 63;
/// The prefix of a label's key has at most this many bytes.
const PREFIX_BYTES_MAX: usize = 253;

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// `=`, `==`, `!=`, `in`, `notin`, `exists`, `!`, `gt` or `lt`.
    pub operator: &'static str,
    /// Sorted, without duplicates; none for `exists` and `!`.
    pub values: Vec<String>,
}

/// Parses a label selector; requirements come out in the order given.
///
/// # Errors
/// When the API server would refuse it.
pub fn parse_labels(selector: &str) -> Result<Vec<LabelRequirement>, InvalidSelector> {
    let mut parser = Parser { tokens: tokens(selector), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::Identifier(_) | Token::Symbol("!") => {}
            Token::End => return Ok(requirements),
            Token::Symbol(_) => return Err(InvalidSelector),
        }
        requirements.push(parser.requirement()?);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") => match parser.peek() {
                Token::Identifier(_) | Token::Symbol("!") => {}
                _ => return Err(InvalidSelector),
            },
            _ => return Err(InvalidSelector),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A key, a value, or the words `in` and `notin`, which are operators only where one is due.
    Identifier(String),
    Symbol(&'static str),
    End,
}

/// A zero byte ends a token and is gone; where a token would begin, it ends the selector. As in the original.
fn tokens(selector: &str) -> Vec<Token> {
    let (mut rest, mut out) = (selector.as_bytes(), Vec::new());
    loop {
        let start = rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len());
        rest = &rest[start..];
        match rest {
            [] | [0, ..] => {
                out.push(Token::End);
                return out;
            }
            [b'=', b'=', ..] => push(&mut out, &mut rest, "=="),
            [b'!', b'=', ..] => push(&mut out, &mut rest, "!="),
            [first, ..] => {
                if let Some(symbol) = symbol(*first) {
                    push(&mut out, &mut rest, symbol);
                    continue;
                }
                let is_end = |b: &u8| *b == 0 || symbol(*b).is_some() || is_space(*b);
                let end = rest.iter().position(is_end).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                out.push(Token::Identifier(String::from_utf8_lossy(word).into_owned()));
                rest = behind.strip_prefix(b"\0").unwrap_or(behind);
            }
        }
    }
}

fn push(out: &mut Vec<Token>, rest: &mut &[u8], symbol: &'static str) {
    out.push(Token::Symbol(symbol));
    let behind = &rest[symbol.len()..];
    *rest = behind.strip_prefix(b"\0").unwrap_or(behind);
}

fn symbol(byte: u8) -> Option<&'static str> {
    Some(match byte {
        b'=' => "=",
        b'!' => "!",
        b'(' => "(",
        b')' => ")",
        b',' => ",",
        b'>' => ">",
        b'<' => "<",
        _ => return None,
    })
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<LabelRequirement, InvalidSelector> {
        let mut token = self.next();
        let absent = token == Token::Symbol("!");
        if absent {
            token = self.next();
        }
        let Token::Identifier(key) = token else { return Err(InvalidSelector) };
        if !is_label_key(&key) {
            return Err(InvalidSelector);
        }
        let alone = matches!(self.peek(), Token::End | Token::Symbol(","));
        let (operator, values) = if absent {
            ("!", BTreeSet::new())
        } else if alone {
            ("exists", BTreeSet::new())
        } else {
            self.operator_and_values()?
        };
        if matches!(operator, "gt" | "lt") && !values.iter().all(|v| v.parse::<i64>().is_ok()) {
            return Err(InvalidSelector);
        }
        if !values.iter().all(|value| is_label_value(value)) {
            return Err(InvalidSelector);
        }
        Ok(LabelRequirement { key, operator, values: values.into_iter().collect() })
    }

    fn operator_and_values(&mut self) -> Result<(&'static str, BTreeSet<String>), InvalidSelector> {
        let operator = match self.next() {
            Token::Identifier(word) if word == "in" => return Ok(("in", self.values()?)),
            Token::Identifier(word) if word == "notin" => return Ok(("notin", self.values()?)),
            Token::Symbol(symbol @ ("=" | "==" | "!=")) => symbol,
            Token::Symbol(">") => "gt",
            Token::Symbol("<") => "lt",
            _ => return Err(InvalidSelector),
        };
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok((operator, BTreeSet::from([String::new()]))),
            _ => match self.next() {
                Token::Identifier(value) => Ok((operator, BTreeSet::from([value]))),
                _ => Err(InvalidSelector),
            },
        }
    }

    /// `(a,b)`, where empty values count: `(,a)` has two.
    fn values(&mut self) -> Result<BTreeSet<String>, InvalidSelector> {
        if self.next() != Token::Symbol("(") {
            return Err(InvalidSelector);
        }
        let mut values = BTreeSet::new();
        if *self.peek() == Token::Symbol(")") {
            self.next();
            return Ok(BTreeSet::from([String::new()]));
        }
        loop {
            match self.next() {
                Token::Identifier(value) => {
                    values.insert(value);
                    match self.peek() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        _ => return Err(InvalidSelector),
                    }
                }
                Token::Symbol(",") => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek() {
                        Token::Symbol(")") => {
                            values.insert(String::new());
                            break;
                        }
                        Token::Symbol(",") => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                _ => return Err(InvalidSelector),
            }
        }
        self.next();
        Ok(values)
    }
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_name(key),
        Some((prefix, name)) => is_subdomain(prefix) && is_label_name(name),
    }
}

fn is_label_name(name: &str) -> bool {
    !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() <= LABEL_BYTES_MAX
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
}

fn is_subdomain(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= PREFIX_BYTES_MAX
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
                && bytes.first().is_some_and(alphanumeric)
                && bytes.last().is_some_and(alphanumeric)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_selectors() {
        let parsed = parse_labels("x in (foo,,baz),y,!z,a/b notin (),n>3 , in=in").expect("valid");
        let flat: Vec<_> =
            parsed.iter().map(|r| (r.key.as_str(), r.operator, r.values.join("|"))).collect();
        let expected = [
            ("x", "in", "|baz|foo"),
            ("y", "exists", ""),
            ("z", "!", ""),
            ("a/b", "notin", ""),
            ("n", "gt", "3"),
            ("in", "=", "in"),
        ];
        assert_eq!(
            flat,
            expected.map(|(key, operator, values)| (key, operator, values.to_owned()))
        );
    }

    #[test]
    fn invalid_selectors() {
        let long = format!("x={}", "y".repeat(LABEL_BYTES_MAX + 1));
        for bad in [
            ",", "x,", "x y", "x in foo", "x in (a", "x=(a)", "=a", "!", "!x=a", "x=-a", "-x",
            "/x", "a/b/c", "A/b", "x>a", "x!", "x===a", "é", &long,
        ] {
            assert_eq!(parse_labels(bad), Err(InvalidSelector), "{bad}");
        }
    }
}
