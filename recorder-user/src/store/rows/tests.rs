use super::*;

fn row() -> ExchangeRow {
    ExchangeRow {
        exchange: ExchangeId::from_bytes([1; 16]),
        session: Some(SessionId::from_bytes([2; 16])),
        command: Some("c1".into()),
        command_name: Some("kubectl apply".into()),
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
        objects: Vec::new(),
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

#[test]
fn each_condition_can_fail_a_row() {
    let row = row();
    let check = |query: Query, expected: bool| {
        assert_eq!(query.matches(&row), expected, "{query:?}");
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
    for (command, expected) in [("c1", true), ("apply", true), ("delete", false)] {
        check(Query { command: text(command), ..Query::default() }, expected);
    }
    check(Query { task: text("T-2"), ..Query::default() }, false);
    check(Query { name: text("db"), ..Query::default() }, false);
    check(Query { verb: text("get"), ..Query::default() }, false);
    check(Query { verdict: Some(Decision::Deny), ..Query::default() }, false);
    check(Query { effect: Some(Effect::Read), ..Query::default() }, false);
    check(Query { user_agent: text("helm"), ..Query::default() }, false);
    check(Query { since: Some(row.time.plus_micros(1)), ..Query::default() }, false);
    check(Query { until: Some(row.time), ..Query::default() }, false);
    check(Query { after: Some(row.exchange), ..Query::default() }, false);
    check(Query { session: Some(SessionId::from_bytes([9; 16])), ..Query::default() }, false);
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
