//! What exec and attach say beside the bytes of the process: how it ended, and the terminal's size.

use serde::Deserialize;

use super::{
    carry::Base64Carry,
    event::{Channel, CommandStatus, Event, EventKind, Payload, Side},
};

/// Text of the error channel that is kept; more is cut off. The API server's is some hundred bytes.
pub(super) const STATUS_BYTES_MAX: usize = 64 << 10;

/// How often a text that is not whole yet may look as if it were.
const STATUS_ATTEMPTS_MAX: u32 = 16;

/// Text of one size; more ends the reading of sizes.
pub(super) const SIZE_BYTES_MAX: usize = 256;

/// The protocol whose error channel first ended with a JSON `Status`.
pub(super) const JSON_STATUS_VERSION: u8 = 4;

/// `details.causes[].reason` of the exit code, and the `Status.reason` that calls for it.
const EXIT_CODE: &str = "ExitCode";
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";

/// Follows the error and resize channels of one connection.
#[derive(Debug)]
pub(super) struct Command {
    version: u8,
    status: StatusText,
    sizes: Sizes,
    carry: Option<Carries>,
}

/// Of the base64 forms.
#[derive(Debug, Default)]
struct Carries {
    status: Base64Carry,
    sizes: Base64Carry,
}

#[derive(Debug, Default)]
struct StatusText {
    text: Vec<u8>,
    attempts: u32,
    said: bool,
}

impl Command {
    pub(super) fn new(version: u8, base64: bool) -> Self {
        Self {
            version,
            status: StatusText::default(),
            sizes: Sizes::default(),
            carry: base64.then(Carries::default),
        }
    }

    pub(super) fn version(&self) -> u8 {
        self.version
    }

