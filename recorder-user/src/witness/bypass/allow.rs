//! Who may speak with the API server without the gateway: kubelet and kin. Pure.

use std::fmt;

use crate::witness::origin::FoundOrigin;

/// A pattern of a path or a name: `*` stands for any characters but `/`, `**` for any, `?` for one that is not `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Is(char),
    One,
    Some,
    All,
}

/// The text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It would match nothing.
    #[error("is empty")]
    Empty,
    /// It is too long.
    #[error("is longer than {PATTERN_CHARS_MAX} characters")]
    TooLong,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.chars().count() > PATTERN_CHARS_MAX {
            return Err(PatternError::TooLong);
        }
        let mut tokens = Vec::new();
        for c in text.chars() {
            match (c, tokens.last()) {
                ('*', Some(Token::Some)) => {
                    tokens.pop();
                    tokens.push(Token::All);
                }
                ('*', Some(Token::All)) => {}
                ('*', _) => tokens.push(Token::Some),
                ('?', _) => tokens.push(Token::One),
                (c, _) => tokens.push(Token::Is(c)),
            }
        }
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// Whether all of `text` fits. Takes time in proportion to both lengths, whatever they hold.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // The places in the pattern that may be reached: a star may be left out, so that one leads to the next.
        let mut at = vec![false; self.tokens.len() + 1];
        at[0] = true;
        self.skip_stars(&mut at);
        for c in text.chars().take(TEXT_CHARS_MAX + 1) {
            let mut next = vec![false; at.len()];
            for (place, token) in self.tokens.iter().enumerate().filter(|(place, _)| at[*place]) {
                match token {
                    Token::Is(wanted) => next[place + 1] |= *wanted == c,
                    Token::One => next[place + 1] |= c != '/',
                    Token::Some => next[place] |= c != '/',
                    Token::All => next[place] = true,
                }
            }
            self.skip_stars(&mut next);
            at = next;
        }
        at[self.tokens.len()] && text.chars().count() <= TEXT_CHARS_MAX
    }

    fn skip_stars(&self, at: &mut [bool]) {
        for (place, token) in self.tokens.iter().enumerate() {
            if at[place] && matches!(token, Token::Some | Token::All) {
                at[place + 1] = true;
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One rule: all that it names must fit, and it names something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowRule {
    /// The path of the cgroup.
    pub cgroup: Option<Pattern>,
    /// The pod's namespace.
    pub namespace: Option<Pattern>,
    /// The pod's name.
    pub pod: Option<Pattern>,
    /// The executable, of the host's or the gateway's own files: another container may call its files anything.
    pub executable: Option<Pattern>,
}

impl AllowRule {
    /// Whether a connection of this origin is allowed. What is not known of it fits nothing.
    #[must_use]
    pub fn allows(&self, found: &FoundOrigin) -> bool {
        let fits = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
        };
        let origin = &found.origin;
        let pod = origin.pod.as_ref();
        let executable = origin.process.executable.as_deref().filter(|_| found.on_host_files);
        *self != Self::default()
            && fits(&self.cgroup, origin.cgroup.as_deref())
            && fits(&self.namespace, pod.and_then(|pod| pod.namespace.as_deref()))
            && fits(&self.pod, pod.and_then(|pod| pod.name.as_deref()))
            && fits(&self.executable, executable)
    }
}

const PATTERN_CHARS_MAX: usize = 256;
const TEXT_CHARS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Origin, PodFacts, ProcessFacts};

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("a pattern")
    }

    #[test]
    fn stars_stand_for_parts_and_for_paths() {
        for (wanted, text, fits) in [
            ("/system.slice/kubelet.service", "/system.slice/kubelet.service", true),
            ("/system.slice/kubelet.service", "/system.slice/kubelet.service/x", false),
            ("/system.slice/*.service", "/system.slice/kubelet.service", true),
            ("/system.slice/*.service", "/system.slice/a/kubelet.service", false),
            ("/system.slice/**", "/system.slice/a/b", true),
            ("**/kubelet", "/usr/bin/kubelet", true),
            ("*", "a/b", false),
            ("**", "", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("***", "a/b", true),
        ] {
            assert_eq!(pattern(wanted).matches(text), fits, "{wanted} {text}");
        }
        assert_eq!(Pattern::new(""), Err(PatternError::Empty));
        assert_eq!(Pattern::new(&"x".repeat(257)), Err(PatternError::TooLong));
    }

    #[test]
    fn long_text_takes_linear_time() {
        let hard = pattern(&"a*".repeat(128));
        assert!(!hard.matches(&format!("{}b/", "a".repeat(4000))));
        assert!(!pattern("**").matches(&"a".repeat(TEXT_CHARS_MAX + 1)), "longer than a path");
    }

    proptest! {
        #[test]
        fn a_pattern_without_stars_matches_itself_alone(text in "[a-z/.]{1,40}", other in "[a-z/.]{1,40}") {
            let wanted = pattern(&text);
            prop_assert!(wanted.matches(&text));
            prop_assert_eq!(wanted.matches(&other), text == other);
        }

        #[test]
        fn what_a_star_replaced_is_matched(head in "[a-z]{0,9}", cut in "[a-z]{0,9}", tail in "[a-z]{0,9}") {
            let wanted = pattern(&format!("{head}*{tail}"));
            let text = format!("{head}{cut}{tail}");
            prop_assert!(wanted.matches(&text));
        }
    }

    fn kubelet(on_host_files: bool, pod: Option<PodFacts>) -> FoundOrigin {
        let executable = Some("/usr/bin/kubelet".to_owned());
        let process = ProcessFacts { executable, ..ProcessFacts::default() };
        let cgroup = Some("/system.slice/kubelet.service".to_owned());
        FoundOrigin { origin: Origin { process, cgroup, pod, ..Origin::default() }, on_host_files }
    }

    #[test]
    fn an_executable_counts_only_among_the_hosts_files() {
        let rule =
            AllowRule { executable: Some(pattern("/usr/bin/kubelet")), ..Default::default() };
        assert!(rule.allows(&kubelet(true, None)));
        assert!(!rule.allows(&kubelet(false, None)));
    }

    #[test]
    fn all_that_a_rule_names_must_fit() {
        let rule = AllowRule {
            namespace: Some(pattern("kube-system")),
            pod: Some(pattern("kube-proxy-*")),
            ..AllowRule::default()
        };
        let pod = |name: &str| PodFacts {
            namespace: Some("kube-system".into()),
            name: Some(name.into()),
            ..PodFacts::default()
        };
        assert!(rule.allows(&kubelet(false, Some(pod("kube-proxy-x1")))));
        assert!(!rule.allows(&kubelet(false, Some(pod("coredns-x1")))));
        assert!(!rule.allows(&kubelet(false, None)), "what is not known fits nothing");
        assert!(!AllowRule::default().allows(&kubelet(true, None)), "a rule without a condition");
    }
}
