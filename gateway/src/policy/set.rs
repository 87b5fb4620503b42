//! A loaded policy set, and the one place where a verdict is made.

use std::collections::BTreeSet;

use cedar_policy::{
    Authorizer, Decision as CedarDecision, Entity, EntityUid, PolicySet as Policies, Response,
};
use recorder_user::model::{
    Decision, Level, Obligations, Principal, RequestInfo, StdinRecord, StreamRequest, Timestamp,
    Undecodable, Verdict,
};

use super::{
    LoadPolicyError, PolicySource,
    annotation::{Facts, READS},
    entity::{self, Asked, Vocabulary},
    load::{self, Compiled, Files},
    memory::{Key, Memory},
    suite::Suite,
};
use crate::attribute::effective_verb;

/// Denies a proxied request that no permit names.
pub const BUILTIN_PROXY: &str = "builtin/proxy-must-be-named";
/// Denies an impersonation that no permit names.
pub const BUILTIN_IMPERSONATE: &str = "builtin/impersonate-must-be-named";
/// Denies a verb that the vocabulary does not have (`OPTIONS` on a resource, the old `proxy` verb).
pub const BUILTIN_VERB: &str = "builtin/unknown-verb";

/// What policy is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks, as the token proves; with impersonation still the one who authenticated.
    pub principal: &'a Principal,
    /// What is asked for.
    pub info: &'a RequestInfo,
    /// What a stream is to run or to carry; none for other requests.
    pub stream: Option<&'a StreamRequest>,
    /// The cluster's name in the configuration.
    pub cluster: &'a str,
    /// The label that the client chose.
    pub task: Option<&'a str>,
    /// Whether the client asks to leave HTTP.
    pub upgraded: bool,
}

/// Access and recording policies that are valid and pass their tests. Immutable; cheap to ask.
#[derive(Debug)]
pub struct PolicySet {
    hash: String,
    fingerprint: String,
    access: Compiled,
    recording: Compiled,
    warnings: Vec<String>,
    /// Whether a recording policy could say less than everything.
    recording_asked: bool,
    /// Whether any policy could look at the time: telling it to Cedar costs more than all the rest.
    tells_time: bool,
    vocabulary: Vocabulary,
    authorizer: Authorizer,
    memory: Memory,
}

/// A verdict with what led to it, for a human.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Access permits that say yes, also where a forbid or a built-in rule overrules them.
    pub permits: Vec<String>,
    /// Recording permits that apply.
    pub recording: Vec<String>,
}

impl PolicySet {
    /// Reads, parses, validates and tests a set.
    ///
    /// # Errors
    /// When anything is wrong with it; all problems are told at once.
    pub fn load(source: &PolicySource) -> Result<Self, LoadPolicyError> {
        Self::from_files(&Files::read(source)?)
    }

