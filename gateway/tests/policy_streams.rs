//! What policy means for exec, attach, port-forward and proxies: one rule a test.

use gateway::{
    attribute::{effective_verb, request_info, stream_request},
    policy::{BUILTIN_PROXY, PolicySet, Question, StreamDescription, command},
};
use http::Method;
use recorder_user::model::{
    Decision, Principal, StdinRecord, StreamKind, StreamRequest, Undecodable, Verdict,
};

fn access(text: &str) -> PolicySet {
    PolicySet::from_texts([("access/a.cedar", text)]).expect("valid")
}

fn when(condition: &str) -> PolicySet {
    access(&format!("permit(principal, action, resource is k8s::Resource) when {{ {condition} }};"))
}

fn ask(set: &PolicySet, request: &str, upgraded: bool) -> Verdict {
    let (method, target) = request.split_once(' ').expect("a method and a target");
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let info = request_info(&method, path, query).expect("attributable");
    let stream = stream_request(&info, query, upgraded).expect("text");
    let principal = Principal { username: "ada".to_owned(), ..Principal::default() };
    let (principal, info, stream) = (&principal, &info, stream.as_ref());
    set.authorize(&Question { principal, info, stream, cluster: "c", task: None, upgraded })
}

const POD: &str = "/api/v1/namespaces/n/pods/p";

#[track_caller]
fn permits(condition: &str, tail: &str, expected: bool) {
    let verdict = ask(&when(condition), &format!("POST {POD}/{tail}"), true);
    assert!(verdict.errors.is_empty(), "{verdict:?}");
    assert_eq!(verdict.decision == Decision::Allow, expected, "{condition} {tail}");
}

