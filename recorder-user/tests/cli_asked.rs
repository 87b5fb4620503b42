//! The binary on a store that is being written, with a gateway's socket that answers badly: the rows are those
//! of the files, and why is said.

mod cli_support;

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    thread,
};

use cli_support::{Fixture, Ran, alices_session, command, ran, recorder, session};
use recorder_user::store::ROWS_VERSION;

/// Answers every connection with these bytes until it is asked to stop, while `run` runs.
fn with_socket(store: &Path, answer: &str, run: impl FnOnce() -> Ran) -> Ran {
    let path = store.join("gateway.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request = [0; 4096];
                let bytes = stream.read(&mut request).expect("readable");
                if request[..bytes].starts_with(b"stop") {
                    break;
                }
                // Whoever has read enough may be gone.
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        let ran = run();
        let mut stop = std::os::unix::net::UnixStream::connect(&path).expect("still there");
        stop.write_all(b"stop").expect("still there");
        std::fs::remove_file(&path).expect("it was made");
        ran
    })
}

fn http(status: &str, version: Option<u32>, body: &str) -> String {
    let version = version.map_or_else(String::new, |v| format!("decklog-rows-version: {v}\r\n"));
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{version}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[test]
fn a_bad_answer_is_no_hindrance() {
    let fixture = Fixture::new();
    fixture.append(alices_session());
    let directory = fixture.directory.path();
    let store = directory.join("store");
    let id = session(1).to_string();
    let refused = r#"{"error":"the access cannot be recorded"}"#;
    let no_rows = "{\"next\":null}\n";
    for (answer, why) in [
        (http("404 Not Found", None, "{}"), "another version"),
        (http("200 OK", Some(ROWS_VERSION + 1), no_rows), "another version"),
        (http("403 Forbidden", Some(ROWS_VERSION), refused), "403 Forbidden: the access cannot"),
        (http("503 Service Unavailable", Some(ROWS_VERSION), "what?"), "503"),
        (String::new(), "answers its own user and root"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(), "cannot be read"),
        // It is there, and then says something else than was asked for.
        (http("200 OK", Some(ROWS_VERSION), no_rows), "not understood"),
    ] {
        let shown = ["show", &id, "--json"];
        // Who says that no id fits is believed.
        let verbs = if why == "not understood" { 2 } else { 3 };
        for args in [&["ls", "--json"][..], &["search", "--json"], &shown].into_iter().take(verbs) {
            let plain = recorder(directory, args);
            assert_eq!((plain.code, plain.err.as_str()), (0, ""), "no socket, nothing to say");
            let ran = with_socket(&store, &answer, || recorder(directory, args));
            assert_eq!((ran.code, &ran.out), (0, &plain.out), "{args:?} {answer}: {}", ran.err);
            assert!(ran.err.contains("note: ") && ran.err.contains(why), "{why}: {}", ran.err);
            assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        }
    }
    let named = ["ls", "--json", "--socket", "/no/such.sock", "--store"];
    let ran = ran(command(&named).arg(&store).output().expect("runs"));
    assert!(ran.code == 0 && ran.err.contains("connect to /no/such.sock"), "{}", ran.err);
    drop(fixture.close());
}
