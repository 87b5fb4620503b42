//! What a policy set means: one rule a test.

use std::collections::BTreeMap;

use gateway::{
    attribute::{request_info, stream_request},
    policy::{
        BUILTIN_IMPERSONATE, BUILTIN_PROXY, BUILTIN_VERB, LoadPolicyError, PolicySet, Question,
        denied, impersonation_denied,
    },
};
use http::Method;
use recorder_user::model::{Decision, Level, Principal, RequestInfo, StdinRecord, Verdict};

fn access(text: &str) -> PolicySet {
    PolicySet::from_texts([("access/a.cedar", text)]).expect("valid")
}

fn recording(text: &str) -> PolicySet {
    let permit = "permit(principal, action, resource);";
    PolicySet::from_texts([("access/a.cedar", permit), ("recording/r.cedar", text)]).expect("valid")
}

fn principal(username: &str, groups: &[&str]) -> Principal {
    Principal {
        username: username.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Principal::default()
    }
}

fn info(request: &str) -> RequestInfo {
    let (method, target) = request.split_once(' ').expect("a method and a target");
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    request_info(&method, path, query).expect("attributable")
}

fn ask_as(set: &PolicySet, principal: &Principal, request: &str, upgraded: bool) -> Verdict {
    let info = info(request);
    let query = request.split_once('?').map(|(_, query)| query);
    let stream = stream_request(&info, query, upgraded).expect("text");
    let (info, stream, cluster, task) = (&info, stream.as_ref(), "prod", Some("T-1"));
    set.authorize(&Question { principal, info, stream, cluster, task, upgraded })
}

fn ask(set: &PolicySet, request: &str) -> Verdict {
    ask_as(set, &principal("ada", &["agents"]), request, false)
}

const ALL: &str = "permit(principal, action, resource);";

#[test]
fn nothing_is_permitted_by_default() {
    let verdict = ask(&PolicySet::from_texts([]).expect("valid"), "GET /api/v1/pods");
    assert_eq!(verdict.decision, Decision::Deny);
    assert!(verdict.policies.is_empty() && verdict.errors.is_empty());
    assert_eq!(verdict.policy_set.len(), 16);
}

