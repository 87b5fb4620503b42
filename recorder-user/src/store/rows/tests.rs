use super::*;
use crate::model::{Change, ExchangeOpened, ExchangeSettled, StreamKind, StreamRequest};

fn row() -> ExchangeRow {
    ExchangeRow {
        exchange: ExchangeId::from_bytes([1; 16]),
        session: Some(SessionId::from_bytes([2; 16])),
        command: Some("c1".into()),
        command_name: Some("kubectl apply".into()),
        command_line: Some("sh -c 'rm -rf /tmp'".into()),
        command_line_cut: false,
        time: Timestamp::from_micros(1_000_000),
        cluster: "prod".into(),
        task: Some("T-1".into()),
        verb: "patch".into(),
        api_group: "apps".into(),
        api_version: "v1".into(),
        resource: "deployments".into(),
        subresource: "scale".into(),
        namespace: "shop".into(),
        name: "web".into(),
        path: "/apis/apps/v1/namespaces/shop/deployments/web/scale".into(),
        user_agent: "kubectl/v1.36.0".into(),
        username: "agent-7".into(),
        subject: "sub-7".into(),
        verdict: Some(Decision::Allow),
        policies: vec!["base".into()],
        policies_omitted: 0,
        policy_set: "hash".into(),
        refusal: None,
        suppressed: 0,
        status: Some(200),
        ending: Some(Ending::Finished),
        effect: Effect::Modified,
        objects: vec![object("pod-1", "uid-1")],
        objects_omitted: 0,
        audit_id: None,
        request_bytes: 1,
        response_bytes: 2,
        timing_us: Timing::default(),
        account: AccountRow::default(),
        first: Position { segment: SegmentId::from_bytes([3; 16]), offset: 9 },
        last: None,
    }
}

fn object(name: &str, uid: &str) -> ObjectChange {
    ObjectChange {
        kind: "Pod".into(),
        namespace: "shop".into(),
        name: name.into(),
        uid: uid.into(),
        change: Change::Deleted,
    }
}

#[test]
fn each_condition_can_fail_a_row() {
    let row = row();
    let check = |query: Query, expected: bool| {
        let selected = query.selects(&row, || panic!("the row holds everything"));
        assert_eq!(selected, expected, "{query:?}");
    };
    let text = |text: &str| Some(text.to_owned());
    check(Query::default(), true);
    for (resource, expected) in [
        ("deployments", true),
        ("deployments.apps", true),
        ("deployments.apps/scale", true),
        ("deployments/scale", true),
        ("deployments/status", false),
        ("deployments.batch", false),
        ("pods", false),
    ] {
        check(Query { resource: text(resource), ..Query::default() }, expected);
    }
    for (principal, expected) in [("agent-7", true), ("sub-7", true), ("agent", false)] {
        check(Query { principal: text(principal), ..Query::default() }, expected);
    }
    for (status, expected) in [("200", true), ("2xx", true), ("404", false), ("4xx", false)] {
        let status = Some(status.parse().expect("a status"));
        check(Query { status, ..Query::default() }, expected);
    }
    for (command, expected) in
        [("c1", true), ("apply", true), ("rm -rf", true), ("c", true), ("delete", false)]
    {
        check(Query { command: text(command), ..Query::default() }, expected);
    }
    for (name, expected) in [("web", true), ("pod-1", true), ("db", false)] {
        check(Query { name: text(name), ..Query::default() }, expected);
    }
    for (uid, expected) in [("uid-1", true), ("uid", false), ("pod-1", false)] {
        check(Query { uid: text(uid), ..Query::default() }, expected);
    }
    for (group, expected) in [("apps", true), ("", false)] {
        check(Query { api_group: text(group), ..Query::default() }, expected);
    }
    check(Query { cluster: text("prod"), ..Query::default() }, true);
    check(Query { cluster: text("dev"), ..Query::default() }, false);
    check(Query { task: text("T-2"), ..Query::default() }, false);
    check(Query { verb: text("get"), ..Query::default() }, false);
    check(Query { verdict: Some(Decision::Deny), ..Query::default() }, false);
    check(Query { effect: Some(Effect::Read), ..Query::default() }, false);
    check(Query { user_agent: text("helm"), ..Query::default() }, false);
    check(Query { since: Some(row.time.plus_micros(1)), ..Query::default() }, false);
    check(Query { until: Some(row.time), ..Query::default() }, false);
    check(Query { after: Some(row.exchange), ..Query::default() }, false);
    check(Query { session: Some(SessionId::from_bytes([9; 16])), ..Query::default() }, false);
}

/// What a row has no room for is looked up in the records, and only where nothing else excludes the row.
#[test]
fn records_decide_what_a_row_leaves_out() {
    let ends = || ExchangeEnds {
        opened: Box::new(ExchangeOpened {
            stream: Some(StreamRequest {
                kind: StreamKind::Exec,
                container: None,
                command: vec!["sh".into(), "-c".into(), "the end".into()],
                stdin: false,
                stdout: true,
                stderr: true,
                tty: false,
                ports: Vec::new(),
            }),
            ..ExchangeOpened::default()
        }),
        settled: Some(Box::new(ExchangeSettled {
            objects: vec![object("pod-1", "uid-1"), object("pod-9", "uid-9")],
            ..ExchangeSettled::default()
        })),
    };
    let text = |text: &str| Some(text.to_owned());
    let check = |query: Query, expected: bool| {
        let (mut row, mut asked) = (row(), 0);
        let mut selected = |row: &ExchangeRow| {
            query.selects(row, || {
                asked += 1;
                Ok(Some(ends()))
            })
        };
        assert!(!selected(&row), "{query:?}: the row holds all");
        (row.command_line_cut, row.objects_omitted) = (true, 1);
        assert_eq!(selected(&row), expected, "{query:?}");
        assert_eq!(asked, 1, "{query:?}");
        assert!(!query.selects(&row, || Ok(None)), "{query:?}: the records are gone");
        row.verb = "list".into();
        let verb = text("patch");
        let excluded = Query { verb, ..query.clone() }.selects(&row, || panic!("it is excluded"));
        assert!(!excluded, "{query:?}");
    };
    check(Query { command: text("-c the end"), ..Query::default() }, true);
    check(Query { command: text("another end"), ..Query::default() }, false);
    check(Query { name: text("pod-9"), ..Query::default() }, true);
    check(Query { uid: text("uid-9"), ..Query::default() }, true);
    check(Query { uid: text("uid-9"), command: text("apply"), ..Query::default() }, true);
    check(Query { uid: text("uid-9"), command: text("the end"), ..Query::default() }, true);
    check(Query { uid: text("uid-8"), command: text("the end"), ..Query::default() }, false);
}

#[test]
fn the_keys_are_those_of_the_contract() {
    let json = serde_json::to_value(row()).expect("a row is JSON");
    for key in [
        "exchange",
        "session",
        "command",
        "time",
        "verb",
        "apiGroup",
        "apiVersion",
        "resource",
        "subresource",
        "namespace",
        "name",
        "path",
        "userAgent",
        "username",
        "verdict",
        "policies",
        "policySet",
        "status",
        "effect",
        "objects",
        "auditId",
        "requestBytes",
        "responseBytes",
        "timingUs",
        "account",
    ] {
        assert!(json.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(json["timingUs"]["total"], 0);
    assert_eq!(json["account"]["gapBytes"], 0);
}

#[test]
fn a_status_filter_is_checked() {
    for bad in ["", "xx", "6xx", "99", "600", "abc", "20x"] {
        assert!(bad.parse::<StatusFilter>().is_err(), "{bad}");
    }
}
