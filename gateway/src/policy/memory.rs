//! Verdicts that were given before. Cedar decides on nothing but the question, the time and the set, so an equal question
//! to the same set has an equal answer, for as long as the second lasts where the set looks at the clock; agents poll, and
//! most questions are equal. It lives and dies with its set.

use std::hash::{Hash, Hasher};

use quick_cache::sync::Cache;
use recorder_user::model::{Timestamp, Verdict};

use super::Question;

/// Verdicts that are kept; the least used make room.
const VERDICTS_MAX: usize = 4096;

/// A digest of a whole question, and of when it is asked. The client chooses much of one, so only a hash that nobody can make collide will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(question: &Question<'_>, now: Option<Timestamp>) -> Self {
        let Question { principal, info, stream, cluster, task, upgraded } = question;
        let mut digest = Digest(blake3::Hasher::new());
        (principal, info, stream, cluster, task, upgraded).hash(&mut digest);
        now.map(Timestamp::as_micros).hash(&mut digest);
        Self(*digest.0.finalize().as_bytes())
    }
}

/// Lets what is `Hash` be hashed by BLAKE3. The standard library's encoding of values for hashing is prefix-free.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks: the whole digest is taken.
    fn finish(&self) -> u64 {
        self.0.finalize().as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

/// The verdicts of one set.
#[derive(Debug)]
pub(super) struct Memory(Cache<Key, Verdict>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(Cache::new(VERDICTS_MAX))
    }

    pub(super) fn verdict(&self, key: &Key) -> Option<Verdict> {
        self.0.get(key)
    }

    pub(super) fn keep(&self, key: Key, verdict: &Verdict) {
        self.0.insert(key, verdict.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use recorder_user::model::{Principal, RequestInfo, StreamKind, StreamRequest};

    use super::*;

    #[test]
    fn every_part_of_a_question_counts() {
        let principal = Principal { username: "ada".into(), ..Principal::default() };
        let other = Principal { groups: vec!["sre".into()], ..principal.clone() };
        let info = RequestInfo { verb: "get".into(), ..RequestInfo::default() };
        let another = RequestInfo { label_selector: "a=b".into(), ..info.clone() };
        let exec = StreamRequest {
            kind: StreamKind::Exec,
            container: None,
            command: vec!["ls".into()],
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
            ports: vec![],
        };
        let question = Question {
            principal: &principal,
            info: &info,
            stream: None,
            cluster: "c",
            task: None,
            upgraded: false,
        };
        let same = Key::of(&question, None);
        assert_eq!(same, Key::of(&question.clone(), None));
        let at = |micros| Key::of(&question, Some(Timestamp::from_micros(micros)));
        assert!(at(1) == at(1) && at(1) != at(2) && at(0) != same);
        for changed in [
            Question { principal: &other, ..question },
            Question { info: &another, ..question },
            Question { stream: Some(&exec), ..question },
            Question { cluster: "", ..question },
            Question { task: Some(""), ..question },
            Question { upgraded: true, ..question },
        ] {
            assert_ne!(same, Key::of(&changed, None), "{changed:?}");
        }
        let words = ["ls", "-l"].map(str::to_owned).to_vec();
        let streams = [
            exec.clone(),
            StreamRequest { kind: StreamKind::Attach, ..exec.clone() },
            StreamRequest { container: Some("c".into()), ..exec.clone() },
            StreamRequest { command: words, ..exec.clone() },
            StreamRequest { command: vec!["ls-l".into()], ..exec.clone() },
            StreamRequest { stdin: true, ..exec.clone() },
            StreamRequest { stdout: false, ..exec.clone() },
            StreamRequest { stderr: false, ..exec.clone() },
            StreamRequest { tty: true, ..exec.clone() },
            StreamRequest { ports: vec![80], ..exec.clone() },
        ];
        let key = |stream| Key::of(&Question { stream: Some(stream), ..question }, None);
        let keys: HashSet<Key> = streams.iter().map(key).collect();
        assert_eq!(keys.len(), streams.len());
    }

    #[test]
    fn text_cannot_move_from_one_field_into_the_next() {
        let key = |username: &str, uid: &str| {
            let principal = Principal {
                username: username.into(),
                uid: Some(uid.into()),
                ..Principal::default()
            };
            let info = RequestInfo::default();
            let question = Question {
                principal: &principal,
                info: &info,
                stream: None,
                cluster: "",
                task: None,
                upgraded: false,
            };
            Key::of(&question, None)
        };
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }
}
