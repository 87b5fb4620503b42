//! What every view has to say that is not output of the program: holes, what was not decoded, the end.

use crate::{
    cli::{
        CliError,
        outlet::Outlet,
        screen::{Ink, Screen},
        stream, text, units,
    },
    model::MicrosSince,
    replay::stream::{FrameKind, StreamEnd, StreamFrame, StreamSummary, channel_word, side_word},
    wire::stream::Channel,
};

/// ` 00:01.204`.
pub(super) fn at(at_us: MicrosSince) -> String {
    units::offset(i64::try_from(at_us).unwrap_or(i64::MAX))
}

/// The remark that a frame deserves, whatever the view.
pub(super) fn of(frame: &StreamFrame) -> Option<String> {
    let who = side_word(frame.side);
    Some(match &frame.kind {
        FrameKind::Hole { from, to } => {
            let missing = units::bytes(to.saturating_sub(*from));
            format!("{missing} of the {who} are missing in the record, at {from}..{to}")
        }
        FrameKind::Undecodable { offset, reason } => {
            format!("what the {who} sent cannot be decoded from byte {offset} on: {reason}")
        }
        FrameKind::Doubtful { offset, reason } => {
            format!("what the {who} sent can be read in two ways from byte {offset} on: {reason}")
        }
        FrameKind::Reset { channel, code } => {
            format!("the {who} gave up {} (status {code})", channel_word(*channel))
        }
        _ => return None,
    })
}

/// Prints a remark.
pub(super) fn print(
    at_us: MicrosSince,
    remark: &str,
    outlet: &mut Outlet,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let remark = screen.look.paint(Ink::Warn, &text::short(remark, 400));
    let at = screen.look.paint(Ink::Faint, &at(at_us));
    outlet.line(&format!(" {at}  ~ {remark}"), screen)
}

/// The last lines of every view for people.
pub(in crate::cli) fn closing(
    summary: &StreamSummary,
    end: &StreamEnd,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if summary.raw_bytes > 0 {
        let raw = units::bytes(summary.raw_bytes);
        screen.line(&format!(" {raw} could not be decoded; show --json has them as they are"))?;
    }
    if let Some(copied) = &summary.copied {
        screen.line(&format!(" {}", text::copied(copied)))?;
    }
    let (how, ink) = stream::ending(end, summary.status.as_ref());
    screen.line("")?;
    let lasted = at(summary.last_at_us);
    screen.line(&format!("{lasted}  {}", screen.look.paint(ink, &how)))?;
    // Sizes and the status are told; how many bytes they took is not.
    let told = [channel_word(Channel::Error), channel_word(Channel::Resize)];
    for total in summary.channels.iter().filter(|total| !told.contains(&total.channel)) {
        let bytes = units::bytes(total.bytes);
        let frames = units::count(total.frames, "frame");
        screen.line(&format!("  {:8} {bytes} in {frames}", text::short(&total.channel, 40)))?;
    }
    Ok(())
}
