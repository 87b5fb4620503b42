//! What the verbs print for people. The whole text is compared: it is read more often than it is written.

mod cli_support;

use std::time::Duration;

use clap::Parser as _;
use cli_support::{Fixture, Made, Ran, alice, alices_store, object, opened, recorder, session};
use recorder_user::{
    cli::{Cli, Look, Screen, run},
    model::Change,
};

fn check(ran: &Ran, expected: &str) {
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert_eq!(ran.out, expected, "\n--- printed\n{}\n--- expected\n{expected}", ran.out);
}

#[test]
fn ls_lists_sessions() {
    let store = alices_store();
    check(
        &recorder(store.path(), &["ls"]),
        "\
SESSION   STATE                      PRINCIPAL  CLUSTER  TASK     STARTED (UTC)        LASTED     EXCHANGES  DENIED  EFFECTS    ACCOUNT
0100a501  incomplete: token_expired  alice      prod     fix-123  2026-09-21 14:13:20  00:09.000  7          1       1 created  gap 120 B
",
    );
}

const REPLAY: &str = "\
session 01a0c4506c007000800000000100a501  alice (https://idp.example)  cluster prod  task fix-123
started 2026-09-21 14:13:20 UTC  incomplete: token_expired  account gap 120 B (eBPF witness, tier T1)
 00:00.000  kubectl get      list   apps/v1 deployments in shop         200  12.3 ms  complete     read
 00:01.204  kubectl apply    get    apps/v1 deployments shop/web        404  12.3 ms  complete     read
 00:01.230                   patch  apps/v1 deployments shop/web        201  35.0 ms  complete     created Deployment shop/web uid web-uid
 00:02.000  kubectl get      watch  v1 pods in shop                     200    1.5 s  complete     read, cut: the token expired
 00:02.500                   ~ ADDED Pod shop/web-0
 00:03.500                   ~ ERROR Status Unauthorized 401
 00:03.500                   ~ watch v1 pods in shop cut: the token expired, 260 B received
 00:04.100  kubectl delete   delete v1 namespaces production            403   310 µs  complete     DENIED by production.cedar/no-deletes
 00:05.000  kubectl/v1.36.0  get    /version                            200  12.3 ms  gap 120 B    read
 00:06.000  kubectl scale    patch  apps/v1 deployments/scale shop/web    -        -  unwitnessed  no outcome recorded
 00:09.000  session ended

7 exchanges in 5 commands; objects: 1 created; 1 denied
  created Deployment shop/web uid web-uid
  00:04.100 delete v1 namespaces production: DENIED by production.cedar/no-deletes
  00:06.000 patch apps/v1 deployments/scale shop/web: no outcome recorded, effect unknown
account gap 120 B
  00:05.000 get /version: 120 B missing
    body against record, response: 120 B at 4096..4216
";

#[test]
fn replay_tells_a_session_in_order() {
    let store = alices_store();
    check(&recorder(store.path(), &["replay", &session(1).to_string()]), REPLAY);
    check(&recorder(store.path(), &["replay", "a501", "--at-once"]), REPLAY);
    check(&recorder(store.path(), &["replay", "a501", "--speed", "1000"]), REPLAY);
}

#[test]
fn replay_follows_commands_and_objects() {
    let fixture = Fixture::new();
    let mut records = vec![opened(1, alice(), None)];
    let web = "/api/v1/namespaces/shop/pods/web";
    let change = |number, at_ms, command, verb, uid, change| {
        Made::new(number, at_ms, command, verb, web).settled(|settled| {
            settled.objects = vec![object("Pod", "web", uid, change)];
            settled.object_count = 1;
        })
    };
    for made in [
        change(1, 0, "kubectl apply", "create", "u1", Change::Created),
        Made::new(2, 10, "kubectl get", "get", web),
        change(3, 20, "kubectl apply", "patch", "u1", Change::Modified),
        change(4, 30, "kubectl apply", "patch", "u1", Change::Modified),
        change(5, 40, "kubectl delete", "delete", "u1", Change::Deleted),
        change(6, 50, "kubectl apply", "create", "u2", Change::Created),
        Made::new(7, 60, "kubectl delete", "deletecollection", "/api/v1/namespaces/shop/pods")
            .settled(|settled| {
                let name = |n| object("Pod", &format!("p{n}"), "", Change::Deleted);
                settled.objects = (0..5).map(name).collect();
                settled.object_count = 5;
            }),
    ] {
        records.extend(made.into_records());
    }
    fixture.append(records);
    let ran = recorder(fixture.directory.path(), &["replay", "a501"]);
    let (head, tail) = ran.out.split_once("\n\n").expect("a summary");
    let labels: Vec<_> = head.lines().skip(2).map(|line| line[12..28].trim_end()).collect();
    assert_eq!(
        labels,
        [
            "kubectl apply",
            "kubectl get",
            "kubectl apply",
            "",
            "kubectl delete",
            "kubectl apply",
            "kubectl delete"
        ]
    );
    let more = "deleted Pod shop/p0, deleted Pod shop/p1, deleted Pod shop/p2, and 2 more";
    assert!(head.ends_with(more), "{head}");
    let expected = "\
7 exchanges in 3 commands; objects: 2 created, 2 modified, 6 deleted; 0 denied
  created, modified, deleted Pod shop/web uid u1
  created Pod shop/web uid u2
  deleted Pod shop/p0
  deleted Pod shop/p1
  deleted Pod shop/p2
  deleted Pod shop/p3
  deleted Pod shop/p4
account complete
";
    assert_eq!(tail, expected, "{tail}");
}