    /// Takes bytes of any channel.
    pub(super) fn data(
        &mut self,
        side: Side,
        channel: Channel,
        data: &Payload<'_>,
        on: &mut dyn FnMut(Event<'_>),
    ) {
        match (side, channel) {
            (Side::Server, Channel::Error) => {
                let carry = self.carry.as_mut().map(|carries| &mut carries.status);
                self.status.push(&plain(carry, data));
            }
            (Side::Client, Channel::Resize) => {
                let carry = self.carry.as_mut().map(|carries| &mut carries.sizes);
                self.sizes.push(&plain(carry, data), &mut |columns, rows| {
                    on(Event { side, kind: EventKind::Resize { columns, rows } });
                });
            }
            _ => {}
        }
    }

    /// A message or frame of the channel ends. The status comes as one message, and nothing ends the error
    /// channel of a WebSocket but its own end, so a whole `Status` is said at once.
    pub(super) fn message_ends(
        &mut self,
        side: Side,
        channel: Channel,
        on: &mut dyn FnMut(Event<'_>),
    ) {
        if (side, channel) == (Side::Server, Channel::Error)
            && self.version >= JSON_STATUS_VERSION
            && let Some(status) = self.status.whole()
        {
            self.say(status, on);
        }
    }

    /// `side` sends nothing more on the channel, or gave it up: kubelets end all streams so.
    pub(super) fn closed(&mut self, side: Side, channel: Channel, on: &mut dyn FnMut(Event<'_>)) {
        if (side, channel) != (Side::Server, Channel::Error) {
            return;
        }
        if self.version < JSON_STATUS_VERSION && self.status.text.is_empty() {
            // Before version 4 a server says nothing of success.
            let success = CommandStatus { success: true, exit_code: Some(0), ..Default::default() };
            self.say(success, on);
        }
        self.ended(side, on);
    }

    /// Nothing more comes from `side`: what the error channel said is all.
    pub(super) fn ended(&mut self, side: Side, on: &mut dyn FnMut(Event<'_>)) {
        if side == Side::Server && !self.status.text.is_empty() {
            let status = CommandStatus::of(self.version, &self.status.text);
            self.say(status, on);
        }
    }

    fn say(&mut self, status: CommandStatus, on: &mut dyn FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.status.said, true) {
            self.status.text = Vec::new();
            on(Event { side: Side::Server, kind: EventKind::Status(status) });
        }
    }
}

fn plain(carry: Option<&mut Base64Carry>, data: &Payload<'_>) -> Vec<u8> {
    match carry {
        None => data.unmasked().into_owned(),
        Some(carry) => {
            let mut plain = Vec::new();
            // Of a message that is not base64, what comes before the fault.
            let _ = carry.push(data, &mut plain);
            plain
        }
    }
}

impl StatusText {
    fn push(&mut self, plain: &[u8]) {
        if !self.said {
            let room = STATUS_BYTES_MAX - self.text.len();
            self.text.extend_from_slice(&plain[..plain.len().min(room)]);
        }
    }

    fn whole(&mut self) -> Option<CommandStatus> {
        let text = self.text.trim_ascii();
        if !text.starts_with(b"{") || !text.ends_with(b"}") || self.attempts == STATUS_ATTEMPTS_MAX
        {
            return None;
        }
        self.attempts += 1;
        serde_json::from_slice::<JsonStatus>(text).ok().map(CommandStatus::from)
    }
}

/// The parts of a `metav1.Status` that tell how a command ended.
#[derive(Deserialize)]
struct JsonStatus {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    causes: Option<Vec<Cause>>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl From<JsonStatus> for CommandStatus {
    fn from(json: JsonStatus) -> Self {
        let success = json.status.as_deref() == Some("Success");
        let reason = json.reason.unwrap_or_default();
        let causes = json.details.and_then(|details| details.causes).unwrap_or_default();
        let exit_code = if success {
            Some(0)
        } else if reason == NON_ZERO_EXIT_CODE {
            let cause = causes.iter().find(|cause| cause.reason.as_deref() == Some(EXIT_CODE));
            cause.and_then(|cause| cause.message.as_deref()?.parse().ok())
        } else {
            None
        };
        Self { success, exit_code, reason, message: json.message.unwrap_or_default() }
    }
}

impl CommandStatus {
    /// Reads all that an error channel said, which is not empty.
    fn of(version: u8, text: &[u8]) -> Self {
        if version >= JSON_STATUS_VERSION
            && let Ok(json) = serde_json::from_slice::<JsonStatus>(text)
        {
            return json.into();
        }
        let message = String::from_utf8_lossy(text).into_owned();
        Self { success: false, exit_code: told_exit_code(&message), reason: String::new(), message }
    }
}

/// The exit code at the end of a plain text such as `command terminated with exit code 3`.
fn told_exit_code(message: &str) -> Option<i32> {
    let message = message.trim_end();
    let (_, code) =
        message.rsplit_once("exit code ").or_else(|| message.rsplit_once("exit status "))?;
    code.parse().ok()
}

/// Cuts concatenated `{"Width":80,"Height":24}` apart, as the server's JSON decoder does.
#[derive(Debug, Default)]
struct Sizes {
    object: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// What came is no size: the server stopped reading them.
    lost: bool,
}

impl Sizes {
    fn push(&mut self, plain: &[u8], on: &mut dyn FnMut(u16, u16)) {
        for byte in plain {
            if self.lost {
                return;
            }
            if self.depth == 0 && byte.is_ascii_whitespace() {
                continue;
            }
            self.object.push(*byte);
            self.follow(*byte);
            if self.depth == 0 || self.object.len() > SIZE_BYTES_MAX {
                match size(&self.object) {
                    Some((columns, rows)) => on(columns, rows),
                    None => self.lost = true,
                }
                self.object.clear();
            }
        }
    }

    fn follow(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' if !self.in_string => self.depth += 1,
            b'}' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// Width and height. Names are read without regard to case and may be missing, as Go's decoder does.
fn size(object: &[u8]) -> Option<(u16, u16)> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(object).ok()?;
    let side = |name: &str| {
        let value = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        match value {
            None | Some((_, serde_json::Value::Null)) => Some(0),
            Some((_, value)) => u16::try_from(value.as_u64()?).ok(),
        }
    };
    Some((side("width")?, side("height")?))
}
