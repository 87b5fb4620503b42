//! The shipped policies, alone and together: request → decision.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gateway::{
    attribute::{request_info, stream_request},
    policy::{PolicySet, PolicySource, Question, command},
};
use http::Method;
use recorder_user::model::{Decision, Level, Principal, StdinRecord, Undecodable, Verdict};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policy")
}

/// The set of these access files and the shipped recording policy.
fn load(names: &[&str]) -> PolicySet {
    let read = |path: String| fs::read_to_string(shipped().join(&path)).expect(&path);
    let texts: Vec<(String, String)> = names
        .iter()
        .map(|name| format!("access/{name}.cedar"))
        .chain(["recording/default.cedar".to_owned()])
        .map(|path| (path.clone(), read(path)))
        .collect();
    let texts = texts.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    PolicySet::from_texts(texts).expect("shipped policies are valid")
}

fn ask(set: &PolicySet, groups: &[&str], request: &str) -> Verdict {
    let (method, target) = request.split_once(' ').expect("a method and a target");
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let info = request_info(&method, path, query).expect("attributable");
    let principal = Principal {
        username: "ada".to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Principal::default()
    };
    let principal = &principal;
    let stream = stream_request(&info, query, false).expect("text");
    let (info, stream) = (&info, stream.as_ref());
    set.authorize(&Question { principal, info, stream, cluster: "c", task: None, upgraded: false })
}

#[track_caller]
fn check(set: &PolicySet, groups: &[&str], expected: Decision, requests: &[&str]) {
    for request in requests {
        let verdict = ask(set, groups, request);
        assert_eq!(verdict.decision, expected, "{groups:?} {request}: {verdict:?}");
        assert!(verdict.errors.is_empty(), "{request}: {verdict:?}");
        assert_eq!(verdict.obligations.level, Level::Full, "{request}");
    }
}

const DISCOVERY: &[&str] = &[
    "GET /api",
    "GET /api/v1",
    "GET /apis",
    "GET /apis/apps/v1",
    "GET /openapi/v2",
    "GET /openapi/v3/apis/apps/v1",
    "GET /version",
    "GET /healthz",
    "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "POST /apis/authentication.k8s.io/v1/selfsubjectreviews",
];

const NEVER_BROAD: &[&str] = &[
    "GET /api/v1/nodes/n/proxy/exec/a/b/c",
    "GET /api/v1/namespaces/shop/pods/p/proxy/x",
    "POST /api/v1/namespaces/shop/services/s/proxy",
    "GET /api/v1/proxy/namespaces/shop/pods/p",
    "OPTIONS /api/v1/pods",
];

#[test]
fn read_only_agents() {
    let set = load(&["read-only-agents"]);
    let groups = &["agents"];
    check(&set, groups, Decision::Allow, DISCOVERY);
    check(
        &set,
        groups,
        Decision::Allow,
        &[
            "GET /api/v1/pods",
            "HEAD /api/v1/namespaces/shop/pods/p",
            "GET /api/v1/namespaces/shop/pods?watch=1",
            "GET /api/v1/watch/pods",
            "GET /api/v1/namespaces/shop/pods/p/log?follow=true",
            "GET /api/v1/nodes",
            "GET /apis/example.com/v1/namespaces/shop/secrets/custom",
        ],
    );
    check(&set, groups, Decision::Deny, NEVER_BROAD);
    check(
        &set,
        groups,
        Decision::Deny,
        &[
            "GET /api/v1/secrets",
            "GET /api/v1/namespaces/shop/secrets/s",
            "GET /api/v1/namespaces/shop/secrets?watch=1",
            "GET /api/v1/watch/secrets",
            "POST /api/v1/namespaces/shop/pods",
            "PUT /api/v1/namespaces/shop/configmaps/c",
            "PATCH /api/v1/namespaces/shop/configmaps/c",
            "DELETE /api/v1/namespaces/shop/configmaps/c",
            "DELETE /api/v1/namespaces/shop/configmaps",
            "GET /api/v1/namespaces/shop/pods/p/exec",
            "GET /api/v1/namespaces/shop/pods/p/attach",
            "GET /api/v1/namespaces/shop/pods/p/portforward",
            "POST /api/v1/namespaces/shop/serviceaccounts/s/token",
            "GET /metrics",
            "GET /logs/kube-apiserver.log",
            "POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
        ],
    );
    check(&set, &["others"], Decision::Deny, &["GET /api/v1/pods", "GET /api"]);
    check(&set, &[], Decision::Deny, &["GET /api/v1/pods", "GET /version"]);
}