#[test]
fn search_lists_what_matches() {
    let store = alices_store();
    check(
        &recorder(store.path(), &["search", "--verdict", "deny"]),
        "\
EXCHANGE  SESSION   TIME (UTC)           PRINCIPAL  COMMAND         REQUEST                          STATUS  LATENCY  OUTCOME                                ACCOUNT
0500ec05  0100a501  2026-09-21 14:13:24  alice      kubectl delete  delete v1 namespaces production  403     310 µs   DENIED by production.cedar/no-deletes  complete
",
    );
}

#[test]
fn show_gives_one_exchange_whole() {
    let store = alices_store();
    check(
        &recorder(store.path(), &["show", "ec03"]),
        "\
exchange   01a0c4506c007000800000000300ec03
session    01a0c4506c007000800000000100a501
time       2026-09-21T14:13:21.230000Z
who        alice (issuer https://idp.example, subject sub-1, groups agents, shop)
from       10.0.0.7:4711  kubectl/v1.36.0 (linux/amd64)
command    kubectl apply (id of kubectl apply)
task       fix-123
request    patch apps/v1 deployments shop/web
verdict    allow by base.cedar/shop (policy set set-1)
outcome    201 created Deployment shop/web uid web-uid
took       35.0 ms (identify 10 µs, authorize 20 µs, open 300 µs, upstream 9.0 ms)
audit id   audit-3
account    complete
           client socket 77: kernel 900 B in, 1800 B out; gateway 900 B in, 1800 B out; plaintext 700 B in, 1500 B out

> PATCH /apis/apps/v1/namespaces/shop/deployments/web HTTP/2
> user-agent: kubectl/v1.36.0 (linux/amd64)
> content-type: application/apply-patch+yaml

{
  \"kind\": \"Deployment\",
  \"data\": {
    \"x\": 1
  }
}
removed: 1 × data.x

< 200
< content-type: application/json

{
  \"kind\": \"Deployment\"
}
",
    );
}

#[test]
fn show_gives_a_watch_as_events() {
    let store = alices_store();
    let ran = recorder(store.path(), &["show", "ec04"]);
    let tail = ran.out.split("stream=watch\n").nth(1).expect("a response");
    assert_eq!(
        tail,
        "\n00:00.500  ADDED Pod shop/web-0\n00:01.500  ERROR Status Unauthorized 401\n"
    );
}

#[test]
fn show_gives_a_session_with_its_exchanges() {
    let store = alices_store();
    let ran = recorder(store.path(), &["show", "a501"]);
    assert_eq!(ran.code, 0);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines[2..4], ["subject sub-1", "groups  agents, shop"]);
    assert!(lines[4].starts_with("totals  "), "{}", ran.out);
    assert!(lines[5].starts_with("bytes   bodies "), "{}", ran.out);
    assert_eq!(lines[6], "");
    assert_eq!(lines.len(), 7 + 1 + 7, "{}", ran.out);
    assert!(lines[14].starts_with("0700ec07  00:06.000  patch apps/v1 deployments/scale shop/web"));
}

#[test]
fn witness_tells_what_could_be_seen() {
    let store = alices_store();
    let ran = recorder(store.path(), &["witness"]);
    let (_, tail) = ran.out.split_once('\n').expect("lines");
    assert_eq!(
        tail,
        "\
started    2026-09-21 14:13:20 UTC
tier       T1
kernel     6.12.0
self-test  passed
reason     -

HOOK         STATE
tcp_sendmsg  attached
tcp_recvmsg  not permitted
"
    );
}

/// Runs a verb as if on a terminal; gives the output and the waits in milliseconds.
fn on_a_terminal(directory: &std::path::Path, args: &[&str]) -> (String, Vec<u128>) {
    let store = directory.join("store");
    let store = store.to_str().expect("a path in UTF-8");
    let args = ["recorder", "--store", store].into_iter().chain(args.iter().copied());
    let cli = Cli::try_parse_from(args).expect("well typed");
    let (mut out, mut err, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    let mut sleep = |wait: Duration| waits.push(wait.as_millis());
    let (look, size) = (Look::FULL, || (80, 24));
    let mut screen =
        Screen { out: &mut out, err: &mut err, look, json: cli.json, sleep: &mut sleep, size };
    run(&cli, &mut screen).expect("runs");
    (String::from_utf8(out).expect("text"), waits)
}

#[test]
fn a_terminal_gets_original_timing_with_capped_pauses() {
    let store = alices_store();
    let (text, waits) = on_a_terminal(store.path(), &["replay", "a501"]);
    assert_eq!(waits, [1204, 26, 770, 500, 1000, 600, 900, 1000, 2000]);
    assert!(text.contains("\u{1b}[31mDENIED by production.cedar/no-deletes\u{1b}[0m"), "{text}");
    let (_, waits) =
        on_a_terminal(store.path(), &["replay", "a501", "--speed", "2", "--max-wait", "1s"]);
    assert_eq!(waits, [602, 13, 385, 250, 500, 300, 450, 500, 1000]);
    let (_, waits) = on_a_terminal(store.path(), &["replay", "a501", "--at-once"]);
    assert_eq!(waits, [0_u128; 0]);
}

#[test]
fn help_teaches() {
    for verb in
        ["ls", "show", "replay", "search", "follow", "export", "verify", "reindex", "witness"]
    {
        let ran = cli_support::ran(cli_support::command(&[verb, "--help"]).output().expect("runs"));
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("--store") && ran.out.contains("--json"), "{}", ran.out);
    }
    let ran = cli_support::ran(cli_support::command(&["--help"]).output().expect("runs"));
    assert!(ran.out.contains("recorder search --verdict deny --since 1h"), "{}", ran.out);
}
