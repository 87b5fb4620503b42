//! A frame of a stream as JSON: a contract (design §11).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use crate::{
    model::MicrosSince,
    replay::stream::{FrameKind, StreamFrame, channel_word, side_word},
};

/// One frame. Which keys are there depends on `type`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameShown {
    at_us: MicrosSince,
    from: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    /// Bytes as text, or base64 and then `encoding` says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    /// How many bytes the frame stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl FrameShown {
    pub(super) fn new(frame: &StreamFrame) -> Self {
        let mut shown = Self::of_type(frame, "");
        match &frame.kind {
            FrameKind::Opened(channel) => {
                (shown.kind, shown.channel) = ("opened", Some(channel_word(*channel)));
            }
            FrameKind::Data { channel, data } => {
                (shown.kind, shown.channel) = ("data", Some(channel_word(*channel)));
                shown.payload(data);
            }
            FrameKind::Withheld { channel, bytes } => {
                (shown.kind, shown.channel) = ("withheld", Some(channel_word(*channel)));
                shown.bytes = Some(*bytes);
            }
            FrameKind::Resize { columns, rows } => {
                shown.kind = "resize";
                (shown.columns, shown.rows) = (Some(*columns), Some(*rows));
            }
            FrameKind::Status(status) => {
                shown.kind = "status";
                (shown.success, shown.exit_code) = (Some(status.success), status.exit_code);
                shown.reason = Some(status.reason.clone());
                shown.message = Some(status.message.clone());
            }
            FrameKind::Closed(channel) => {
                (shown.kind, shown.channel) = ("closed", Some(channel_word(*channel)));
            }
            FrameKind::Reset { channel, code } => {
                (shown.kind, shown.channel) = ("reset", Some(channel_word(*channel)));
                shown.code = Some(*code);
            }
            FrameKind::Ended { code } => (shown.kind, shown.code) = ("ended", Some(*code)),
            FrameKind::Undecodable { offset, reason } => {
                (shown.kind, shown.offset) = ("undecodable", Some(*offset));
                shown.reason = Some((*reason).into());
            }
            FrameKind::Doubtful { offset, reason } => {
                (shown.kind, shown.offset) = ("doubtful", Some(*offset));
                shown.reason = Some((*reason).into());
            }
            FrameKind::Raw(data) => {
                shown.kind = "raw";
                shown.payload(data);
            }
            FrameKind::Hole { from, to } => {
                (shown.kind, shown.offset) = ("hole", Some(*from));
                shown.bytes = Some(to.saturating_sub(*from));
            }
        }
        shown
    }

    fn of_type(frame: &StreamFrame, kind: &'static str) -> Self {
        Self {
            at_us: frame.at_us,
            from: side_word(frame.side),
            kind,
            channel: None,
            text: None,
            encoding: None,
            bytes: None,
            columns: None,
            rows: None,
            success: None,
            exit_code: None,
            reason: None,
            message: None,
            code: None,
            offset: None,
        }
    }

    fn payload(&mut self, data: &[u8]) {
        match std::str::from_utf8(data) {
            Ok(text) => self.text = Some(text.into()),
            Err(_) => {
                self.text = Some(BASE64_STANDARD.encode(data));
                self.encoding = Some("base64");
            }
        }
    }
}
