//! Real connections (`tests/captures`), recorded and replayed: what the two programs said is what comes out,
//! over SPDY, WebSocket, base64 and tunnel, however the connection was cut into chunks.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use recorder_user::model::{Direction, ResponseHead, StreamKind};
use serde_json::Value;

use crate::{
    cli_support::{Part, exec, recorder},
    script::{made, store},
};

/// The parts of a capture, in chunks of at most so many bytes.
fn parts(capture: &Value, folder: &Path, chunk: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    for part in capture["parts"].as_array().expect("parts") {
        let bytes = match (part["base64"].as_str(), part["file"].as_str()) {
            (Some(text), _) => BASE64_STANDARD.decode(text).expect("base64"),
            (None, Some(file)) => {
                let number = |key: &str| part[key].as_u64().unwrap_or(0) as usize;
                let all = fs::read(folder.join(file)).expect("the capture's file");
                all[number("from")..number("from") + number("bytes")].to_vec()
            }
            (None, None) => panic!("a part has bytes: {part}"),
        };
        let direction =
            if part["side"] == "client" { Direction::Request } else { Direction::Response };
        for piece in bytes.chunks(chunk) {
            parts.push((parts.len() as u64 * 1000, direction, piece.to_vec()));
        }
    }
    parts
}

/// All bytes by sender and channel, as `replay --json` tells them; sizes and the status besides.
fn told(lines: &[Value]) -> BTreeMap<(String, String), Vec<u8>> {
    let mut told = BTreeMap::<_, Vec<u8>>::new();
    for line in lines.iter().filter(|line| line["type"] == "data") {
        let text = |key: &str| line[key].as_str().expect("text").to_owned();
        let bytes = match line["encoding"].as_str() {
            Some(_) => BASE64_STANDARD.decode(text("text")).expect("base64"),
            None => text("text").into_bytes(),
        };
        told.entry((text("from"), text("channel"))).or_default().extend(bytes);
    }
    // The status and the sizes stand for them.
    told.retain(|(_, channel), _| channel != "error" && channel != "resize");
    told
}

fn check(capture: &Value, folder: &Path, chunk: usize) {
    let why = format!("{} in chunks of {chunk}", capture["about"]);
    let parts = parts(capture, folder, chunk);
    let mut request = exec(false, &["it"]);
    if capture["asked"] == "portForward" {
        request.kind = StreamKind::PortForward;
        let ports = capture["ports"].as_array().into_iter().flatten();
        request.ports = ports.map(|port| port.as_u64().expect("a port") as u16).collect();
    }
    let upgrade = capture["upgrade"].as_str().expect("text");
    let subprotocol = capture["subprotocol"].as_str().expect("text");
    let mut made = made(request, &parts).settled(|settled| settled.stream = None);
    let name = if upgrade.starts_with("SPDY") {
        "x-stream-protocol-version"
    } else {
        "sec-websocket-protocol"
    };
    let mut headers = vec![("upgrade".to_owned(), upgrade.to_owned())];
    if !subprotocol.is_empty() {
        headers.push((name.into(), subprotocol.into()));
    }
    made.started.as_mut().expect("answered").head = ResponseHead { status: 101, headers };
    let store = store([made]);
    let lines = recorder(store.path(), &["replay", "ec01", "--json"]).objects();

    let mut told = told(&lines);
    let expected = &capture["expected"];
    for data in expected["data"].as_array().expect("data") {
        let text = |key: &str| data[key].as_str().expect("text").to_owned();
        let channel = text("channel").replace("port error", "error of port");
        let key = (text("side"), channel);
        let found = told.remove(&key).unwrap_or_else(|| panic!("{why}: nothing of {key:?}"));
        match (data["text"].as_str(), data["base64"].as_str(), data["blake3"].as_str()) {
            (Some(text), ..) => assert_eq!(String::from_utf8_lossy(&found), text, "{why}: {key:?}"),
            (_, Some(text), _) => {
                assert_eq!(BASE64_STANDARD.encode(&found), text, "{why}: {key:?}");
            }
            (.., hash) => {
                assert_eq!(Some(blake3::hash(&found).to_hex().as_str()), hash, "{why}: {key:?}");
            }
        }
        if capture["asked"] == "command" {
            let args = ["export", "ec01", "--format", "raw", "--channel", &key.1, "--output"];
            let file = store.path().join("out");
            let path = file.to_str().expect("text");
            let ran = recorder(store.path(), &[&args[..], &[path]].concat());
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{why}");
            assert_eq!(fs::read(&file).expect("written"), found, "{why}: the export has the same");
        }
    }
    assert!(told.is_empty(), "{why}: not expected: {:?}", told.keys());
    for kind in ["raw", "hole", "undecodable", "doubtful"] {
        assert!(!lines.iter().any(|line| line["type"] == kind), "{why}: {kind}");
    }
    let exit = lines.last().map(|line| line["exitCode"].clone());
    assert_eq!(exit, Some(expected["status"]["exitCode"].clone()), "{why}");
}

#[test]
fn real_connections_are_replayed_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut captures = 0;
    for entry in fs::read_dir(&folder).expect("captures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a capture");
        let capture: Value = serde_json::from_str(&text).expect("JSON");
        for chunk in [usize::MAX, 61] {
            check(&capture, &folder, chunk);
        }
        captures += 1;
    }
    assert!(captures > 0, "no capture in {}", folder.display());
}
