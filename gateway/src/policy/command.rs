//! `gateway policy check`, `test` and `explain`: texts and exit codes, without a terminal.

use std::{fmt::Write as _, path::Path};

use recorder_user::model::{Decision, Obligations, StdinRecord, Undecodable};

use super::{
    LoadPolicyError, PolicySet, PolicySource, StreamDescription, denied,
    described::{NotDescribed, Words},
    load::{Files, TESTS_FILE},
    suite::{Suite, describe},
};
use crate::attribute::effective_verb;

/// What a command prints, and its exit code: 0 fine, 1 the policies say no, 2 they cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output; ends with a line feed.
    pub text: String,
    /// For the shell.
    pub code: u8,
}

/// What `explain` is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainRequest {
    /// The username as policy sees it.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The task.
    pub task: Option<String>,
    /// Whether the client asks to leave HTTP.
    pub upgraded: bool,
    /// `DELETE /api/v1/namespaces/prod/configmaps/x`.
    pub request: String,
    /// What an exec is to run, and so on, beside what the query says.
    pub stream: StreamDescription,
}

/// Parses and validates the policies of a directory, without their tests.
#[must_use]
pub fn check(directory: &Path) -> Outcome {
    let source = PolicySource::in_directory(directory);
    match Files::read(&source).and_then(|files| PolicySet::without_tests(&files)) {
        Ok(set) => {
            let (access, recording) = set.sizes();
            let mut text = String::new();
            for warning in set.warnings() {
                line(&mut text, &format!("warning: {warning}"));
            }
            let hash = set.hash();
            line(
                &mut text,
                &format!("valid: {access} access and {recording} recording policies, set {hash}"),
            );
            Outcome { text, code: 0 }
        }
        Err(error) => failed(&error),
    }
}

/// Parses and validates the policies of a directory, and runs their `tests.yaml`.
#[must_use]
pub fn test(directory: &Path) -> Outcome {
    let source = PolicySource::in_directory(directory);
    let run = || {
        let files = Files::read(&source)?;
        let set = PolicySet::without_tests(&files)?;
        let suite = files.tests.as_deref().map(Suite::parse).transpose()?;
        Ok((set, suite))
    };
    let (set, suite) = match run() {
        Ok((set, Some(suite))) => (set, suite),
        Ok((_, None)) => {
            let text = format!("there is no {TESTS_FILE} in {}\n", source.access.display());
            return Outcome { text, code: 2 };
        }
        Err(error) => return failed(&error),
    };
    let failures = suite.failures(&set);
    let mut text = String::new();
    for failure in &failures {
        line(&mut text, &format!("failed: {failure}"));
    }
    let (count, passed) = (suite.len(), suite.len() - failures.len());
    line(&mut text, &format!("{passed} of {count} tests passed, set {}", set.hash()));
    Outcome { text, code: u8::from(!failures.is_empty()) }
}

/// Says what a directory's policies decide on one request, and why.
#[must_use]
pub fn explain(directory: &Path, asked: &ExplainRequest) -> Outcome {
    let source = PolicySource::in_directory(directory);
    let set = match Files::read(&source).and_then(|files| PolicySet::without_tests(&files)) {
        Ok(set) => set,
        Err(error) => return failed(&error),
    };
    let words = Words {
        user: &asked.user,
        groups: &asked.groups,
        cluster: &asked.cluster,
        task: asked.task.as_deref(),
        upgraded: asked.upgraded,
        request: &asked.request,
        stream: &asked.stream,
    };
    let described = match words.read() {
        Ok(described) => described,
        Err(NotDescribed::Denied(why)) => {
            return Outcome { text: format!("deny: {why}\n"), code: 1 };
        }
        Err(NotDescribed::Wrong(why)) => return Outcome { text: format!("{why}\n"), code: 2 },
    };
    let (question, info) = (described.question(), &described.info);
    let explanation = set.explain(&question);
    let verdict = &explanation.verdict;
    let mut text = String::new();
    line(&mut text, &describe(verdict));
    if verdict.decision != Decision::Allow {
        line(
            &mut text,
            &format!(
                "  the client reads: {}",
                denied(&described.principal, info, verdict, asked.upgraded)
            ),
        );
    }
    let overruled = |id: &&String| !verdict.policies.contains(id);
    for id in explanation.permits.iter().filter(overruled) {
        line(&mut text, &format!("  overruled: {id} permits it"));
    }
    line(&mut text, &format!("  verb: {}", effective_verb(info, asked.upgraded)));
    if info.is_resource_request {
        for (key, value) in [
            ("apiGroup", &info.api_group),
            ("resource", &info.resource),
            ("subresource", &info.subresource),
            ("namespace", &info.namespace),
            ("name", &info.name),
        ] {
            line(&mut text, &format!("  {key}: {value:?}"));
        }
    }
    if let Some(stream) = question.stream {
        line(&mut text, &format!("  stream: {}", stream.kind.as_str()));
        line(&mut text, &format!("  container: {:?}", stream.container.as_deref().unwrap_or("")));
        line(&mut text, &format!("  command: {:?}", stream.command));
    }
    let level = format!("{:?}", verdict.obligations.level).to_lowercase();
    let by = match explanation.recording.as_slice() {
        [] => "no recording policy applies".to_owned(),
        ids => ids.join(", "),
    };
    line(&mut text, &format!("  recorded: {level} ({by})"));
    stream_obligations(&mut text, &verdict.obligations);
    line(&mut text, &format!("  policy set: {}", set.hash()));
    Outcome { text, code: u8::from(verdict.decision != Decision::Allow) }
}

fn stream_obligations(text: &mut String, obligations: &Obligations) {
    if obligations.stdin == StdinRecord::Sizes {
        line(text, "  stdin: only its times and sizes are recorded");
    }
    if obligations.undecodable == Undecodable::Refuse {
        line(text, "  undecodable: ends the stream");
    }
}

fn failed(error: &LoadPolicyError) -> Outcome {
    let code = match error {
        LoadPolicyError::Invalid(_) | LoadPolicyError::Tests(_) => 1,
        LoadPolicyError::Read { .. } | LoadPolicyError::TooMuch { .. } => 2,
    };
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    Outcome { text: format!("{error}{}\n", source.unwrap_or_default()), code }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("a String takes everything");
}