#[test]
fn a_forbid_wins_and_is_named() {
    let set = PolicySet::from_texts([
        ("access/a.cedar", ALL),
        ("access/b.cedar", r#"@id("no") forbid(principal, action, resource); forbid(principal, action, resource);"#),
    ])
    .expect("valid");
    let verdict = ask(&set, "GET /api/v1/pods");
    assert_eq!(verdict.decision, Decision::Deny);
    assert_eq!(verdict.policies, ["b.cedar/no", "b.cedar/policy1"]);
    assert_eq!(ask(&access(ALL), "GET /api/v1/pods").policies, ["a.cedar/policy0"]);
}

#[test]
fn an_error_in_any_policy_is_a_deny() {
    // It does not decide: its head names another group's condition after the overflow.
    for effect in ["permit", "forbid"] {
        let text = format!(
            "{ALL} @id(\"broken\") {effect}(principal, action, resource is k8s::Resource)
             when {{ resource has name && resource.name == \"boom\" && 9223372036854775807 + 1 > 0 }};"
        );
        let set = access(&text);
        assert_eq!(ask(&set, "GET /api/v1/namespaces/n/pods/p").decision, Decision::Allow);
        let verdict = ask(&set, "GET /api/v1/namespaces/n/pods/boom");
        assert_eq!(verdict.decision, Decision::Deny, "{effect}");
        assert!(verdict.errors[0].contains("a.cedar/broken"), "{verdict:?}");
        let message = denied(&principal("ada", &[]), &info("GET /api"), &verdict, false);
        assert!(message.contains("could not be evaluated"), "{message}");
    }
}

#[test]
fn what_has_no_namespace_satisfies_no_condition_on_it() {
    let set = access(
        r#"permit(principal, action, resource is k8s::Resource)
           when { resource has namespace && resource.namespace like "*" };"#,
    );
    assert_eq!(ask(&set, "GET /api/v1/namespaces/n/pods").decision, Decision::Allow);
    for request in ["GET /api/v1/pods", "GET /api/v1/nodes/n", "DELETE /api/v1/pods"] {
        assert_eq!(ask(&set, request).decision, Decision::Deny, "{request}");
    }
    // Without `has` it does not even load.
    let unguarded = r#"permit(principal, action, resource is k8s::Resource)
                       when { resource.namespace == "n" };"#;
    let error = PolicySet::from_texts([("access/a.cedar", unguarded)]).expect_err("unguarded");
    assert!(error.to_string().contains("access/a.cedar:2:"), "{error}");
}

#[test]
fn a_proxy_must_be_named() {
    let requests = [
        "GET /api/v1/namespaces/n/pods/p/proxy/x",
        "POST /api/v1/namespaces/n/services/s/proxy",
        "GET /api/v1/nodes/n/proxy/exec/a",
    ];
    // None of these means the proxies: each would also permit any other subresource.
    for broad in [
        ALL,
        r#"permit(principal, action, resource is k8s::Resource) when { resource has subresource };"#,
        r#"permit(principal, action, resource is k8s::Resource)
           unless { resource has subresource && resource.subresource == "exec" };"#,
        r#"permit(principal, action, resource is k8s::Resource) when { resource.path like "*proxy*" };"#,
        r#"permit(principal, action, resource is k8s::Resource)
           when { resource has subresource && resource.subresource like "*" };
           forbid(principal, action, resource is k8s::Resource)
           unless { resource has subresource && resource.subresource == "proxy" };"#,
    ] {
        for request in requests {
            let verdict = ask(&access(broad), request);
            assert_eq!(verdict.decision, Decision::Deny, "{broad} {request}");
            assert_eq!(verdict.policies, [BUILTIN_PROXY], "{broad} {request}");
        }
    }
    for named in [
        r#"permit(principal, action, resource is k8s::Resource)
           when { resource has subresource && resource.subresource == "proxy" };"#,
        r#"permit(principal, action, resource is k8s::Resource)
           when { resource has subresource && ["log", "proxy"].contains(resource.subresource) };"#,
    ] {
        for request in requests {
            assert_eq!(ask(&access(named), request).decision, Decision::Allow, "{named} {request}");
        }
    }
    let both = format!(
        r#"{ALL} @id("named") permit(principal, action, resource is k8s::Resource)
           when {{ resource has subresource && resource.subresource == "proxy" }};"#
    );
    assert_eq!(ask(&access(&both), requests[0]).policies, ["a.cedar/named"]);
}

#[test]
fn shells_are_created_and_unknown_verbs_denied() {
    let gets = access(r#"permit(principal, action == k8s::Action::"get", resource);"#);
    let pod = "/api/v1/namespaces/n/pods/p";
    for tail in ["exec", "attach", "portforward"] {
        for upgraded in [false, true] {
            let request = format!("GET {pod}/{tail}");
            let verdict = ask_as(&gets, &principal("ada", &[]), &request, upgraded);
            assert_eq!(verdict.decision, Decision::Deny, "{request}");
        }
    }
    assert_eq!(ask(&gets, &format!("GET {pod}/log")).decision, Decision::Allow);
    let proxy = r#"permit(principal, action == k8s::Action::"get", resource is k8s::Resource)
                   when { resource has subresource && resource.subresource == "proxy" };"#;
    let ask_proxy = |upgraded| {
        ask_as(&access(proxy), &principal("ada", &[]), &format!("GET {pod}/proxy"), upgraded)
            .decision
    };
    assert_eq!((ask_proxy(false), ask_proxy(true)), (Decision::Allow, Decision::Deny));
    for request in ["OPTIONS /api/v1/pods", "PURGE /api/v1/pods", "GET /api/v1/proxy/nodes/n"] {
        assert_eq!(ask(&access(ALL), request).policies, [BUILTIN_VERB], "{request}");
    }
}

#[test]
fn obligations_of_the_satisfied_permits_add_up() {
    let set = access(
        r#"@approval("oncall") @redact("spec.a,data.b") @stdin("sizes")
           permit(principal, action, resource);
           @approval("sre") @preimage("true") @redact("spec.a")
           permit(principal, action, resource is k8s::Resource) when { resource.resource == "pods" };
           permit(principal, action, resource is k8s::Resource) when { resource.resource == "nodes" };"#,
    );
    let held = ask(&set, "GET /api/v1/pods");
    assert_eq!(held.decision, Decision::Hold);
    assert_eq!(held.obligations.approval, ["oncall", "sre"]);
    assert_eq!(held.obligations.redact, ["data.b", "spec.a"]);
    assert!(held.obligations.preimage);
    assert_eq!(held.obligations.stdin, StdinRecord::Sizes);
    let message = denied(&principal("ada", &[]), &info("GET /api/v1/pods"), &held, false);
    assert!(message.contains("needs approval by one of: oncall, sre"), "{message}");
    // One satisfied permit without the annotation is enough.
    let allowed = ask(&set, "GET /api/v1/nodes");
    assert_eq!((allowed.decision, allowed.obligations.approval.len()), (Decision::Allow, 0));
    assert_eq!(allowed.obligations.redact, ["data.b", "spec.a"]);
}

#[test]
fn unrecorded_is_for_reads_and_never_for_secrets() {
    let set = access(
        r#"@unrecorded("allow")
           permit(principal, action in [k8s::Action::"get", k8s::Action::"list", k8s::Action::"watch"],
                  resource);
           permit(principal, action, resource);"#,
    );
    for (request, unrecorded) in [
        ("GET /api/v1/pods", true),
        ("GET /api/v1/pods?watch=1", true),
        ("GET /healthz", true),
        ("GET /api/v1/secrets", false),
        ("GET /api/v1/namespaces/n/secrets/s", false),
        ("GET /api/v1/namespaces/n/secrets?watch=1", false),
        ("GET /api/v1/namespaces/n/pods/p/exec", false),
        ("POST /api/v1/namespaces/n/pods", false),
    ] {
        let verdict = ask(&set, request);
        assert_eq!(verdict.decision, Decision::Allow, "{request}");
        assert_eq!(verdict.obligations.unrecorded, unrecorded, "{request}");
    }
    let upgraded = ask_as(&set, &principal("ada", &[]), "GET /api/v1/pods?watch=1", true);
    assert!(!upgraded.obligations.unrecorded);
}

#[test]
fn the_highest_level_wins_and_doubt_is_full() {
    let level = |text: &str, request: &str| ask(&recording(text), request).obligations.level;
    let text = r#"
        @level("none") permit(principal, action, resource is k8s::NonResourceURL);
        @level("metadata") permit(principal, action, resource is k8s::Resource)
            when { resource.resource == "leases" };
        @level("request") permit(principal, action, resource is k8s::Resource)
            when { resource has namespace && resource.namespace == "big" };
        permit(principal, action, resource is k8s::Resource) when { resource.resource == "pods" };"#;
    assert_eq!(level(text, "GET /healthz"), Level::None);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/n/leases";
    assert_eq!(level(text, &format!("GET {leases}")), Level::Metadata);
    assert_eq!(level(text, &format!("GET {}", leases.replace("/n/", "/big/"))), Level::Request);
    assert_eq!(level(text, "GET /api/v1/namespaces/big/pods"), Level::Full);
    assert_eq!(level(text, "GET /api/v1/nodes"), Level::Full, "no match");
    assert_eq!(level("", "GET /api/v1/nodes"), Level::Full, "an empty set");
    let broken = r#"@level("none") permit(principal, action, resource);
                    @level("none") permit(principal, action, resource)
                    when { 9223372036854775807 + 1 > 0 };"#;
    assert_eq!(level(broken, "GET /api/v1/nodes"), Level::Full, "an error");
    let set = recording(
        r#"@level("none") permit(principal, action, resource);
                           forbid(principal, action, resource);"#,
    );
    assert_eq!(ask(&set, "GET /api").obligations.level, Level::None, "forbids do not count");
    assert_eq!(ask(&set, "GET /api").decision, Decision::Allow, "nor do they deny");
    assert_eq!(set.warnings().len(), 1);
}

#[test]
fn principals_have_the_types_and_groups_of_kubernetes() {
    let set = access(
        r#"@id("sa") permit(principal is k8s::ServiceAccount, action, resource)
               when { principal.namespace == "ci" && principal.name == "deployer" };
           @id("node") permit(principal is k8s::Node, action, resource) when { principal.name == "n1" };
           @id("user") permit(principal == k8s::User::"ada", action, resource)
               when { principal.name == "ada" };
           @id("sas") permit(principal in k8s::Group::"system:serviceaccounts:ci", action, resource);
           @id("extra") permit(principal is k8s::User, action, resource)
               when { principal has extra && principal.extra.contains({key: "team", values: ["a"]}) };
           @id("all") permit(principal in k8s::Group::"system:authenticated", action, resource);"#,
    );
    let by = |username: &str| ask_as(&set, &principal(username, &[]), "GET /api", false).policies;
    let ids = |ids: &[&str]| ids.iter().map(|id| format!("a.cedar/{id}")).collect::<Vec<_>>();
    assert_eq!(by("system:serviceaccount:ci:deployer"), ids(&["all", "sa", "sas"]));
    assert_eq!(by("system:serviceaccount:x:deployer"), ids(&["all"]));
    assert_eq!(by("system:serviceaccount:ci"), ids(&["all"]));
    assert_eq!(by("system:node:n1"), ids(&["all", "node"]));
    assert_eq!(by("ada"), ids(&["all", "user"]));
    let extra = BTreeMap::from([("team".to_owned(), vec!["a".to_owned()])]);
    let with_extra = Principal { extra, ..principal("bob", &[]) };
    assert_eq!(ask_as(&set, &with_extra, "GET /api", false).policies, ids(&["all", "extra"]));
}

#[test]
fn a_set_tells_the_time_only_where_a_policy_looks_at_it() {
    for (condition, tells) in [
        ("context.cluster == \"know\" // now", false),
        ("context.cluster == \"prod\"", false),
        ("context.now < datetime(\"2100-01-01\")", true),
        ("context[\"now\"] < datetime(\"2100-01-01\")", true),
        ("!(context has task) || context.now > datetime(\"2020-01-01\")", true),
    ] {
        let text = format!(
            "// What to know.\npermit(principal, action, resource) when {{ {condition}\n}};"
        );
        assert_eq!(access(&text).tells_time(), tells, "{condition}");
        let full = format!("@level(\"full\")\n{text}");
        assert_eq!(recording(&full).tells_time(), tells, "{condition}");
    }
}

#[test]
fn cluster_task_time_and_selectors_can_be_asked_for() {
    let allows = |condition: &str, request: &str| {
        let text =
            format!("permit(principal, action, resource is k8s::Resource) when {{ {condition} }};");
        ask(&access(&text), request).decision == Decision::Allow
    };
    let pods = "GET /api/v1/pods?labelSelector=app+in+(a,b),x&fieldSelector=spec.nodeName%3Dn";
    assert!(allows(r#"context.cluster == "prod""#, pods));
    assert!(allows(r#"context has task && context.task == "T-1""#, pods));
    assert!(allows(r#"context.now > datetime("2020-01-01")"#, pods));
    assert!(!allows(r#"context.now < datetime("2020-01-01")"#, pods));
    let label = r#"resource has labelSelector &&
        resource.labelSelector.contains({key: "app", operator: "in", values: ["b", "a"]})"#;
    assert!(allows(label, pods));
    assert!(!allows(label, "GET /api/v1/pods"));
    assert!(!allows(label, "GET /api/v1/pods/p?labelSelector=app+in+(a,b)"), "not a list");
    let field = r#"resource has fieldSelector &&
        resource.fieldSelector.contains({field: "spec.nodeName", operator: "=", value: "n"})"#;
    assert!(allows(field, pods));
    assert!(!allows(field, "GET /api/v1/pods?fieldSelector=spec.nodeName!%3Dn"));
    let name = r#"resource has name && resource.name == "a""#;
    assert!(allows(name, "GET /api/v1/pods?fieldSelector=metadata.name%3Da"));
}

#[test]
fn impersonation_must_be_named_and_wholly_permitted() {
    let me = principal("ada", &["agents"]);
    let request = info("GET /api/v1/pods");
    let ask = |text: &str, claim: &Principal| {
        let (cluster, task, upgraded) = ("prod", None, false);
        let question =
            Question { principal: &me, info: &request, stream: None, cluster, task, upgraded };
        access(text).authorize_impersonation(&question, claim)
    };
    let bob = principal("bob", &[]);
    let verdict = ask(ALL, &bob);
    assert_eq!(
        (verdict.decision, verdict.policies),
        (Decision::Deny, vec![BUILTIN_IMPERSONATE.into()])
    );

    let user = r#"@id("user") permit(principal in k8s::Group::"agents",
                  action == k8s::Action::"impersonate", resource == k8s::User::"bob");"#;
    let group = r#"@id("group") permit(principal in k8s::Group::"agents",
                  action == k8s::Action::"impersonate", resource is k8s::Group)
                  when { resource.name like "viewers-*" };"#;
    assert_eq!(ask(user, &bob).decision, Decision::Allow);
    assert_eq!(ask(user, &principal("eve", &[])).decision, Decision::Deny);
    let grouped = principal("bob", &["viewers-a", "viewers-b"]);
    assert_eq!(ask(user, &grouped).decision, Decision::Deny, "the groups are not permitted");
    let verdict = ask(&format!("{user}{group}"), &grouped);
    assert_eq!(verdict.decision, Decision::Allow);
    assert_eq!(verdict.policies, ["a.cedar/group", "a.cedar/user"]);
    let one_too_many = principal("bob", &["viewers-a", "system:masters"]);
    let verdict = ask(&format!("{user}{group}"), &one_too_many);
    assert_eq!(verdict.decision, Decision::Deny);
    let message = impersonation_denied(&me, &one_too_many, &verdict);
    assert!(message.contains(r#"User "ada" cannot impersonate user "bob""#), "{message}");

    let uid = Principal { uid: Some("7".into()), ..bob.clone() };
    assert_eq!(ask(user, &uid).decision, Decision::Deny, "the uid is not permitted");
    let extra = BTreeMap::from([("scopes".to_owned(), vec!["x".to_owned()])]);
    let extra = Principal { extra, ..bob.clone() };
    assert_eq!(ask(user, &extra).decision, Decision::Deny, "the extra is not permitted");
    let rest = r#"permit(principal, action == k8s::Action::"impersonate", resource is k8s::PrincipalUID);
                  permit(principal, action == k8s::Action::"impersonate", resource is k8s::Extra)
                  when { resource.key == "scopes" && resource has value && resource.value == "x" };"#;
    assert_eq!(ask(&format!("{user}{rest}"), &uid).decision, Decision::Allow);
    assert_eq!(ask(&format!("{user}{rest}"), &extra).decision, Decision::Allow);

    let anyone = r#"permit(principal, action == k8s::Action::"impersonate", resource);"#;
    assert_eq!(ask(anyone, &me).decision, Decision::Allow, "oneself");
    let account = principal("system:serviceaccount:ci:deployer", &[]);
    let accounts = r#"permit(principal, action == k8s::Action::"impersonate",
                      resource is k8s::ServiceAccount) when { resource.namespace == "ci" };"#;
    assert_eq!(ask(accounts, &account).decision, Decision::Allow);
    assert_eq!(ask(accounts, &bob).decision, Decision::Deny);
}

#[test]
fn messages_name_the_operation_and_the_policies() {
    let ada = principal("ada", &[]);
    let message = |text: &str, request: &str| {
        let set = PolicySet::from_texts([("access/production.cedar", text)]).expect("valid");
        let verdict = ask_as(&set, &ada, request, false);
        denied(&ada, &info(request), &verdict, false).replace(set.hash(), "HASH")
    };
    let forbid = r#"@id("no-deletes") forbid(principal, action, resource);"#;
    assert_eq!(
        message(forbid, "DELETE /api/v1/namespaces/prod/configmaps/c"),
        r#"User "ada" cannot delete resource "configmaps" in API group "" in the namespace "prod": denied by policy production.cedar/no-deletes (policy set HASH)"#
    );
    assert_eq!(
        message("", "GET /apis/apps/v1/deployments"),
        r#"User "ada" cannot list resource "deployments" in API group "apps" at the cluster scope: no policy permits it (policy set HASH)"#
    );
    assert_eq!(
        message("", "GET /api/v1/namespaces/n/pods/p/exec"),
        r#"User "ada" cannot create resource "pods/exec" in API group "" in the namespace "n": no policy permits it (policy set HASH)"#
    );
    assert_eq!(
        message("", "GET /metrics"),
        r#"User "ada" cannot get path "/metrics": no policy permits it (policy set HASH)"#
    );
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let error = PolicySet::from_texts([
        (
            "access/a.cedar",
            "permit(principal, action, resource)\nwhen { resource.nmespace == \"x\" };",
        ),
        ("access/b.cedar", "permit(principal,\n action resource);"),
        (
            "access/c.cedar",
            r#"@id("x") permit(principal, action, resource);
                              @id("x") permit(principal, action, resource);"#,
        ),
        ("access/d.cedar", "permit(principal == ?principal, action, resource);"),
        ("access/e.cedar", r#"@id("a b") permit(principal, action, resource);"#),
        ("recording/f.cedar", r#"@approval("x") permit(principal, action, resource);"#),
    ])
    .expect_err("all are bad");
    let LoadPolicyError::Invalid(problems) = &error else { panic!("{error}") };
    for file in ["a", "b", "c", "d", "e"] {
        let name = format!("access/{file}.cedar");
        assert!(problems.iter().any(|problem| problem.file == name), "{name}: {error}");
    }
    assert!(problems.iter().any(|problem| problem.file == "recording/f.cedar"), "{error}");
    assert!(error.to_string().contains("access/b.cedar:2:9"), "{error}");
}