    /// A set from texts instead of files: names like `access/a.cedar` and `recording/b.cedar`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_texts<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, LoadPolicyError> {
        let owned = texts.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
        Self::from_files(&Files { policies: owned.collect(), tests: None })
    }

    pub(super) fn from_files(files: &Files) -> Result<Self, LoadPolicyError> {
        let set = Self::without_tests(files)?;
        if let Some(tests) = &files.tests {
            let failures = Suite::parse(tests)?.failures(&set);
            if !failures.is_empty() {
                return Err(LoadPolicyError::Tests(failures));
            }
        }
        Ok(set)
    }

    pub(super) fn without_tests(files: &Files) -> Result<Self, LoadPolicyError> {
        let parsed = load::parse(files)?;
        let levels = parsed.recording.facts.values().map(|facts| facts.level);
        Ok(Self {
            recording_asked: levels.min().is_some_and(|level| level < Level::Full),
            tells_time: parsed.tells_time,
            hash: files.hash(),
            fingerprint: files.fingerprint(),
            access: parsed.access,
            recording: parsed.recording,
            warnings: parsed.warnings,
            vocabulary: Vocabulary::new(),
            authorizer: Authorizer::new(),
            memory: Memory::new(),
        })
    }

    /// The hash over the set's files, in every verdict.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether the same question can have another answer later.
    #[must_use]
    pub const fn tells_time(&self) -> bool {
        self.tells_time
    }

    /// What is not wrong but probably not meant.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many access and recording policies count.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.access.facts.len(), self.recording.facts.len())
    }

    /// The verdict on a request.
    #[must_use]
    pub fn authorize(&self, question: &Question<'_>) -> Verdict {
        let now = self.now();
        let key = Key::of(question, now);
        if let Some(known) = self.memory.verdict(&key) {
            return known;
        }
        // Where every recording policy says `full`, there is nothing to ask: neither do errors say less.
        let verdict = self.judge(question, now, self.recording_asked).verdict;
        self.memory.keep(key, &verdict);
        verdict
    }

    /// The time, where the set tells it: the second, so that equal questions within one are decided once.
    fn now(&self) -> Option<Timestamp> {
        self.tells_time.then(|| {
            let micros = Timestamp::now().as_micros();
            Timestamp::from_micros(micros - micros.rem_euclid(1_000_000))
        })
    }

    /// The verdict on a request, with what led to it.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        self.judge(question, self.now(), true)
    }

    fn judge(
        &self,
        question: &Question<'_>,
        now: Option<Timestamp>,
        ask_recording: bool,
    ) -> Explanation {
        let verb = effective_verb(question.info, question.upgraded);
        let Some(action) = self.vocabulary.action(question.info, verb) else {
            return Answer::deny_builtin(BUILTIN_VERB).explanation(&self.hash, Level::Full, vec![]);
        };
        let asked = self
            .vocabulary
            .resource(question.info, None)
            .and_then(|resource| self.asked(question, now, action.clone(), resource));
        match asked {
            Ok(asked) => {
                let (level, recording) =
                    if ask_recording { self.level(&asked) } else { (Level::Full, vec![]) };
                self.access(question, now, verb, action, &asked)
                    .explanation(&self.hash, level, recording)
            }
            Err(error) => Answer::error(error).explanation(&self.hash, Level::Full, vec![]),
        }
    }

    /// The verdict on an impersonation, beside that on the request itself: everything that is claimed must be
    /// permitted by a policy whose head names the action `impersonate`.
    #[must_use]
    pub fn authorize_impersonation(&self, question: &Question<'_>, claim: &Principal) -> Verdict {
        let now = self.now();
        let answers = || -> Result<Vec<Answer>, String> {
            let answer = |resource| {
                let asked = self.asked(question, now, self.vocabulary.impersonate(), resource)?;
                let named = |id: &str| {
                    self.access.facts.get(id).is_some_and(|facts| facts.names_impersonate)
                };
                Ok(self.ask(&asked, named, BUILTIN_IMPERSONATE))
            };
            self.vocabulary.impersonated(claim)?.into_iter().map(answer).collect()
        };
        let combined = match answers() {
            Ok(answers) => Answer::all(answers),
            Err(error) => Answer::error(error),
        };
        combined.explanation(&self.hash, Level::Full, vec![]).verdict
    }

    fn asked(
        &self,
        question: &Question<'_>,
        now: Option<Timestamp>,
        action: EntityUid,
        resource: Entity,
    ) -> Result<Asked, String> {
        let principal = self.vocabulary.principal(question.principal)?;
        let context = entity::context(question, now)?;
        entity::request(principal, action, resource, context)
    }

    fn access(
        &self,
        question: &Question<'_>,
        now: Option<Timestamp>,
        verb: &str,
        action: EntityUid,
        asked: &Asked,
    ) -> Answer {
        let info = question.info;
        if !(info.is_resource_request && info.subresource == "proxy") {
            let mut answer = self.ask(asked, |_| true, "");
            // A read of Secrets is never unrecorded, whatever the permit says.
            answer.obligations.unrecorded &=
                READS.contains(&verb) && !question.upgraded && info.resource != "secrets";
            return answer;
        }
        // A permit names the proxy if it does not also permit the same request on a subresource that
        // cannot exist. So `resource.subresource == "proxy"` does, and a permit for everything does not.
        let elsewhere = self
            .vocabulary
            .resource(info, Some(NO_SUBRESOURCE))
            .and_then(|resource| self.asked(question, now, action, resource))
            .map(|asked| self.respond(&self.access.permits, &asked));
        let broad = match elsewhere {
            Ok(response) if errors(&response).is_empty() => reasons(&response),
            Ok(response) => return Answer::error(errors(&response).join("; ")),
            Err(error) => return Answer::error(error),
        };
        let mut answer = self.ask(asked, |id| !broad.contains(id), BUILTIN_PROXY);
        answer.obligations.unrecorded = false;
        answer
    }

    /// Asks the access set. Of the permits that say yes, those that do not count are left out; if none is
    /// left, the built-in rule denies.
    fn ask(&self, asked: &Asked, counts: impl Fn(&str) -> bool, builtin: &'static str) -> Answer {
        let response = self.respond(&self.access.all, asked);
        let (reasons, errors) = (reasons(&response), errors(&response));
        if response.decision() == CedarDecision::Deny {
            return Answer { policies: reasons.into_iter().collect(), errors, ..Answer::default() };
        }
        if !errors.is_empty() {
            return Answer { errors, permits: reasons.into_iter().collect(), ..Answer::default() };
        }
        let permits: Vec<String> = reasons.iter().cloned().collect();
        let counted: Vec<String> = reasons.into_iter().filter(|id| counts(id)).collect();
        if counted.is_empty() {
            return Answer { permits, ..Answer::deny_builtin(builtin) };
        }
        let facts: Vec<&Facts> =
            counted.iter().filter_map(|id| self.access.facts.get(id)).collect();
        let obligations = obligations(&facts);
        let held = !obligations.approval.is_empty();
        let decision = if held { Decision::Hold } else { Decision::Allow };
        Answer { decision, policies: counted, permits, errors, obligations }
    }

    /// How much is recorded: the highest level of the permits that apply; everything on any doubt.
    fn level(&self, asked: &Asked) -> (Level, Vec<String>) {
        let response = self.respond(&self.recording.all, asked);
        if !errors(&response).is_empty() {
            return (Level::Full, Vec::new());
        }
        let ids: Vec<String> = reasons(&response).into_iter().collect();
        let level = |id: &String| self.recording.facts.get(id).map(|facts| facts.level);
        (ids.iter().filter_map(level).max().unwrap_or(Level::Full), ids)
    }

    fn respond(&self, policies: &Policies, asked: &Asked) -> Response {
        self.authorizer.is_authorized(&asked.request, policies, &asked.entities)
    }
}

