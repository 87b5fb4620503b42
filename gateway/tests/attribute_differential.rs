//! Our attribution against the API server's own answers, kept in `tests/differential/golden.jsonl` so that
//! this needs no Go. Fresh random cases are compared end to end (`examples/requestinfo.rs`).

mod attribute_cases;

use std::{collections::BTreeSet, fs, path::Path};

use attribute_cases::{Agreement, Answer, Case, compare, corpus, generate};

/// As in `tests/differential/README.md`, which says how the file is made again.
const GOLDEN_SEED: u64 = 1;
const GOLDEN_COUNT: usize = 2000;

fn golden() -> Vec<Answer> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/differential/golden.jsonl");
    let text = fs::read_to_string(path).expect("the golden file is part of the repository");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of the Go program")).collect()
}

#[test]
fn attribution_is_the_api_servers_own() {
    let answers = golden();
    let mut failures = Vec::new();
    let (mut same, mut both, mut we) = (0, 0, 0);
    for answer in &answers {
        match compare(answer) {
            Ok(Agreement::Same) => same += 1,
            Ok(Agreement::BothRefuse) => both += 1,
            Ok(Agreement::WeRefuse) => we += 1,
            Err(difference) => failures.push(difference),
        }
    }
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
    // The comparison means something only while most cases are attributed and some are refused.
    assert!(same > answers.len() / 2, "{same} of {} are attributed", answers.len());
    assert!(both > 20 && we > 100, "{both} refused by both, {we} by us");
    let streams = answers.iter().filter(|answer| answer.stream.is_some()).count();
    let errors = answers.iter().filter(|answer| answer.stream_error.is_some()).count();
    assert!(streams > 500 && errors > 50, "{streams} streams, {errors} that do not convert");
}

#[test]
fn golden_answers_are_those_of_the_cases_here() {
    let kept: BTreeSet<Case> = golden()
        .into_iter()
        .map(|answer| Case { method: answer.method, url: answer.url })
        .collect();
    let here: BTreeSet<Case> =
        corpus().into_iter().chain(generate(GOLDEN_SEED, GOLDEN_COUNT)).collect();
    assert_eq!(kept.len(), here.len(), "make the golden file again");
    assert!(kept == here, "make the golden file again");
}

#[test]
fn a_difference_is_found() {
    let line =
        r#"{"method":"GET","url":"/api/v1/pods","info":{"path":"/api/v1/pods","verb":"list"}}"#;
    let answer: Answer = serde_json::from_str(line).expect("valid");
    assert!(compare(&answer).is_err());
    let info = r#""info":{"isResourceRequest":true,"path":"/api/v1/pods/p/exec","verb":"get",
        "apiPrefix":"api","apiVersion":"v1","resource":"pods","subresource":"exec","name":"p",
        "parts":["pods","p","exec"]}"#;
    let exec = |stream: &str| {
        let url = r#""method":"GET","url":"/api/v1/pods/p/exec?command=ls""#;
        compare(&serde_json::from_str(&format!("{{{url},{info}{stream}}}")).expect("valid"))
    };
    assert!(exec(r#","stream":{"command":["ls"]}"#).is_ok());
    for stream in ["", r#","stream":{"command":["sh"]}"#, r#","streamError":"no""#] {
        assert!(exec(stream).is_err(), "{stream}");
    }
    let line = r#"{"method":"GET","url":"/api/v1/pods","error":"refused"}"#;
    let answer: Answer = serde_json::from_str(line).expect("valid");
    assert!(compare(&answer).is_err());
}
