//! With a terminal, where nothing can be drawn: the lines that scrolled out, and the last screen.

use super::{View, remarks};
use crate::{
    cli::{CliError, escape, outlet::Outlet, screen::Screen, units},
    replay::stream::{Emulator, FrameKind, StreamEnd, StreamFrame, StreamSummary},
    wire::stream::Channel,
};

pub(super) struct Transcript {
    stdin: bool,
    emulator: Emulator,
}

impl Transcript {
    pub(super) fn new(stdin: bool) -> Self {
        Self { stdin, emulator: Emulator::default() }
    }
}

impl View for Transcript {
    fn frame(
        &mut self,
        frame: &StreamFrame,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        let mut lines = Vec::new();
        let mut result = Ok(());
        match &frame.kind {
            FrameKind::Data { channel: Channel::Stdin, data } if self.stdin => {
                let typed = String::from_utf8_lossy(data);
                let at = remarks::at(frame.at_us);
                lines.push(format!(" {at}  stdin   {}", escape::line(&typed)));
            }
            FrameKind::Withheld { bytes, .. } if self.stdin => {
                let (at, bytes) = (remarks::at(frame.at_us), units::bytes(*bytes));
                lines.push(format!(" {at}  stdin   [{bytes}, of which only the size was kept]"));
            }
            // Lines are given on as they come: one frame may hold very many.
            FrameKind::Data { channel: Channel::Stdout | Channel::Stderr, data } => {
                self.emulator.feed(data, |line| {
                    if result.is_ok() {
                        result = outlet.line(&escape::line(&line), screen);
                    }
                });
            }
            FrameKind::Resize { columns, rows } => {
                self.emulator.resize(*columns, *rows, |line| {
                    lines.push(escape::line(&line).into_owned());
                });
            }
            _ => {
                if let Some(remark) = remarks::of(frame) {
                    remarks::print(frame.at_us, &remark, outlet, screen)?;
                }
            }
        }
        result?;
        lines.iter().try_for_each(|line| outlet.line(line, screen))
    }

    fn finish(
        self: Box<Self>,
        summary: &StreamSummary,
        end: &StreamEnd,
        outlet: &mut Outlet,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        let full_screens = self.emulator.full_screens();
        let last: Option<Vec<String>> = self.emulator.is_full_screen().then(|| {
            let text = |runs: Vec<crate::replay::stream::Run>| {
                runs.iter().map(|run| run.text.as_str()).collect::<String>()
            };
            self.emulator.rows(usize::MAX).map(text).collect()
        });
        for line in self.emulator.finish() {
            outlet.line(&escape::line(&line), screen)?;
        }
        if let Some(rows) = last {
            screen.line("[the full-screen program that drew last:]")?;
            for row in rows {
                screen.line(&escape::line(row.trim_end()))?;
            }
        }
        if full_screens > 0 {
            let times = units::count(full_screens, "time");
            screen.line(&format!(
                "[a full-screen program drew {times}; replay on a terminal, or export, shows it]"
            ))?;
        }
        remarks::closing(summary, end, screen)
    }
}
