//! The JSON of listings is a contract (design §11): exactly these keys.

mod cli_support;

use cli_support::{alices_store, exchange, recorder, session};
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Compares sets: the order of keys is no part of the contract.
fn check_keys(value: &Value, expected: &str) {
    let mut expected: Vec<_> = expected.split_whitespace().collect();
    let mut found = keys(value);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn ls_has_the_fields_of_the_contract() {
    let store = alices_store();
    let lines = recorder(store.path(), &["ls", "--json"]).objects();
    let [line] = lines.as_slice() else { panic!("one session: {lines:?}") };
    check_keys(
        line,
        "session state reason cluster task kind principal started ended exchanges denied effects account tracks",
    );
    check_keys(&line["principal"], "issuer subject username groups");
    check_keys(&line["effects"], "created modified deleted");
    check_keys(&line["account"], "state gapBytes reason");
    assert_eq!(line["session"], session(1).to_string());
    assert_eq!((&line["state"], &line["reason"]), (&"incomplete".into(), &"token_expired".into()));
    assert_eq!((&line["kind"], &line["task"]), (&"api".into(), &"fix-123".into()));
    assert_eq!(line["started"], "2026-09-21T14:13:20.000000Z");
    assert_eq!(line["ended"], "2026-09-21T14:13:29.000000Z");
    assert_eq!((&line["exchanges"], &line["denied"]), (&7.into(), &1.into()));
    assert_eq!(
        (&line["account"]["state"], &line["account"]["gapBytes"]),
        (&"gap".into(), &120.into())
    );
}

const EXCHANGE_KEYS: &str = "exchange session command time verb apiGroup apiVersion resource \
    subresource namespace name path userAgent username verdict policies policySet status effect \
    objects auditId requestBytes responseBytes timingUs account";

#[test]
fn search_has_the_fields_of_the_contract() {
    let store = alices_store();
    let lines = recorder(store.path(), &["search", "--json"]).objects();
    assert_eq!(lines.len(), 7);
    for line in &lines {
        check_keys(line, EXCHANGE_KEYS);
        check_keys(&line["timingUs"], "identify authorize open upstream total");
        check_keys(&line["account"], "state gapBytes reason");
    }
    let line = &lines[2];
    assert_eq!(line["time"], "2026-09-21T14:13:21.230000Z");
    assert_eq!(line["command"], "id of kubectl apply");
    assert_eq!(line["path"], "/apis/apps/v1/namespaces/shop/deployments/web");
    check_keys(&line["objects"][0], "kind namespace name uid change");
    assert_eq!(line["objects"][0]["change"], "created");
    assert_eq!(line["timingUs"]["total"], 35_000);
    assert_eq!((&lines[6]["status"], &lines[6]["effect"]), (&Value::Null, &"unknown".into()));
}

#[test]
fn search_pages_by_cursor() {
    let store = alices_store();
    let mut found = Vec::new();
    let mut after = None::<String>;
    loop {
        let mut args = vec!["search", "--json", "--limit", "3"];
        args.extend(after.iter().flat_map(|after| ["--after", after.as_str()]));
        let ran = recorder(store.path(), &args);
        assert_eq!(ran.code, 0, "{}", ran.err);
        found.extend(ran.objects().iter().map(|line| line["exchange"].clone()));
        let Some((_, cursor)) = ran.err.trim().split_once("--after ") else { break };
        after = Some(cursor.to_owned());
    }
    let all: Vec<Value> = (1..=7).map(|number| exchange(number).to_string().into()).collect();
    assert_eq!(found, all);
}

#[test]
fn each_filter_selects() {
    let store = alices_store();
    let session = session(1).to_string();
    for (args, expected) in [
        (&["--session", &session[..]][..], &[1, 2, 3, 4, 5, 6, 7][..]),
        (&["--session", "a501", "--verb", "patch"], &[3, 7]),
        (&["--principal", "alice", "--resource", "deployments"], &[1, 2, 3, 7]),
        (&["--principal", "bob"], &[]),
        (&["--task", "fix-123", "--name", "production"], &[5]),
        (&["--namespace", "shop", "--resource", "pods"], &[4]),
        (&["--user-agent", "v1.36", "--status", "404"], &[2]),
        (&["--status", "4xx"], &[2, 5]),
        (&["--verdict", "deny"], &[5]),
        (&["--effect", "created"], &[3]),
        (&["--effect", "unknown"], &[7]),
        (&["--command", "apply"], &[2, 3]),
        (&["--uid", "web-uid"], &[3]),
        (&["--uid", "web"], &[]),
        (&["--api-group", "apps"], &[1, 2, 3, 7]),
        (&["--api-group", "", "--namespace", "shop"], &[4]),
        (&["--cluster", "prod", "--verb", "watch"], &[4]),
        (&["--cluster", "dev"], &[]),
        (&["--since", "2026-09-21T14:13:25Z"], &[6, 7]),
        (&["--until", "2026-09-21T14:13:21Z"], &[1]),
        (&["--since", "2026-09-22"], &[]),
        (&["--limit", "0"], &[1, 2, 3, 4, 5, 6, 7]),
        (&["--limit", "2", "--after", &exchange(3).to_string()], &[4, 5]),
    ] {
        let args: Vec<_> = ["search", "--json"].iter().chain(args).copied().collect();
        let found: Vec<_> = recorder(store.path(), &args)
            .objects()
            .iter()
            .map(|line| line["exchange"].as_str().expect("text").to_owned())
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|number| exchange(*number).to_string()).collect();
        assert_eq!(found, expected, "{args:?}");
    }
}

