//! What `replay` and `show` tell. The whole text is compared.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use clap::Parser as _;
use recorder_user::{
    cli::{Cli, Look, Screen, run},
    model::{Chunk, Direction, Ending, Record, StdinRecord},
};

use crate::{
    cli_support::{EXEC, Made, Ran, exchange, exec, recorder, said, status, typed},
    script::{asking, made, shell, store},
};

fn check(ran: &Ran, expected: &str) {
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert_eq!(ran.out, expected, "\n--- printed\n{}\n--- expected\n{expected}", ran.out);
}

const ASKING: &str = "\
exec shop/web-0, container app  by alice  cluster prod
command sh -c 'check; ask'
started 2026-09-21 14:13:20 UTC  channel protocol 5 over WebSocket

 00:00.030  stdout  checking €
 00:00.030  stdout  second
 00:00.031  stderr  warning: \\u{1b}[31mdisk\\u{1b}[0m
 00:00.040  stdout  go on? …
 00:03.100  stdout  [5 B that are no text]
 00:03.200  stderr  no newline…

00:03.210  exit code 7
  stdout   33 B in 4 frames
  stderr   33 B in 2 frames
  stdin    4 B in 1 frame
";

#[test]
fn without_a_terminal_lines_have_times_and_channels() {
    let store = store([made(exec(false, &["sh", "-c", "check; ask"]), &asking())]);
    check(&recorder(store.path(), &["replay", "ec01"]), ASKING);
    check(&recorder(store.path(), &["replay", "ec01", "--speed", "1000"]), ASKING);
    let typed = ASKING.replace(" 00:03.100", " 00:03.000  stdin   yes\n 00:03.100");
    check(&recorder(store.path(), &["replay", "ec01", "--stdin"]), &typed);
    let late = recorder(store.path(), &["replay", "ec01", "--seek", "3s"]).out;
    let (head, tail) = late.split_once("\n\n").expect("a header");
    assert!(head.starts_with("exec shop/web-0"), "{late}");
    assert!(tail.starts_with(" 00:03.100  stdout  [5 B that are no text]\n"), "{late}");
}

#[test]
fn with_a_terminal_a_pipe_gets_the_lines_it_left() {
    let store = store([made(exec(true, &["sh"]), &shell())]);
    check(
        &recorder(store.path(), &["replay", "ec01"]),
        "\
exec shop/web-0, container app  by alice  cluster prod
command sh
started 2026-09-21 14:13:20 UTC  channel protocol 5 over WebSocket  with a terminal

$ ls
bin  etc  tmü
$ progress
100 %
$ exit

01:00.020  exit code 0
  stdout   72 B in 7 frames
  stdin    13 B in 3 frames
",
    );
}

/// Runs a verb as if on a terminal of this size; gives the output and the waits in milliseconds.
fn on_a_terminal(directory: &Path, size: fn() -> (u16, u16), args: &[&str]) -> (String, Vec<u128>) {
    let store = directory.join("store");
    let store = store.to_str().expect("a path in UTF-8");
    let args = ["recorder", "--store", store].into_iter().chain(args.iter().copied());
    let cli = Cli::try_parse_from(args).expect("well typed");
    let (mut out, mut err, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    let mut sleep = |wait: Duration| waits.push(wait.as_millis());
    let (look, json) = (Look::FULL, cli.json);
    let mut screen = Screen { out: &mut out, err: &mut err, look, json, sleep: &mut sleep, size };
    run(&cli, &mut screen).expect("runs");
    (String::from_utf8(out).expect("text"), waits)
}

/// What the operator sees in the end: their terminal is an emulator too.
fn seen(output: &str, (columns, rows): (u16, u16)) -> Vec<String> {
    let mut terminal =
        avt::Terminal::with_scrollback(columns.into(), rows.into(), None).expect("a size");
    // A tty turns line feeds into both.
    terminal.feed(output.replace("\r\n", "\n").replace('\n', "\r\n").as_str());
    terminal.screen().text()
}

#[test]
fn a_terminal_gets_the_screen_drawn_in_place() {
    let store = store([made(exec(true, &["sh"]), &shell())]);
    let size = || (80, 24);
    let (output, waits) = on_a_terminal(store.path(), size, &["replay", "ec01"]);
    assert_eq!(waits, [490, 20, 980, 500, 20, 2010, 20]);
    let lines = seen(&output, size());
    let from = lines.iter().position(|line| line == "bin  etc  tmü").expect("drawn");
    let rows: Vec<_> = lines[from..].iter().map(String::as_str).take(8).collect();
    let (status, end) = ("── 01:00.020", "01:00.020  exit code 0");
    assert_eq!(rows, ["bin  etc  tmü", "$ progress", "100 %", "$ exit", "", status, "", end]);
    let scrolled_out = lines.iter().any(|line| line.contains("$ ls"));
    assert!(!scrolled_out, "what left the screen is gone, since it is drawn in place: {lines:?}");
    assert!(output.contains("\u{1b}[1;34mbin\u{1b}[0m"), "in its colours: {output:?}");
}

#[test]
fn a_small_terminal_gets_the_part_with_the_cursor() {
    let store = store([made(exec(true, &["sh"]), &shell())]);
    let size = || (8, 4);
    let (output, _) = on_a_terminal(store.path(), size, &["replay", "ec01", "--at-once"]);
    let (_, drawn) = output.split_once("\n\n").expect("a header");
    let drawn = drawn.replace("\u{1b}[K", "");
    assert!(drawn.starts_with("$ exit\r\n\r\n\u{1b}[2m── 01:…\u{1b}[0m\r\n"), "{drawn:?}");
}

#[test]
fn holes_and_what_is_not_understood_are_said() {
    let exchange = exchange(1);
    let mut parts = asking();
    parts.truncate(3);
    let mut made = made(exec(false, &["sh"]), &parts);
    let lost = Chunk {
        exchange,
        direction: Direction::Response,
        at_us: 50_000,
        offset: made.chunks.iter().map(|chunk| chunk.data.len() as u64).sum::<u64>() + 100,
        data: Bytes::from(said(0, 1, b"after the hole\n").2),
    };
    made.chunks.push(lost);
    let store = store([made.settled(|settled| {
        settled.ending = Ending::UpstreamLost;
        settled.stream.as_mut().expect("a stream").exit_code = None;
    })]);
    let ran = recorder(store.path(), &["replay", "ec01"]);
    let (_, told) = ran.out.split_once("\n\n").expect("a header");
    assert_eq!(
        format!("\n{told}"),
        "
 00:00.030  stdout  checking €
 00:00.030  stdout  second
 00:00.031  stderr  warning: \\u{1b}[31mdisk\\u{1b}[0m
 00:00.050  ~ 100 B of the server are missing in the record, at 53..153
 18 B could not be decoded; show --json has them as they are

00:00.050  cut: the API server left half-way
  stdout   21 B in 2 frames
  stderr   23 B in 1 frame
"
    );
    let exported = recorder(store.path(), &["export", "ec01", "--format", "raw"]);
    assert_eq!(exported.out, "checking €\nsecond\r\n");
    for note in ["18 B could not be decoded", "100 B are missing", "23 B of stderr"] {
        assert!(exported.err.contains(note), "{}", exported.err);
    }
    let cast = recorder(store.path(), &["export", "ec01", "--format", "asciicast-v2"]).out;
    assert!(cast.contains("\"m\", \"100 bytes are missing in the record\""), "{cast}");
}

#[test]
fn stdin_of_which_the_size_was_kept_is_shown_as_that() {
    let parts = [typed(10_000, 0, &[0; 12]), said(20_000, 1, b"ok\n"), said(30_000, 3, &status(0))];
    let mut made = made(exec(false, &["login"]), &parts);
    made.opened.verdict.as_mut().expect("one").obligations.stdin = StdinRecord::Sizes;
    let store = store([made]);
    let ran = recorder(store.path(), &["replay", "ec01", "--stdin"]);
    assert!(
        ran.out.contains(" 00:00.010  stdin   [12 B, of which only the size was kept]\n"),
        "{}",
        ran.out
    );
    let cast = recorder(store.path(), &["export", "ec01", "--format", "asciicast-v3", "--stdin"]);
    assert!(!cast.out.contains("\"i\""), "{}", cast.out);
    assert!(cast.err.contains("12 B of stdin are left out"), "{}", cast.err);
}

#[test]
fn a_session_has_a_line_for_the_stream_and_one_for_its_end() {
    let exec = made(exec(false, &["sh", "-c", "check; ask"]), &asking());
    let exec = exec.settled(|settled| {
        settled.stream.as_mut().expect("a stream").exit_code = Some(7);
    });
    let store = store([exec]);
    let ran = recorder(store.path(), &["replay", "a501"]);
    let lines: Vec<_> = ran.out.lines().skip(2).take(3).collect();
    assert_eq!(
        lines,
        [
            " 00:00.000  kubectl exec  create v1 pods/exec shop/web-0  101  3.2 s  complete  executed",
            " 00:00.000                ~ exec sh -c 'check; ask' in container app; see it with: recorder replay 0100ec01",
            " 00:03.210                ~ exec ended, exit code 7; 11 B sent, 279 B received in 3.2 s",
        ],
        "{}",
        ran.out
    );
    let lines = recorder(store.path(), &["replay", "a501", "--json"]).objects();
    assert_eq!(lines[1]["stream"]["command"][2], "check; ask");
    assert_eq!(lines[2]["streamFacts"]["exitCode"], 7);
}

#[test]
fn show_has_the_facts_and_in_json_the_frames() {
    let store = store([made(exec(false, &["sh", "-c", "check; ask"]), &asking())]);
    let ran = recorder(store.path(), &["show", "ec01"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let (_, told) =
        ran.out.split_once("< sec-websocket-protocol: v5.channel.k8s.io\n\n").expect("a head");
    let expected = "\
exec shop/web-0, container app  by alice  cluster prod
command sh -c 'check; ask'
started 2026-09-21 14:13:20 UTC  channel protocol 5 over WebSocket

00:03.210  exit code 7
  stdout   33 B in 4 frames
  stderr   33 B in 2 frames
  stdin    4 B in 1 frame

see it with: recorder replay 0100ec01
";
    assert_eq!(told, expected);
    let shown = recorder(store.path(), &["show", "ec01", "--json"]).objects().remove(0);
    let frames = shown["frames"].as_array().expect("a list");
    assert_eq!(frames.len(), 9, "the status is there as bytes, too");
    let first = serde_json::json!({
        "atUs": 20_000, "from": "server", "type": "data", "channel": "stdout",
        "text": "Y2hlY2tpbmcg4oI=", "encoding": "base64",
    });
    assert_eq!(frames[0], first);
    let typed = serde_json::json!({
        "atUs": 3_000_000, "from": "client", "type": "data", "channel": "stdin", "text": "yes\n",
    });
    assert_eq!(frames[4], typed);
    assert_eq!((&frames[8]["type"], &frames[8]["exitCode"]), (&"status".into(), &7.into()));
    assert_eq!(shown["framesLeftOut"], 0);
    assert_eq!(shown["stream"]["request"]["command"][0], "sh");
    assert_eq!(shown["stream"]["channels"][0]["bytes"], 33);
}

#[test]
fn json_gives_a_frame_a_line() {
    let store = store([made(exec(true, &["sh"]), &shell())]);
    let lines = recorder(store.path(), &["replay", "ec01", "--json"]).objects();
    // Sizes and the status are there twice: as bytes, and as what they say.
    assert_eq!(lines.len(), 1 + shell().len() + 3 + 1);
    assert_eq!((&lines[0]["event"], &lines[0]["kind"]), (&"stream".into(), &"exec".into()));
    assert_eq!((&lines[2]["type"], &lines[2]["columns"]), (&"resize".into(), &20.into()));
    let last = lines.last().expect("lines");
    assert_eq!((&last["event"], &last["exitCode"]), (&"ended".into(), &0.into()));
    let lines = recorder(store.path(), &["replay", "ec01", "--json", "--seek", "1m"]).objects();
    assert_eq!(lines.len(), 1 + 4 + 1);
}

#[test]
fn a_log_is_told_in_lines() {
    let target = "/api/v1/namespaces/shop/pods/web-0/log?follow=true";
    let made = Made::new(2, 0, "kubectl logs", "get", target)
        .response("text/plain", &[(10_000, b"one\ntw"), (1_500_000, b"o\nthree\n")]);
    let store = store([made]);
    check(
        &recorder(store.path(), &["replay", "ec02"]),
        "\
log shop/web-0  by alice  cluster prod
started 2026-09-21 14:13:20 UTC

 00:00.010  one
 00:00.010  tw…
 00:01.500  o
 00:01.500  three

00:01.500  finished
  stdout   14 B in 2 frames
",
    );
    let raw = recorder(store.path(), &["export", "ec02", "--format", "raw"]);
    assert_eq!((raw.code, raw.out.as_str()), (0, "one\ntwo\nthree\n"));
}

#[test]
fn a_watch_is_played_alone_and_other_requests_are_not() {
    let store = crate::cli_support::alices_store();
    check(
        &recorder(store.path(), &["replay", "ec04"]),
        "\
watch v1 pods in shop  by alice  cluster prod
started 2026-09-21 14:13:22 UTC

 00:00.500  ADDED Pod shop/web-0
 00:01.500  ERROR Status Unauthorized 401

cut: the token expired
",
    );
    let ran = recorder(store.path(), &["replay", "ec03"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("hint: show it with: recorder show"), "{}", ran.err);
}

#[test]
fn a_stream_without_an_end_says_so() {
    let mut made = made(exec(false, &["sh"]), &asking()[..2]);
    made.settled = None;
    let store = store([made]);
    let ran = recorder(store.path(), &["replay", "ec01"]);
    assert!(ran.out.contains("goes on, or its end is not on record\n"), "{}", ran.out);
    let mut made = Made::new(1, 0, "kubectl exec", "create", EXEC);
    made.settled = None;
    let unanswered = crate::script::store([made]);
    let ran = recorder(unanswered.path(), &["replay", "ec01"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("no answer") && ran.err.contains("hint: "), "{}", ran.err);
}

#[test]
fn a_recording_is_not_held_in_memory_to_be_replayed() {
    // The store's reader collects at most 256 MiB of an exchange; a replay has no such end.
    let frame = Bytes::from(said(0, 1, &vec![b'x'; 1 << 20]).2);
    let record = |number: u64| {
        let data = frame.clone();
        let offset = number * data.len() as u64;
        Record::Chunk(Chunk {
            exchange: exchange(1),
            direction: Direction::Response,
            at_us: number,
            offset,
            data,
        })
    };
    let fixture = crate::cli_support::Fixture::new();
    let mut made = made(exec(false, &["cat"]), &[]);
    let settled = made.settled.take().expect("an outcome");
    fixture.append(made.into_records());
    for number in 0..260 {
        fixture.append(vec![record(number)]);
    }
    fixture.append(vec![Record::ExchangeSettled(Box::new(settled))]);
    let store = fixture.close();
    let lines = recorder(store.path(), &["show", "ec01", "--json"]).objects().remove(0);
    assert_eq!(lines["stream"]["channels"][0]["bytes"], 260_u64 << 20);
    assert_eq!(lines["framesLeftOut"], 260 - 8);
}
