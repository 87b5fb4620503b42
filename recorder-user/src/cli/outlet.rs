//! Lines on their way out: shown, left out, or held back until the recent past is over.

use std::collections::VecDeque;

use super::{CliError, screen::Screen};

/// What becomes of lines.
#[derive(Debug)]
pub(super) enum Outlet {
    /// They are shown.
    Live,
    /// They are not: they come before what was asked for.
    Muted,
    /// The last of them are shown once the present is reached.
    Past { lines: VecDeque<String>, left_out: u64 },
}

/// How many lines of the past a follow begins with.
const PAST_LINES_MAX: usize = 40;

impl Outlet {
    /// For a follow: holds the past back.
    pub(super) fn past() -> Self {
        Self::Past { lines: VecDeque::new(), left_out: 0 }
    }

    /// Whether what happens now is to be seen.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }

    /// One line of text that is already safe to show.
    pub(super) fn line(&mut self, text: &str, screen: &mut Screen<'_>) -> Result<(), CliError> {
        match self {
            Self::Live => screen.line(text)?,
            Self::Muted => {}
            Self::Past { lines, left_out } => {
                if lines.len() == PAST_LINES_MAX {
                    lines.pop_front();
                    *left_out += 1;
                }
                lines.push_back(text.into());
            }
        }
        Ok(())
    }

    /// From here on lines are shown; the last ones of the past come first.
    pub(super) fn go_live(&mut self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        if let Self::Past { lines, left_out } = std::mem::replace(self, Self::Live) {
            if left_out > 0 {
                screen.line(&format!("… {left_out} lines before"))?;
            }
            for line in lines {
                screen.line(&line)?;
            }
        }
        Ok(())
    }
}
