//! Without a terminal: lines with their times, each channel with its name.

use super::{View, remarks};
use crate::{
    cli::{
        CliError, escape,
        outlet::Outlet,
        screen::{Ink, Look, Screen},
        text, units,
    },
    model::MicrosSince,
    replay::stream::{
        CopiedFiles, FrameKind, Lines, StreamEnd, StreamFrame, StreamHead, StreamSummary, Text,
        TimedLine, channel_word,
    },
    wire::stream::{Channel, Side},
};

/// Channels that are told apart; what is beyond shares the last.
const CHANNELS_MAX: usize = 64;

pub(super) struct TimedLines {
    stdin: bool,
    /// A log has one channel, which needs no name.
    named: bool,
    channels: Vec<(Channel, Side, Lines)>,
    /// Of a `kubectl cp` the files are told, not what is in them.
    copied: Option<CopiedFiles>,
}

impl TimedLines {
    pub(super) fn new(head: &StreamHead, stdin: bool) -> Self {
        Self {
            stdin,
            named: head.agreement.is_some(),
            channels: Vec::new(),
            copied: CopiedFiles::of(head),
        }
    }

    fn lines(&mut self, channel: Channel, side: Side) -> &mut Lines {
        let known =
            self.channels.iter().position(|(one, from, _)| (*one, *from) == (channel, side));
        let place = known.unwrap_or_else(|| {
            if self.channels.len() < CHANNELS_MAX {
                self.channels.push((channel, side, Lines::default()));
            }
            self.channels.len() - 1
        });
        &mut self.channels[place].2
    }

    fn flush(&mut self, outlet: &mut Outlet, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let named = self.named;
        for (channel, side, lines) in &mut self.channels {
            let mut ready = Vec::new();
            lines.flush(|line| ready.push(line));
            for line in ready {
                outlet.line(&shown(&line, *channel, *side, named, screen.look), screen)?;
            }
        }
        Ok(())
    }
}

impl View for TimedLines {
    fn frame(
        &mut self,
        frame: &StreamFrame,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        let (at_us, side, named) = (frame.at_us, frame.side, self.named);
        if let Some(copied) = &mut self.copied {
            let known = copied.files.len();
            copied.push(frame);
            let at = screen.look.paint(Ink::Faint, &remarks::at(at_us));
            for file in &copied.files[known..] {
                outlet.line(&format!(" {at}  {}", text::copied_file(file)), screen)?;
            }
            if frame.data_of(copied.channel()).is_some() {
                return Ok(());
            }
        }
        match &frame.kind {
            FrameKind::Data { channel: Channel::Stdin, .. }
            | FrameKind::Withheld { channel: Channel::Stdin, .. }
                if !self.stdin => {}
            // What they say is told as status and size.
            FrameKind::Data { channel: Channel::Error | Channel::Resize, .. } => {}
            FrameKind::Data { channel, data } => {
                let channel = *channel;
                let mut ready = Vec::new();
                self.lines(channel, side).push(at_us, data, |line| ready.push(line));
                for line in ready {
                    outlet.line(&shown(&line, channel, side, named, screen.look), screen)?;
                }
            }
            FrameKind::Withheld { channel, bytes } => {
                let text = format!("[{}, of which only the size was kept]", units::bytes(*bytes));
                let line = prefixed(at_us, &text, *channel, side, named, screen.look);
                outlet.line(&line, screen)?;
            }
            _ => {
                if let Some(remark) = remarks::of(frame) {
                    self.flush(outlet, screen)?;
                    remarks::print(at_us, &remark, outlet, screen)?;
                }
            }
        }
        Ok(())
    }

    fn idle(&mut self, outlet: &mut Outlet, screen: &mut Screen<'_>) -> Result<(), CliError> {
        self.flush(outlet, screen)
    }

    fn finish(
        mut self: Box<Self>,
        summary: &StreamSummary,
        end: &StreamEnd,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        self.flush(outlet, screen)?;
        remarks::closing(summary, end, screen)
    }
}

fn shown(line: &TimedLine, channel: Channel, side: Side, named: bool, look: Look) -> String {
    let text = match &line.text {
        Text::Line(text) => escape::line(text).into_owned(),
        Text::Part(text) => format!("{}…", escape::line(text)),
        Text::Binary(bytes) => format!("[{} that are no text]", units::bytes(*bytes)),
    };
    prefixed(line.at_us, &text, channel, side, named, look)
}

/// Time, channel, text that is already safe.
fn prefixed(
    at_us: MicrosSince,
    text: &str,
    channel: Channel,
    side: Side,
    named: bool,
    look: Look,
) -> String {
    let at = look.paint(Ink::Faint, &remarks::at(at_us));
    if !named {
        return format!(" {at}  {text}");
    }
    let (word, ink) = match (channel, side) {
        (Channel::Stdout, _) => ("stdout".into(), Ink::Plain),
        (Channel::Stderr, _) => ("stderr".into(), Ink::Bad),
        (Channel::Stdin, _) => ("stdin".into(), Ink::Strong),
        (Channel::Unknown(0), Side::Client) => ("sent".into(), Ink::Strong),
        (Channel::Unknown(0), Side::Server) => ("answer".into(), Ink::Plain),
        (channel, _) => (channel_word(channel), Ink::Plain),
    };
    format!(" {at}  {}  {}", look.paint(ink, &format!("{word:6}")), look.paint(ink, text))
}
