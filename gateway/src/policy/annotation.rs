//! Annotations: what a permit adds to its yes.

use std::collections::BTreeSet;

use cedar_policy::{ActionConstraint, Effect, Policy};
use recorder_user::model::{Level, StdinRecord, Undecodable};

/// Which set a policy belongs to; each has its own annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// May it pass.
    Access,
    /// Is it retained.
    Recording,
}

impl Kind {
    /// The set's directory in a policy directory.
    pub(super) const fn directory(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Recording => "recording",
        }
    }
}

/// What was read from one policy's annotations and head.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// `@approval("group")`: the groups of whom one must approve.
    pub(super) approval: Vec<String>,
    /// `@preimage("true")`.
    pub(super) preimage: bool,
    /// `@redact("a.b,c.d")`.
    pub(super) redact: Vec<String>,
    /// `@unrecorded("allow")`.
    pub(super) unrecorded: bool,
    /// `@stdin("sizes")`.
    pub(super) stdin: StdinRecord,
    /// `@undecodable("refuse")`.
    pub(super) undecodable: Undecodable,
    /// `@level("…")`, in recording policies.
    pub(super) level: Level,
    /// Whether the policy's head names the action `impersonate`, alone or in a list.
    pub(super) names_impersonate: bool,
}

/// Verbs that `@unrecorded` may be on.
pub(super) const READS: [&str; 3] = ["get", "list", "watch"];

/// Reads and checks a policy's annotations; each problem is a text for the author.
pub(super) fn read(policy: &Policy, kind: Kind) -> Result<Facts, Vec<String>> {
    let mut facts = Facts { names_impersonate: names_impersonate(policy), ..Facts::default() };
    let mut problems = Vec::new();
    for (name, value) in policy.annotations() {
        if matches!(name, "id" | "doc" | "description") {
            continue;
        }
        let known = match kind {
            Kind::Access => access(&mut facts, policy, name, value),
            Kind::Recording => recording(&mut facts, name, value),
        };
        let checked = known.and_then(|()| match policy.effect() {
            Effect::Permit => Ok(()),
            Effect::Forbid => Err(format!("@{name} has no meaning on a forbid")),
        });
        problems.extend(checked.err());
    }
    if problems.is_empty() { Ok(facts) } else { Err(problems) }
}

fn access(facts: &mut Facts, policy: &Policy, name: &str, value: &str) -> Result<(), String> {
    match (name, value) {
        ("approval", _) => facts.approval = list(name, value, |_| true)?,
        ("redact", _) => facts.redact = list(name, value, is_json_path)?,
        ("preimage", "true") => facts.preimage = true,
        ("stdin", "sizes") => facts.stdin = StdinRecord::Sizes,
        ("undecodable", "refuse") => facts.undecodable = Undecodable::Refuse,
        ("unrecorded", "allow") if only_reads(policy) => facts.unrecorded = true,
        ("unrecorded", "allow") => {
            return Err("@unrecorded needs a head with only the actions get, list or watch".into());
        }
        ("preimage", _) => return Err("@preimage must be \"true\"".into()),
        ("stdin", _) => return Err("@stdin must be \"sizes\"".into()),
        ("undecodable", _) => return Err("@undecodable must be \"refuse\"".into()),
        ("unrecorded", _) => return Err("@unrecorded must be \"allow\"".into()),
        ("level", _) => return Err("@level belongs into the recording set".into()),
        _ => return Err(format!("unknown annotation @{name}")),
    }
    Ok(())
}

fn recording(facts: &mut Facts, name: &str, value: &str) -> Result<(), String> {
    facts.level = match (name, value) {
        ("level", "none") => Level::None,
        ("level", "metadata") => Level::Metadata,
        ("level", "request") => Level::Request,
        ("level", "full") => Level::Full,
        ("level", _) => return Err("@level must be none, metadata, request or full".into()),
        ("approval" | "preimage" | "redact" | "unrecorded" | "stdin" | "undecodable", _) => {
            return Err(format!("@{name} belongs into the access set"));
        }
        _ => return Err(format!("unknown annotation @{name}")),
    };
    Ok(())
}

fn list(name: &str, value: &str, valid: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let items: BTreeSet<&str> = value.split(',').map(str::trim).collect();
    if let Some(bad) = items.iter().find(|item| item.is_empty() || !valid(item)) {
        return Err(format!("@{name} holds {bad:?}; it takes a comma-separated list"));
    }
    Ok(items.into_iter().map(str::to_owned).collect())
}

/// Dot-separated keys, `*` for any key or element.
fn is_json_path(text: &str) -> bool {
    text.split('.').all(|key| {
        !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '*'))
    })
}

fn names_impersonate(policy: &Policy) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::In(actions) => {
            actions.iter().any(|a| a.id().unescaped() == "impersonate")
        }
        ActionConstraint::Eq(action) => action.id().unescaped() == "impersonate",
    }
}

fn only_reads(policy: &Policy) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::In(actions) => {
            actions.iter().all(|a| READS.contains(&a.id().unescaped()))
        }
        ActionConstraint::Eq(action) => READS.contains(&action.id().unescaped()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, kind: Kind) -> Result<Facts, Vec<String>> {
        read(&Policy::parse(None, text).expect("Cedar"), kind)
    }

    #[test]
    fn obligations_are_read() {
        let text = r#"@id("a") @approval("oncall, sre") @preimage("true") @redact("spec.x,data.*")
            @stdin("sizes") @undecodable("refuse") @unrecorded("allow")
            permit(principal, action in [k8s::Action::"get", k8s::Action::"list"], resource);"#;
        let facts = parse(text, Kind::Access).expect("valid");
        assert_eq!(facts.approval, ["oncall", "sre"]);
        assert_eq!(facts.redact, ["data.*", "spec.x"]);
        assert!(facts.preimage && facts.unrecorded && !facts.names_impersonate);
        assert_eq!(facts.stdin, StdinRecord::Sizes);
        assert_eq!(facts.undecodable, Undecodable::Refuse);
        let level =
            parse(r#"@level("metadata") permit(principal, action, resource);"#, Kind::Recording);
        assert_eq!(level.expect("valid").level, Level::Metadata);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let access = [
            r#"@aproval("x") permit(principal, action, resource);"#,
            r#"@approval("") permit(principal, action, resource);"#,
            r#"@approval("a,") permit(principal, action, resource);"#,
            r#"@redact("a..b") permit(principal, action, resource);"#,
            r#"@preimage("yes") permit(principal, action, resource);"#,
            r#"@stdin("none") permit(principal, action, resource);"#,
            r#"@undecodable("keep") permit(principal, action, resource);"#,
            r#"@unrecorded("allow") permit(principal, action, resource);"#,
            r#"@unrecorded("allow") permit(principal, action == k8s::Action::"create", resource);"#,
            r#"@level("none") permit(principal, action, resource);"#,
            r#"@preimage("true") forbid(principal, action, resource);"#,
        ];
        for text in access {
            assert!(parse(text, Kind::Access).is_err(), "{text}");
        }
        for text in [
            r#"@level("all") permit(principal, action, resource);"#,
            r#"@redact("a") permit(principal, action, resource);"#,
            r#"@undecodable("refuse") permit(principal, action, resource);"#,
        ] {
            assert!(parse(text, Kind::Recording).is_err(), "{text}");
        }
    }
}