#[test]
fn namespaced_agents() {
    let set = load(&["namespaced-agents"]);
    let groups = &["agents:shop"];
    check(&set, groups, Decision::Allow, DISCOVERY);
    check(
        &set,
        groups,
        Decision::Allow,
        &[
            "GET /api/v1/namespaces/shop/pods",
            "GET /api/v1/namespaces/shop/secrets/s",
            "GET /api/v1/namespaces/shop-staging/pods?watch=1",
            "POST /apis/apps/v1/namespaces/shop/deployments",
            "PATCH /apis/apps/v1/namespaces/shop/deployments/web/scale",
            "DELETE /api/v1/namespaces/shop/configmaps/c",
            "DELETE /api/v1/namespaces/shop/configmaps",
            "POST /api/v1/namespaces/shop/pods/p/eviction",
            "GET /api/v1/namespaces/shop/pods/p/exec",
            "GET /api/v1/namespaces/shop",
        ],
    );
    check(&set, groups, Decision::Deny, NEVER_BROAD);
    check(
        &set,
        groups,
        Decision::Deny,
        &[
            "GET /api/v1/namespaces/bank/pods",
            "GET /api/v1/pods",
            "GET /api/v1/pods?fieldSelector=metadata.namespace%3Dshop",
            "GET /api/v1/nodes/shop",
            "GET /api/v1/namespaces",
            "GET /api/v1/namespaces/bank",
            "DELETE /api/v1/namespaces/shop",
            "PATCH /api/v1/namespaces/shop",
            "PUT /api/v1/namespaces/shop/finalize",
            "POST /api/v1/namespaces",
            "POST /api/v1/namespaces/shop/serviceaccounts/s/token",
            "POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
            "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        ],
    );
    check(&set, &["agents:bank"], Decision::Deny, &["GET /api/v1/namespaces/shop/pods"]);
}

#[test]
fn no_deletes_in_production() {
    let set = load(&["no-deletes-in-production", "platform", "break-glass"]);
    let deletions = &[
        "DELETE /api/v1/namespaces/production/configmaps/c",
        "DELETE /api/v1/namespaces/production/configmaps",
        "DELETE /apis/apps/v1/namespaces/production/deployments/d",
        "DELETE /apis/example.com/v1/namespaces/production/widgets?labelSelector=a",
        "POST /api/v1/namespaces/production/pods/p/eviction",
        "DELETE /api/v1/namespaces/production",
        "DELETE /api/v1/namespaces",
        "DELETE /api/v1/pods",
        "DELETE /apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com",
    ];
    check(&set, &["platform"], Decision::Deny, deletions);
    check(&set, &["break-glass"], Decision::Allow, deletions);
    check(&set, &["platform", "break-glass"], Decision::Allow, deletions);
    check(
        &set,
        &["platform"],
        Decision::Allow,
        &[
            "DELETE /api/v1/namespaces/staging/configmaps/c",
            "DELETE /api/v1/namespaces/staging/configmaps",
            "DELETE /api/v1/namespaces/staging",
            "DELETE /api/v1/nodes/production",
            "POST /api/v1/namespaces/staging/pods/p/eviction",
            "POST /api/v1/namespaces/production/pods",
            "PATCH /apis/apps/v1/namespaces/production/deployments/d",
            "GET /api/v1/namespaces/production/pods",
            "DELETE /logs",
        ],
    );
    let verdict = ask(&set, &["platform"], deletions[0]);
    assert_eq!(verdict.policies, ["no-deletes-in-production.cedar/no-deletes"]);
    let alone = load(&["no-deletes-in-production"]);
    check(&alone, &["platform", "agents"], Decision::Deny, &["GET /api/v1/pods"]);
}

#[test]
fn break_glass_and_platform() {
    let set = load(&["break-glass", "platform"]);
    let requests = &[
        "GET /api/v1/secrets",
        "DELETE /api/v1/nodes/n",
        "POST /api/v1/namespaces/shop/pods/p/exec",
        "PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/r",
        "GET /metrics",
    ];
    check(&set, &["break-glass"], Decision::Allow, requests);
    check(&set, &["platform"], Decision::Allow, requests);
    let proxies = &NEVER_BROAD[..3];
    check(&set, &["break-glass"], Decision::Allow, proxies);
    check(&set, &["platform"], Decision::Deny, NEVER_BROAD);
    // A verb that the vocabulary does not have is denied to everyone.
    check(&set, &["break-glass"], Decision::Deny, &NEVER_BROAD[3..]);
    check(&set, &["agents"], Decision::Deny, requests);
}

/// An exec in the shop's pod, as kubectl asks for it.
fn exec(words: &[&str]) -> String {
    let words: Vec<String> =
        words.iter().map(|word| format!("command={}", word.replace(' ', "%20"))).collect();
    format!("POST /api/v1/namespaces/shop/pods/p/exec?{}&stdout=true&stderr=true", words.join("&"))
}

#[test]
fn looking_into_pods() {
    let set = load(&["looking-into-pods"]);
    let groups = &["agents:looking"];
    let (look, copy) = ("looking-into-pods.cedar/look", "looking-into-pods.cedar/copy");
    for (words, by, stdin) in [
        (&["ls", "-l", "/a b"][..], look, StdinRecord::All),
        (&["cat", "/etc/passwd"], look, StdinRecord::All),
        (&["tar", "cf", "-", "/var/log"], copy, StdinRecord::Sizes),
        (&["tar", "-xmf", "-", "-C", "/tmp"], copy, StdinRecord::Sizes),
        (&["test", "-d", "/tmp"], copy, StdinRecord::Sizes),
    ] {
        let verdict = ask(&set, groups, &exec(words));
        assert_eq!(verdict.decision, Decision::Allow, "{words:?}: {verdict:?}");
        assert_eq!(verdict.policies, [by], "{words:?}");
        assert_eq!(verdict.obligations.stdin, stdin, "{words:?}");
        assert_eq!(verdict.obligations.undecodable, Undecodable::Refuse, "{words:?}");
    }
    for words in [
        &["sh"][..],
        &["sh", "-c", "ls"],
        &["ls;sh"],
        &["/tmp/ls"],
        &["env", "ls"],
        &[""],
        &["tar", "cf", "-"],
        &["tar", "cf", "- /x"],
        &["tar", "cf", "-", "--to-command=sh"],
        &["tar", "cf", "-", "-I", "sh"],
        &["tar", "cf", "-", "/x", "-Ish"],
        &["tar", "cf", "-", "-I sh"],
        &["tar", "-xmf", "-", "-C", "/x", "--to-command=sh"],
        &["tar", "-xmf", "-", "--to-command=sh", "-C", "/x"],
        &["test", "-d", "/x", "-o", "y"],
    ] {
        check(&set, groups, Decision::Deny, &[&exec(words)]);
    }
    let pod = "/api/v1/namespaces/shop/pods/p";
    for tail in [
        "exec",
        "exec?command=ls&tty=true",
        "exec?command=ls&stdin=true",
        "exec?command=sh&command=ls",
        "attach?container=web",
        "portforward?ports=80",
        "proxy/x?command=ls",
    ] {
        check(&set, groups, Decision::Deny, &[&format!("POST {pod}/{tail}")]);
    }
    check(&set, groups, Decision::Allow, &["GET /api/v1/namespaces/shop/pods/p"]);
    let elsewhere = "POST /api/v1/namespaces/bank/pods/p/exec?command=ls";
    check(&set, groups, Decision::Deny, &[elsewhere, "GET /api/v1/namespaces/shop/pods/p/log"]);
    check(&set, &["agents"], Decision::Deny, &[&exec(&["ls"])]);
}

#[test]
fn debugging() {
    let set = load(&["debugging"]);
    let groups = &["support"];
    let pod = "/api/v1/namespaces/shop/pods/p";
    let allowed = ["PATCH {}/ephemeralcontainers", "GET {}", "GET {}/log?container=debugger-1"]
        .map(|request| request.replace("{}", pod));
    for request in &allowed {
        check(&set, groups, Decision::Allow, &[request]);
        check(&set, groups, Decision::Deny, &[&request.replace("shop", "bank")]);
    }
    let attach = |query: &str| format!("POST {pod}/attach?{query}");
    check(&set, groups, Decision::Allow, &[&attach("container=debugger-x7&stdin=true&tty=true")]);
    for query in ["", "container=", "container=web", "container=web&container=debugger-x7"] {
        check(&set, groups, Decision::Deny, &[&attach(query)]);
    }
    check(
        &set,
        groups,
        Decision::Deny,
        &[
            "PATCH /api/v1/namespaces/shop/pods/p",
            "PUT /api/v1/namespaces/shop/pods/p/ephemeralcontainers",
            "POST /api/v1/namespaces/shop/pods/p/exec?command=sh&container=debugger-x7",
            "PATCH /api/v1/namespaces/shop/pods/p/status",
        ],
    );
}

#[test]
fn together_they_load_and_pass_their_own_tests() {
    let source = PolicySource::in_directory(&shipped());
    let set = PolicySet::load(&source).expect("the shipped set is valid and passes its tests");
    assert_eq!(set.warnings(), [""; 0]);
    let outcome = command::test(&shipped());
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let outcome = command::check(&shipped());
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    let both = &["agents", "agents:shop"];
    check(
        &set,
        both,
        Decision::Allow,
        &["GET /api/v1/pods", "DELETE /api/v1/namespaces/shop/pods/p"],
    );
    check(&set, both, Decision::Deny, &["DELETE /api/v1/namespaces/production"]);
}