/// What one access question came to.
#[derive(Default)]
struct Answer {
    decision: Decision,
    policies: Vec<String>,
    permits: Vec<String>,
    errors: Vec<String>,
    obligations: Obligations,
}

impl Answer {
    fn deny_builtin(rule: &str) -> Self {
        Self { policies: vec![rule.to_owned()], ..Self::default() }
    }

    fn error(error: String) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }

    /// Yes only if all say yes. One default deny is told as such, not hidden behind what others decided.
    fn all(answers: Vec<Self>) -> Self {
        if let Some(denied) = answers.iter().position(|answer| answer.decision == Decision::Deny) {
            return answers.into_iter().nth(denied).unwrap_or_default();
        }
        let mut all = Self { decision: Decision::Allow, ..Self::default() };
        for answer in answers {
            if answer.decision == Decision::Hold {
                all.decision = Decision::Hold;
            }
            all.policies.extend(answer.policies);
            all.obligations.approval.extend(answer.obligations.approval);
        }
        all.policies.sort_unstable();
        all.policies.dedup();
        all.obligations.approval.sort_unstable();
        all.obligations.approval.dedup();
        all
    }

    fn explanation(self, hash: &str, level: Level, recording: Vec<String>) -> Explanation {
        let verdict = Verdict {
            decision: self.decision,
            policies: self.policies,
            policy_set: hash.to_owned(),
            errors: self.errors,
            obligations: Obligations { level, ..self.obligations },
        };
        Explanation { verdict, permits: self.permits, recording }
    }
}

/// What the counting permits add. Held only if every one of them asks for approval; the others add up.
fn obligations(facts: &[&Facts]) -> Obligations {
    let held = facts.iter().all(|facts| !facts.approval.is_empty());
    let collect = |lists: &mut dyn Iterator<Item = &Vec<String>>| -> Vec<String> {
        lists.flatten().collect::<BTreeSet<_>>().into_iter().cloned().collect()
    };
    let refuses = facts.iter().any(|facts| facts.undecodable == Undecodable::Refuse);
    let sizes = facts.iter().any(|facts| facts.stdin == StdinRecord::Sizes);
    Obligations {
        level: Level::Full,
        redact: collect(&mut facts.iter().map(|facts| &facts.redact)),
        unrecorded: facts.iter().any(|facts| facts.unrecorded),
        approval: match held {
            true => collect(&mut facts.iter().map(|facts| &facts.approval)),
            false => Vec::new(),
        },
        preimage: facts.iter().any(|facts| facts.preimage),
        stdin: if sizes { StdinRecord::Sizes } else { StdinRecord::All },
        undecodable: if refuses { Undecodable::Refuse } else { Undecodable::Keep },
    }
}

fn reasons(response: &Response) -> BTreeSet<String> {
    response.diagnostics().reason().map(ToString::to_string).collect()
}

fn errors(response: &Response) -> Vec<String> {
    let mut errors: Vec<String> =
        response.diagnostics().errors().map(|error| error.to_string()).collect();
    errors.sort_unstable();
    errors
}

/// No path has a control character in it, so no request has this subresource.
const NO_SUBRESOURCE: &str = "\u{1}";
