//! The operator's own tests: `tests.yaml` beside the access policies, run before a set takes effect.

use recorder_user::model::{Decision, Level, Verdict};
use serde::Deserialize;

use super::{
    LoadPolicyError, PolicySet, Problem, StreamDescription, described::Words, load::TESTS_FILE,
};

/// A parsed tests file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Suite {
    tests: Vec<Case>,
}

/// One expectation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    name: String,
    user: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default = "default_cluster")]
    cluster: String,
    task: Option<String>,
    #[serde(default)]
    upgraded: bool,
    /// Method and path: `DELETE /api/v1/namespaces/prod/configmaps/x`.
    request: String,
    /// What an exec is to run, and so on, beside what the query says.
    #[serde(default)]
    stream: StreamDescription,
    expect: Decision,
    /// Policies that must be among those that decided.
    #[serde(default)]
    by: Vec<String>,
    level: Option<Level>,
}

fn default_cluster() -> String {
    "default".to_owned()
}

impl Suite {
    pub(super) fn parse(text: &str) -> Result<Self, LoadPolicyError> {
        serde_saphyr::from_str(text).map_err(|error| {
            let file = format!("access/{TESTS_FILE}");
            let message = error.to_string();
            LoadPolicyError::Invalid(vec![Problem { file, at: None, message }])
        })
    }

    pub(super) fn len(&self) -> usize {
        self.tests.len()
    }

    /// One text for each case that does not come out as expected.
    pub(super) fn failures(&self, set: &PolicySet) -> Vec<String> {
        self.tests.iter().filter_map(|case| case.failure(set)).collect()
    }
}

impl Case {
    fn failure(&self, set: &PolicySet) -> Option<String> {
        let fail = |text: String| Some(format!("{}: {text}", self.name));
        let words = Words {
            user: &self.user,
            groups: &self.groups,
            cluster: &self.cluster,
            task: self.task.as_deref(),
            upgraded: self.upgraded,
            request: &self.request,
            stream: &self.stream,
        };
        let verdict = match words.read() {
            Ok(described) => set.authorize(&described.question()),
            Err(error) => return fail(error.text()),
        };
        let decided = describe(&verdict);
        if verdict.decision != self.expect {
            return fail(format!("expected {}, got {decided}", self.expect.as_str()));
        }
        if let Some(missing) = self.by.iter().find(|id| !verdict.policies.contains(id)) {
            return fail(format!("expected policy {missing} to decide, got {decided}"));
        }
        let level = verdict.obligations.level;
        match self.level {
            Some(expected) if expected != level => {
                fail(format!("expected level {expected:?}, got {level:?}").to_lowercase())
            }
            _ => None,
        }
    }
}

/// A verdict in one line.
pub(super) fn describe(verdict: &Verdict) -> String {
    let by = match verdict.policies.as_slice() {
        [] => "no policy".to_owned(),
        policies => policies.join(", "),
    };
    let errors = match verdict.errors.as_slice() {
        [] => String::new(),
        errors => format!("; errors: {}", errors.join("; ")),
    };
    format!("{} by {by}{errors}", verdict.decision.as_str())
}