#[test]
fn a_policy_can_ask_what_a_stream_runs() {
    let exec = "exec?command=sh&command=-c&command=echo+it%27s&container=web&stdin=1&stdout=1";
    for (condition, expected) in [
        (r#"context has stream && context.stream.kind == "exec""#, true),
        (r#"context has stream && context.stream.kind == "attach""#, false),
        (
            r#"context has stream && context.stream has container &&
               context.stream.container == "web""#,
            true,
        ),
        (
            r#"context has stream && context.stream has program && context.stream.program == "sh""#,
            true,
        ),
        (r#"context has stream && context.stream.commandLine == "sh -c 'echo it'\\''s'""#, true),
        (r#"context has stream && context.stream.commandLine like "sh -c *""#, true),
        (r#"context has stream && context.stream.commandLine like "*rm*""#, false),
        (r#"context has stream && context.stream.arguments.contains("echo it's")"#, true),
        (r#"context has stream && context.stream.arguments.contains("sh")"#, false),
        (r#"context has stream && context.stream.stdin && !context.stream.tty"#, true),
        (r#"context has stream && context.stream.ports.isEmpty()"#, true),
    ] {
        permits(condition, exec, expected);
    }
    let attach = r#"context has stream && context.stream.kind == "attach" &&
                    !(context.stream has program) && context.stream.commandLine == """#;
    permits(attach, "attach?tty=true&command=sh", true);
    let forward = r#"context has stream && context.stream.kind == "portforward" &&
                     [80, 443].containsAll(context.stream.ports)"#;
    permits(forward, "portforward?ports=80,443", true);
    permits(forward, "portforward?ports=80&ports=22", false);
    permits(forward, "exec?ports=80", false);
}

#[test]
fn only_streams_have_a_stream() {
    let set = when("!(context has stream)");
    for request in ["GET /api/v1/pods", "GET /api/v1/pods?watch=1&command=ls", "POST /api/v1/nodes"]
    {
        assert_eq!(ask(&set, request, false).decision, Decision::Allow, "{request}");
    }
    assert_eq!(ask(&set, &format!("GET {POD}/log?follow=1"), false).decision, Decision::Allow);
    assert_eq!(ask(&set, &format!("GET {POD}/exec"), false).decision, Decision::Deny);
    assert_eq!(ask(&set, "GET /api/v1/pods", true).decision, Decision::Deny, "an upgrade");
}

#[test]
fn a_stream_that_may_be_missing_does_not_load_unguarded() {
    for condition in [
        r#"context.stream.kind == "exec""#,
        r#"context has stream && context.stream.program == "ls""#,
        r#"context has stream && context.stream.container == "web""#,
        r#"context has stream && context.stream.comand == "ls""#,
    ] {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        let error = PolicySet::from_texts([("access/a.cedar", text.as_str())]);
        assert!(error.is_err(), "{condition}");
    }
}

/// Verdicts are remembered; what runs is a part of the question.
#[test]
fn a_verdict_on_one_command_is_not_that_on_another() {
    let set = when(
        r#"context has stream && context.stream has program && context.stream.program == "ls""#,
    );
    for _ in 0..2 {
        for (command, expected) in [("ls", Decision::Allow), ("sh", Decision::Deny)] {
            let request = format!("POST {POD}/exec?command={command}");
            assert_eq!(ask(&set, &request, true).decision, expected, "{command}");
        }
    }
}

#[test]
fn every_upgraded_get_that_opens_something_is_created() {
    let gets = access(r#"permit(principal, action == k8s::Action::"get", resource);"#);
    let named = access(
        r#"permit(principal, action == k8s::Action::"get", resource is k8s::Resource)
           when { resource has subresource && resource.subresource == "proxy" };"#,
    );
    let creates = access(
        r#"permit(principal, action == k8s::Action::"create", resource is k8s::Resource)
           when { resource has subresource && resource.subresource == "proxy" };"#,
    );
    let broad = access("permit(principal, action, resource);");
    let kubelet = ["exec", "run", "attach", "portForward", "containerLogs"]
        .map(|verb| format!("GET /api/v1/nodes/n/proxy/{verb}/ns/pod/c?command=sh&input=1&tty=1"));
    let others = [
        format!("GET {POD}/proxy"),
        format!("GET {POD}:8080/proxy/a/b"),
        "GET /api/v1/namespaces/n/services/https:s:443/proxy/ws".to_owned(),
        "GET /api/v1/nodes/n:10250/proxy/exec/ns/pod/c".to_owned(),
        "GET /api/v1/nodes/n/proxy".to_owned(),
    ];
    for request in kubelet.iter().chain(&others) {
        for upgraded in [false, true] {
            let verdict = ask(&broad, request, upgraded);
            assert_eq!(verdict.policies, [BUILTIN_PROXY], "{request}");
            assert_eq!(ask(&gets, request, upgraded).decision, Decision::Deny, "{request}");
        }
        assert_eq!(ask(&named, request, false).decision, Decision::Allow, "{request}");
        assert_eq!(ask(&named, request, true).decision, Decision::Deny, "{request} upgraded");
        assert_eq!(ask(&creates, request, true).decision, Decision::Allow, "{request} upgraded");
        let path = request.split([' ', '?']).nth(1).expect("a path");
        let info = request_info(&Method::GET, path, None).expect("attributable");
        assert_eq!((effective_verb(&info, true), effective_verb(&info, false)), ("create", "get"));
        let stream = stream_request(&info, Some("command=sh"), true).expect("text");
        let stream = stream.expect("a proxied stream");
        assert_eq!((stream.kind, stream.command.len()), (StreamKind::Proxy, 0), "{request}");
    }
    for tail in ["exec?command=sh", "attach", "portforward"] {
        let request = format!("GET {POD}/{tail}");
        for upgraded in [false, true] {
            assert_eq!(ask(&gets, &request, upgraded).decision, Decision::Deny, "{request}");
        }
    }
}

#[test]
fn ephemeral_containers_are_a_subresource_of_their_own() {
    let pods = when(r#"resource.resource == "pods" && !(resource has subresource)"#);
    let ephemeral =
        when(r#"resource has subresource && resource.subresource == "ephemeralcontainers""#);
    let request = format!("PATCH {POD}/ephemeralcontainers");
    assert_eq!(ask(&pods, &request, false).decision, Decision::Deny);
    assert_eq!(ask(&ephemeral, &request, false).decision, Decision::Allow);
    assert_eq!(ask(&ephemeral, &format!("PATCH {POD}"), false).decision, Decision::Deny);
}

#[test]
fn what_is_done_with_a_stream_adds_up() {
    let set = access(
        r#"@stdin("sizes") permit(principal, action, resource);
           @undecodable("refuse") permit(principal, action, resource is k8s::Resource)
           when { context has stream && context.stream.stdin };"#,
    );
    let obligations = |tail: &str| ask(&set, &format!("POST {POD}/{tail}"), true).obligations;
    let both = obligations("exec?command=sh&stdin=1");
    assert_eq!((both.stdin, both.undecodable), (StdinRecord::Sizes, Undecodable::Refuse));
    let one = obligations("exec?command=sh");
    assert_eq!((one.stdin, one.undecodable), (StdinRecord::Sizes, Undecodable::Keep));
}

/// 100 KiB in one word, and in as many words as a query may have; patterns must not explode on either.
#[test]
fn long_commands_can_be_judged() {
    let patterns = when(
        r#"context has stream && context.stream.commandLine like "*a*b*a*b*a*c*" &&
           context.stream.arguments.contains("last")"#,
    );
    let many = vec!["ab".to_owned(); 9_000];
    let long = vec!["sh".to_owned(), "-c".to_owned(), "ab".repeat(50 << 10)];
    for mut words in [many, long] {
        words.push("last".to_owned());
        for (last, expected) in [("c", Decision::Allow), ("d", Decision::Deny)] {
            let command = words.iter().cloned().chain([last.to_owned()]).collect();
            assert_eq!(judge(&patterns, command).decision, expected, "{last}");
        }
    }
}

fn judge(set: &PolicySet, command: Vec<String>) -> Verdict {
    let info = request_info(&Method::POST, &format!("{POD}/exec"), None).expect("attributable");
    let stream = StreamRequest {
        kind: StreamKind::Exec,
        container: None,
        command,
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
        ports: Vec::new(),
    };
    let (principal, stream) = (&Principal::default(), Some(&stream));
    let info = &info;
    set.authorize(&Question { principal, info, stream, cluster: "c", task: None, upgraded: true })
}

#[test]
fn explain_says_what_a_stream_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = r#"@id("ls") @stdin("sizes") permit(principal, action, resource)
                  when { context has stream && context.stream.commandLine == "ls -l" };"#;
    std::fs::write(directory.path().join("a.cedar"), text).expect("written");
    let stream = StreamDescription {
        command: vec!["ls".into(), "-l".into()],
        ..StreamDescription::default()
    };
    let asked = command::ExplainRequest {
        user: "ada".into(),
        request: format!("POST {POD}/exec"),
        stream,
        ..command::ExplainRequest::default()
    };
    let outcome = command::explain(directory.path(), &asked);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    for line in [
        "allow by a.cedar/ls",
        "  stream: exec",
        r#"  command: ["ls", "-l"]"#,
        "  stdin: only its times and sizes are recorded",
    ] {
        assert!(outcome.text.lines().any(|found| found == line), "{line}: {}", outcome.text);
    }
    let wrong = command::ExplainRequest { request: format!("GET {POD}"), ..asked.clone() };
    assert_eq!(command::explain(directory.path(), &wrong).code, 2);
    let query = format!("GET {POD}/exec?command=ls&command=-l");
    let asked = command::ExplainRequest { request: query, stream: Default::default(), ..asked };
    assert_eq!(command::explain(directory.path(), &asked).code, 0);
}
