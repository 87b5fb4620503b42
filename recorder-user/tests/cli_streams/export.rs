//! Exports: golden texts, an independent reader, and that nothing is lost.

use asciicast_rs::{Asciicast, V2, V3};
use proptest::prelude::*;
use recorder_user::{
    export::{Format, Options, Selected, export},
    model::{Chunk, Direction},
    store::{Query, Reader},
};
use tempfile::TempDir;

use crate::{
    cli_support::{Fixture, Made, Part, exec, recorder, said, status, typed},
    script::{asking, made, shell, store},
};

fn check(store: &TempDir, args: &[&str], expected: &str) {
    let ran = recorder(store.path(), &[&["export", "ec01", "--format"][..], args].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out, expected, "\n--- printed\n{}\n--- expected\n{expected}", ran.out);
}

const SHELL_V3: &str = "\
{\"version\":3,\"term\":{\"cols\":20,\"rows\":4},\"timestamp\":1790000000,\"title\":\"exec shop/web-0, container app\",\"command\":\"sh\"}
[0.020000, \"o\", \"$ \"]
[0.490000, \"o\", \"ls\\r\\n\\u001b[1;34mbin\\u001b[0m  etc  tm\"]
[0.010000, \"o\", \"ü\\r\\n$ \"]
[0.980000, \"r\", \"30x5\"]
[0.510000, \"o\", \"progress\\r\\n 10 %\"]
[0.010000, \"o\", \"\\r 50 %\"]
[0.010000, \"o\", \"\\r100 %\\r\\n$ \"]
[57.980000, \"o\", \"exit\\r\\n\"]
[0.010000, \"x\", \"0\"]
";

const SHELL_V2_INPUT: &str = "\
{\"version\":2,\"width\":20,\"height\":4,\"timestamp\":1790000000,\"title\":\"exec shop/web-0, container app\",\"command\":\"sh\"}
[0.020000, \"o\", \"$ \"]
[0.500000, \"i\", \"ls\\r\"]
[0.510000, \"o\", \"ls\\r\\n\\u001b[1;34mbin\\u001b[0m  etc  tm\"]
[0.520000, \"o\", \"ü\\r\\n$ \"]
[1.500000, \"r\", \"30x5\"]
[2.000000, \"i\", \"progress\\r\"]
[2.010000, \"o\", \"progress\\r\\n 10 %\"]
[2.020000, \"o\", \"\\r 50 %\"]
[2.030000, \"o\", \"\\r100 %\\r\\n$ \"]
[60.000000, \"i\", \"\\u0004\"]
[60.010000, \"o\", \"exit\\r\\n\"]
";

#[test]
fn a_shell_as_asciicast() {
    let store = store([made(exec(true, &["sh"]), &shell())]);
    check(&store, &["asciicast-v3"], SHELL_V3);
    check(&store, &["asciicast-v2", "--stdin"], SHELL_V2_INPUT);
}

#[test]
fn a_shell_as_text_is_drawn_and_raw_is_as_it_was() {
    let store = store([made(exec(true, &["sh"]), &shell())]);
    check(&store, &["text"], "$ ls\nbin  etc  tmü\n$ progress\n100 %\n$ exit\n");
    let raw =
        "$ ls\r\n\x1b[1;34mbin\x1b[0m  etc  tmü\r\n$ progress\r\n 10 %\r 50 %\r100 %\r\n$ exit\r\n";
    check(&store, &["raw"], raw);
    check(&store, &["raw", "--channel", "stdin"], "ls\rprogress\r\x04");
    check(&store, &["text", "--channel", "stdin"], "ls\rprogress\r\x04");
}

#[test]
fn without_a_terminal_line_ends_become_those_of_one() {
    let store = store([made(exec(false, &["sh", "-c", "check; ask"]), &asking())]);
    let cast = recorder(store.path(), &["export", "ec01", "--format", "asciicast-v3"]).out;
    let cast =
        Asciicast::<V3>::from_slice(cast.as_bytes()).expect("an independent reader reads it");
    let text: String = cast.events.iter().filter_map(|event| event.as_output()).collect();
    let all = "checking €\r\nsecond\r\r\nwarning: \x1b[31mdisk\x1b[0m\r\ngo on? \0\x01\x02\x03\r\nno newline";
    assert_eq!(text, all);
    let ran = recorder(store.path(), &["export", "ec01", "--format", "text"]);
    assert_eq!(ran.out, "checking €\nsecond\r\ngo on? \0\x01\x02\x03\n");
    assert_eq!(ran.err, "note: 33 B of stderr are left out: --channel stderr has them\n");
    let stderr =
        recorder(store.path(), &["export", "ec01", "--format", "raw", "--channel", "stderr"]);
    assert_eq!(
        (stderr.out.as_str(), stderr.err.as_str()),
        ("warning: \x1b[31mdisk\x1b[0m\nno newline", "")
    );
}

#[test]
fn an_independent_reader_reads_both_versions() {
    let store = store([made(exec(true, &["sh", "-c", "a 'b'"]), &shell())]);
    let cast =
        |format| recorder(store.path(), &["export", "ec01", "--stdin", "--format", format]).out;
    let (v2, v3) = (cast("asciicast-v2"), cast("asciicast-v3"));
    let v2 = Asciicast::<V2>::from_slice(v2.as_bytes()).expect("v2");
    let v3 = Asciicast::<V3>::from_slice(v3.as_bytes()).expect("v3");
    assert_eq!((v2.header.width, v2.header.height), (20, 4));
    assert_eq!((v3.header.term.cols, v3.header.term.rows), (20, 4));
    assert_eq!(v3.header.command.as_deref(), Some(r"sh -c 'a '\''b'\'''"));
    assert_eq!(v3.header.timestamp, Some(1_790_000_000));
    let outputs = |texts: Vec<(f64, Option<String>)>| texts;
    let of_v2: Vec<_> =
        v2.absolute_times().map(|(at, event)| (at, event.as_output().map(str::to_owned))).collect();
    let of_v3: Vec<_> =
        v3.absolute_times().map(|(at, event)| (at, event.as_output().map(str::to_owned))).collect();
    let (of_v2, of_v3) = (outputs(of_v2), outputs(of_v3));
    assert_eq!(of_v3.len(), of_v2.len() + 1, "the exit");
    for ((one, text), (other, same)) in of_v2.iter().zip(&of_v3) {
        assert!((one - other).abs() < 1e-6, "{one} {other}");
        assert_eq!(text, same);
    }
    let inputs: String = v2.events.iter().filter_map(|event| event.as_input()).collect();
    assert_eq!(inputs, "ls\rprogress\r\x04");
    assert_eq!(v3.events.last().and_then(|event| event.as_exit()).map(|exit| exit.code()), Some(0));
    let resize = v3.events.iter().find_map(|event| event.as_resize()).expect("one");
    assert_eq!((resize.cols, resize.rows), (30, 5));
}

#[test]
fn long_recordings_do_not_drift() {
    // A third of a millisecond: a reader that sums rounded intervals would be off by seconds.
    let parts: Vec<_> = (1..=20_000_u64).map(|n| said(n * 333 + n % 3, 1, b".")).collect();
    let store = store([made(exec(false, &["dots"]), &parts)]);
    let cast = recorder(store.path(), &["export", "ec01", "--format", "asciicast-v3"]).out;
    let cast = Asciicast::<V3>::from_slice(cast.as_bytes()).expect("v3");
    let (at, _) = cast
        .absolute_times()
        .filter(|(_, event)| event.as_output().is_some())
        .last()
        .expect("events");
    assert!((at - 6.660_002).abs() < 1e-6, "{at}");
}

#[test]
fn exports_go_to_files_and_not_raw_to_terminals() {
    use clap::Parser as _;
    let store = store([made(exec(true, &["sh"]), &shell())]);
    let file = store.path().join("out.cast");
    let path = file.to_str().expect("text");
    let args = ["export", "ec01", "--format", "asciicast-v3", "--output", path];
    let ran = recorder(store.path(), &args);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&file).expect("written"), SHELL_V3);
    let directory = store.path().join("store");
    let on_a_terminal = |format: &str| {
        let directory = directory.to_str().expect("text");
        let args = ["recorder", "--store", directory, "export", "ec01", "--format", format];
        let cli = recorder_user::cli::Cli::try_parse_from(args).expect("well typed");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut sleep = |_| ();
        let mut screen = recorder_user::cli::Screen {
            out: &mut out,
            err: &mut err,
            look: recorder_user::cli::Look::FULL,
            json: false,
            sleep: &mut sleep,
            size: || (80, 24),
        };
        let result = recorder_user::cli::run(&cli, &mut screen);
        (result, String::from_utf8(out).expect("text"))
    };
    let (refused, out) = on_a_terminal("raw");
    let error = refused.expect_err("refused");
    assert_eq!((error.code(), out.as_str()), (2, ""));
    assert!(error.hint().expect("a next step").contains("--output"));
    for format in ["text", "asciicast-v2"] {
        let (result, out) = on_a_terminal(format);
        assert!(result.is_ok() && !out.contains('\x1b') && out.contains('ü'), "{out:?}");
    }
}

#[test]
fn what_has_no_channels_and_what_is_no_stream_is_refused() {
    let mut request = exec(false, &[]);
    request.kind = recorder_user::model::StreamKind::Proxy;
    let store = store([
        made(request, &[said(1, 1, b"x")]),
        Made::new(2, 10, "kubectl get", "get", "/version"),
    ]);
    for (id, code, error, hint) in [
        ("ec01", 2, "of kind proxy has no stdin", "recorder replay --json"),
        ("ec02", 2, "without a stream", "recorder show"),
        ("a501", 2, "is a session", "--status 101"),
        ("ffff", 1, "no session or exchange", "recorder search"),
    ] {
        let file = store.path().join("never");
        let path = file.to_str().expect("text");
        let ran = recorder(store.path(), &["export", id, "--format", "text", "--output", path]);
        assert_eq!(ran.code, code, "{id}: {}", ran.err);
        assert!(ran.err.contains(error) && ran.err.contains(hint), "{id}: {}", ran.err);
    }
}

fn exported(reader: &Reader, options: &Options) -> Vec<u8> {
    let rows = reader.catalog().expect("rows").search(&Query::default()).expect("rows");
    let mut out = Vec::new();
    export(reader, rows.last().expect("a row"), options, &mut out).expect("exported");
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the pieces in which bytes came, and however the connection was cut into chunks.
    #[test]
    fn exports_have_every_byte(
        pieces in proptest::collection::vec(
            (1_u8..=2, proptest::collection::vec(
                prop_oneof![Just(0xe2), Just(0x82), Just(0xac), Just(b'\n'), any::<u8>()], 0..200,
            )),
            0..20,
        ),
        cuts in proptest::collection::vec(1_usize..64, 1..8),
    ) {
        let channel = |wanted: u8| -> Vec<u8> {
            pieces.iter().filter(|(channel, _)| *channel == wanted)
                .flat_map(|(_, bytes)| bytes.clone()).collect()
        };
        let parts: Vec<Part> = pieces.iter().zip(1..)
            .map(|((channel, bytes), at_us)| said(at_us, *channel, bytes)).collect();
        let wire: Vec<u8> = parts.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
        let mut made = made(exec(false, &["sh"]), &parts);
        made.chunks = chunks(&made, &wire, &cuts);
        let fixture = Fixture::new();
        fixture.append(made.into_records());
        let store = fixture.close();
        let reader = Reader::open(&store.path().join("store")).expect("a store");
        let options = |format, channel| Options { format, channel, input: false };
        let stdout = channel(1);
        prop_assert_eq!(&exported(&reader, &options(Format::Raw, None)), &stdout);
        let text = exported(&reader, &options(Format::Text, None));
        prop_assert_eq!(String::from_utf8(text).expect("text"), String::from_utf8_lossy(&stdout));
        prop_assert_eq!(exported(&reader, &options(Format::Raw, Some(Selected::Stderr))), channel(2));
        let only = options(Format::Asciicast(recorder_user::export::CastVersion::V3), Some(Selected::Stdout));
        let cast = exported(&reader, &only);
        let cast = Asciicast::<V3>::from_slice(&cast).expect("an independent reader reads it");
        let drawn: String = cast.events.iter().filter_map(|event| event.as_output()).collect();
        prop_assert_eq!(drawn, String::from_utf8_lossy(&stdout).replace('\n', "\r\n"));
    }
}

fn chunks(made: &Made, wire: &[u8], cuts: &[usize]) -> Vec<Chunk> {
    let (exchange, mut offset, mut chunks) = (made.opened.exchange, 0, Vec::new());
    let mut cuts = cuts.iter().cycle();
    while offset < wire.len() {
        let end = wire.len().min(offset + cuts.next().expect("endless"));
        chunks.push(Chunk {
            exchange,
            direction: Direction::Response,
            at_us: offset as u64,
            offset: offset as u64,
            data: bytes::Bytes::copy_from_slice(&wire[offset..end]),
        });
        offset = end;
    }
    chunks
}

#[test]
fn a_typed_password_is_input_only_when_asked_for() {
    let parts = [said(1, 1, b"Password: "), typed(2, 0, b"hunter2\r"), said(3, 3, &status(0))];
    let store = store([made(exec(true, &["login"]), &parts)]);
    let without = recorder(store.path(), &["export", "ec01", "--format", "asciicast-v2"]).out;
    let with =
        recorder(store.path(), &["export", "ec01", "--format", "asciicast-v2", "--stdin"]).out;
    assert!(!without.contains("hunter2") && with.contains("[0.000002, \"i\", \"hunter2\\r\"]"));
}
