//! Whoever was recorded chose the bytes: none of them reaches the operator's terminal as itself.

use std::time::Duration;

use clap::Parser as _;
use recorder_user::cli::{Cli, Look, Screen, escape::is_hostile, run};

use crate::{
    cli_support::{Made, Part, exec, said, status, typed},
    script::{made, store},
};

/// Clipboard, link, title, answers, cursor, full screen, C1, bidi, and bytes that are no text.
const HOSTILE: &[u8] = b"\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://evil.example/\x1b\\link\x1b]8;;\x1b\\\x1b]0;owned\x07\
    \x1b[6n\x1b[c\x1b[2J\x1b[99A\x1b[?1049h\x1b[5;5Hx\x1bPq#0\x1b\\\x1b[?1049l\xc2\x9b31m\xe2\x80\xaegnp.\xff\x9b0m\
    \x1bc\x1b[1;1H\x1b[999;999H\x1b[65535b\x07\x08\x0e\r\nend\n";

fn parts() -> Vec<Part> {
    let words = format!(
        "{{\"status\":\"Failure\",\"message\":{:?},\"reason\":\"\\u001b]0;x\"}}",
        "\u{1b}[2J\u{9b}"
    );
    vec![
        typed(1, 4, br#"{"Width":65535,"Height":65535}"#),
        said(2, 1, HOSTILE),
        said(3, 2, HOSTILE),
        typed(4, 0, HOSTILE),
        said(5, 9, HOSTILE),
        typed(6, 4, br#"{"Width":40,"Height":5}"#),
        said(7, 1, HOSTILE),
        said(8, 3, words.as_bytes()),
        said(9, 3, &status(1)),
    ]
}

/// What the verb prints, on a terminal or not.
fn printed(directory: &std::path::Path, look: Look, args: &[&str]) -> String {
    let store = directory.join("store");
    let args = ["recorder", "--store", store.to_str().expect("text")]
        .into_iter()
        .chain(args.iter().copied());
    let cli = Cli::try_parse_from(args).expect("well typed");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut sleep = |_: Duration| ();
    let (json, size) = (cli.json, || (60, 20));
    let mut screen = Screen { out: &mut out, err: &mut err, look, json, sleep: &mut sleep, size };
    run(&cli, &mut screen).unwrap_or_else(|error| panic!("{args:?}: {error}", args = cli));
    out.extend(err);
    String::from_utf8(out).expect("text")
}

/// The sequences that we write ourselves: colours, up, erase the line's end, erase below.
fn without_ours(text: &str) -> String {
    let mut rest = text;
    let mut other = String::new();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        other.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(0);
        if !matches!(after.as_bytes().get(end), Some(b'm' | b'A' | b'K' | b'J')) {
            other.push('\u{1b}');
        }
        rest = after.get(end + 1..).unwrap_or_default();
    }
    other.push_str(rest);
    other.replace('\r', "")
}

const VERBS: &[&[&str]] = &[
    &["replay", "ec01"],
    &["replay", "ec01", "--stdin"],
    &["replay", "ec01", "--json"],
    &["replay", "a501"],
    &["show", "ec01"],
    &["show", "ec01", "--json"],
    &["follow", "ec01", "--stdin"],
    &["follow", "ec01", "--json"],
    &["export", "ec01", "--format", "asciicast-v2", "--stdin"],
    &["export", "ec01", "--format", "asciicast-v3", "--stdin"],
    &["export", "ec01", "--format", "text"],
    &["export", "ec01", "--format", "text", "--channel", "stdin"],
];

#[test]
fn no_verb_gives_recorded_sequences_to_a_terminal() {
    for tty in [true, false] {
        let argv = String::from_utf8_lossy(HOSTILE).into_owned();
        let mut request = exec(tty, &["sh", &argv]);
        request.container = Some(argv);
        let store = store([made(request, &parts())]);
        for args in VERBS {
            let text = printed(store.path(), Look::FULL, args);
            let other = without_ours(&text);
            let bad = other.chars().find(|c| is_hostile(*c) && *c != '\n' && *c != '\t');
            assert_eq!(bad, None, "tty {tty}: {args:?}: {other:?}");
            assert!(text.contains("end"), "{args:?}: {text:?}");
            assert!(!other.contains("]52;c;ZXZpbA==\u{7}"), "{args:?}");
        }
        // Into a pipe there is nothing of ours either, but exports, which are data.
        for args in VERBS.iter().filter(|args| args[0] != "export") {
            let text = printed(store.path(), Look::PLAIN, args);
            let bad = text.chars().find(|c| is_hostile(*c) && *c != '\n');
            assert_eq!(bad, None, "tty {tty}: {args:?}: {text:?}");
        }
    }
}

#[test]
fn a_log_is_as_hostile_as_an_exec() {
    let target = "/api/v1/namespaces/shop/pods/web-0/log?follow=true";
    let log =
        Made::new(1, 0, "kubectl logs", "get", target).response("text/plain", &[(5, HOSTILE)]);
    let store = store([log]);
    for args in VERBS {
        let text = printed(store.path(), Look::FULL, args);
        let other = without_ours(&text);
        let bad = other.chars().find(|c| is_hostile(*c) && *c != '\n' && *c != '\t');
        assert_eq!(bad, None, "{args:?}: {other:?}");
    }
}

#[test]
fn ten_megabytes_without_a_line_end_are_told_in_pieces() {
    let line = vec![b'x'; 10 << 20];
    for tty in [true, false] {
        let parts = [said(1, 1, &line), said(2, 1, b"\nend\n"), said(3, 3, &status(0))];
        let store = store([made(exec(tty, &["yes"]), &parts)]);
        let text = printed(store.path(), Look::PLAIN, &["replay", "ec01"]);
        let longest = text.lines().map(str::len).max().expect("lines");
        assert!(longest < 128 << 10, "{longest}");
        assert!(text.matches('x').count() >= line.len() && text.contains("end"), "nothing is lost");
        let drawn = printed(store.path(), Look::FULL, &["replay", "ec01"]);
        assert!(drawn.contains("end"));
    }
}
