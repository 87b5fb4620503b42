//! Real connections, decoded. `captures/README.md` is the format.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use recorder_user::wire::stream::{
    Agreement, Asked, Base64Carry, Channel, CommandStatus, Decoder, Event, EventKind, Protocol,
    Side,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capture {
    about: String,
    asked: String,
    upgrade: String,
    subprotocol: String,
    ports: Option<Vec<u16>>,
    parts: Vec<Part>,
    expected: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    side: String,
    base64: Option<String>,
    file: Option<String>,
    from: Option<usize>,
    bytes: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    data: Vec<Data>,
    #[serde(default)]
    sizes: Vec<(u16, u16)>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    side: String,
    channel: String,
    text: Option<String>,
    base64: Option<String>,
    bytes: Option<usize>,
    blake3: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Status {
    success: bool,
    exit_code: Option<i32>,
    reason: String,
    message: String,
}

/// What a decoder heard.
#[derive(Default)]
struct Heard {
    data: BTreeMap<(String, String), Vec<u8>>,
    carries: BTreeMap<(String, String), Base64Carry>,
    sizes: Vec<(u16, u16)>,
    status: Option<CommandStatus>,
}

fn name(side: Side) -> String {
    if side == Side::Client { "client".into() } else { "server".into() }
}

fn side(name: &str) -> Side {
    match name {
        "client" => Side::Client,
        "server" => Side::Server,
        other => panic!("no side is called {other}"),
    }
}

/// None for what stands in `status` and `sizes`.
fn channel(channel: Channel) -> Option<String> {
    match channel {
        Channel::Stdin => Some("stdin".into()),
        Channel::Stdout => Some("stdout".into()),
        Channel::Stderr => Some("stderr".into()),
        Channel::Error | Channel::Resize => None,
        Channel::Port(of) => Some(format!("port {} #{}", of.port, of.request)),
        Channel::PortError(of) => Some(format!("port error {} #{}", of.port, of.request)),
        Channel::Unknown(number) => panic!("data on the unknown channel {number}"),
    }
}

impl Heard {
    fn hear(&mut self, base64: bool, event: &Event<'_>) {
        match &event.kind {
            EventKind::Data { channel: of, data } => {
                let Some(of) = channel(*of) else { return };
                let key = (name(event.side), of);
                let all = self.data.entry(key.clone()).or_default();
                if base64 {
                    let carry = self.carries.entry(key).or_default();
                    carry.push(data, all).expect("base64");
                } else {
                    all.extend_from_slice(&data.unmasked());
                }
            }
            EventKind::Resize { columns, rows } => self.sizes.push((*columns, *rows)),
            EventKind::Status(status) => {
                assert!(self.status.replace(status.clone()).is_none(), "a second status");
            }
            EventKind::Undecodable { .. } | EventKind::Doubtful { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
}

impl Capture {
    fn agreement(&self) -> Agreement {
        let asked = match self.asked.as_str() {
            "command" => Asked::Command,
            "portForward" => Asked::PortForward,
            "other" => Asked::Other,
            other => panic!("nobody asks for {other}"),
        };
        let subprotocol = Some(self.subprotocol.as_str()).filter(|name| !name.is_empty());
        let ports = self.ports.as_deref().unwrap_or_default();
        Agreement::of(asked, &self.upgrade, subprotocol, ports)
    }

    fn parts(&self, folder: &Path) -> Vec<(Side, Vec<u8>)> {
        let bytes = |part: &Part| match (&part.base64, &part.file) {
            (Some(text), None) => STANDARD.decode(text).expect("base64"),
            (None, Some(file)) => {
                let all = fs::read(folder.join(file)).expect("the capture's file");
                let from = part.from.unwrap_or(0);
                all[from..from + part.bytes.expect("how many bytes")].to_vec()
            }
            _ => panic!("a part has either base64 or a file"),
        };
        self.parts.iter().map(|part| (side(&part.side), bytes(part))).collect()
    }

    fn check(&self, heard: &Heard, why: &str) {
        let mut data = heard.data.clone();
        for expected in &self.expected.data {
            let key = (expected.side.clone(), expected.channel.clone());
            let found = data.remove(&key).unwrap_or_else(|| panic!("{why}: nothing of {key:?}"));
            match (&expected.text, &expected.base64, &expected.blake3) {
                (Some(text), None, None) => {
                    assert_eq!(String::from_utf8_lossy(&found), *text, "{why}: {key:?}");
                }
                (None, Some(text), None) => {
                    assert_eq!(STANDARD.encode(&found), *text, "{why}: {key:?}");
                }
                (None, None, Some(hash)) => {
                    assert_eq!(Some(found.len()), expected.bytes, "{why}: {key:?}");
                    assert_eq!(blake3::hash(&found).to_hex().as_str(), hash, "{why}: {key:?}");
                }
                _ => panic!("{key:?} has either text, base64 or a hash"),
            }
        }
        assert!(data.is_empty(), "{why}: not expected: {:?}", data.keys());
        assert_eq!(heard.sizes, self.expected.sizes, "{why}");
        let status = self.expected.status.as_ref().map(|status| CommandStatus {
            success: status.success,
            exit_code: status.exit_code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        });
        assert_eq!(heard.status, status, "{why}");
    }
}

#[test]
fn captures_say_what_was_said() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut captures = 0;
    for entry in fs::read_dir(&folder).expect("captures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a capture");
        let capture: Capture = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let agreement = capture.agreement();
        assert_ne!(agreement.protocol, Protocol::Opaque, "{}", path.display());
        let base64 = matches!(
            agreement.protocol,
            Protocol::RemoteCommand { base64: true, .. }
                | Protocol::PortForwardChannels { base64: true }
        );
        let parts = capture.parts(&folder);
        for chunk in [usize::MAX, 1, 7, 4096] {
            let (mut decoder, mut heard) = (Decoder::new(agreement.clone()), Heard::default());
            for (side, bytes) in &parts {
                for part in bytes.chunks(chunk) {
                    decoder.push(*side, part, &mut |event| heard.hear(base64, &event));
                }
            }
            decoder.finish(&mut |event| heard.hear(base64, &event));
            let why = format!("{} ({}) in chunks of {chunk}", path.display(), capture.about);
            capture.check(&heard, &why);
        }
        captures += 1;
    }
    assert!(captures > 0, "no capture in {}", folder.display());
}
