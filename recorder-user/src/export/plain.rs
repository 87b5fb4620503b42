//! One channel as text or as it was.

use std::io::Write;

use super::{ExportError, Format, LeftOut, Options, Selected};
use crate::replay::stream::{Emulator, FrameKind, StreamRecording, Utf8};

pub(super) fn write(
    recording: &mut StreamRecording,
    options: &Options,
    out: &mut dyn Write,
) -> Result<LeftOut, ExportError> {
    let wanted = options.channel.unwrap_or(Selected::Stdout);
    let drawn = recording.head().has_terminal() && wanted == Selected::Stdout;
    let mut writer = match options.format {
        Format::Raw => Plain::Raw,
        _ if drawn => Plain::Drawn(Box::default()),
        _ => Plain::Text(Utf8::default()),
    };
    let mut left_out = LeftOut::default();
    while let Some(frame) = recording.next_frame()? {
        left_out.note(&frame, options);
        if let FrameKind::Resize { columns, rows } = frame.kind {
            writer.resize(columns, rows, out)?;
        }
        if let Some(data) = frame.data_of(wanted.channel()) {
            writer.data(data, out)?;
        }
    }
    if let Plain::Drawn(emulator) = &writer {
        left_out.full_screens = emulator.full_screens();
    }
    writer.finish(out)?;
    Ok(left_out)
}

enum Plain {
    Raw,
    Text(Utf8),
    /// What a terminal was sent.
    Drawn(Box<Emulator>),
}

impl Plain {
    fn data(&mut self, data: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Self::Raw => out.write_all(data),
            Self::Text(utf8) => {
                let mut text = String::new();
                utf8.push(data, &mut text);
                out.write_all(text.as_bytes())
            }
            Self::Drawn(emulator) => write_lines(out, |on_line| emulator.feed(data, on_line)),
        }
    }

    fn resize(&mut self, columns: u16, rows: u16, out: &mut dyn Write) -> std::io::Result<()> {
        let Self::Drawn(emulator) = self else { return Ok(()) };
        write_lines(out, |on_line| emulator.resize(columns, rows, on_line))
    }

    fn finish(self, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Self::Raw => Ok(()),
            Self::Text(mut utf8) => {
                let mut text = String::new();
                utf8.finish(&mut text);
                out.write_all(text.as_bytes())
            }
            Self::Drawn(emulator) => {
                emulator.finish().into_iter().try_for_each(|line| writeln!(out, "{line}"))
            }
        }
    }
}

/// Writes each line as it comes; after an error no more.
fn write_lines(
    out: &mut dyn Write,
    lines: impl FnOnce(&mut dyn FnMut(String)),
) -> std::io::Result<()> {
    let mut result = Ok(());
    lines(&mut |line| {
        if result.is_ok() {
            result = writeln!(out, "{line}");
        }
    });
    result
}