#[test]
fn show_has_all_that_is_kept() {
    let store = alices_store();
    let shown = recorder(store.path(), &["show", "ec03", "--json"]).objects().remove(0);
    for key in EXCHANGE_KEYS.split_whitespace() {
        assert!(shown.get(key).is_some(), "{key}");
    }
    assert_eq!(shown["requestHead"]["method"], "PATCH");
    assert_eq!(shown["requestBody"]["text"], r#"{"kind":"Deployment","data":{"x":1}}"#);
    assert_eq!(shown["requestBody"]["facts"]["removed"][0]["path"], "data.x");
    assert_eq!(shown["responseBody"]["truncated"], false);
    assert_eq!(shown["evidence"]["client"]["kernelInBytes"], 900);
    let shown = recorder(store.path(), &["show", "ec04", "--json"]).objects().remove(0);
    assert_eq!(shown["frames"][0]["type"], "ADDED");
    assert_eq!(shown["frames"][0]["atUs"], 500_000);
    assert_eq!(shown["frames"][1]["reason"], "Unauthorized 401");
    let shown = recorder(store.path(), &["show", "a501", "--json"]).objects().remove(0);
    assert_eq!(shown["exchanges"], 7, "keeps the meaning that it has in ls");
    assert_eq!(shown["exchangeRows"].as_array().expect("a list").len(), 7);
    check_keys(&shown["exchangeRows"][0], EXCHANGE_KEYS);
}

#[test]
fn replay_gives_an_event_a_line() {
    let store = alices_store();
    let lines = recorder(store.path(), &["replay", "a501", "--json"]).objects();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().expect("text")).collect();
    let expected = "session exchange exchange exchange exchange frame frame ended exchange exchange \
                    exchange end summary";
    assert_eq!(events, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        (&lines[5]["atUs"], &lines[5]["frame"]["name"]),
        (&2_500_000.into(), &"web-0".into())
    );
    assert_eq!(lines[7]["ending"], "token_expired");
    assert_eq!(lines[9]["gaps"][0]["from"], 4096);
    assert_eq!(lines[12]["objects"][0]["uid"], "web-uid");
}

#[test]
fn the_other_verbs_have_their_fields() {
    let store = alices_store();
    let line = recorder(store.path(), &["verify", "--json"]).objects().remove(0);
    check_keys(
        &line,
        "ok target segments records bodies live signaturesChecked signatures unsignedRecords prunedRecords \
         erasedRecords lockedRecords absentLinks bundle head coveredBy firstBad \
         deletedSegments deletedRecords partialBodies",
    );
    assert_eq!((&line["ok"], &line["firstBad"]), (&true.into(), &Value::Null));
    assert_eq!((&line["signaturesChecked"], &line["unsignedRecords"]), (&true.into(), &0.into()));
    let line = recorder(store.path(), &["reindex", "--json"]).objects().remove(0);
    assert_eq!(line, serde_json::json!({"sessions": 1, "exchanges": 7}));
    let line = recorder(store.path(), &["witness", "--json"]).objects().remove(0);
    assert_eq!(line["witness"]["tier"], "T1");
    assert_eq!(line["witness"]["hooks"][1]["error"], "not permitted");
}

#[test]
fn the_index_and_the_segments_give_the_same_rows() {
    let store = alices_store();
    let indexed = recorder(store.path(), &["search", "--json"]);
    std::fs::remove_dir_all(store.path().join("store/index")).expect("there is an index");
    let scanned = recorder(store.path(), &["search", "--json"]);
    assert_eq!((scanned.code, &scanned.out), (0, &indexed.out));
    assert_eq!(recorder(store.path(), &["reindex"]).code, 0);
    assert_eq!(recorder(store.path(), &["search", "--json"]).out, indexed.out);
}
