//! `recorder follow`: what goes on now.

use super::{
    CliError, Outcome,
    args::FollowArgs,
    library::{Found, Library},
    screen::Screen,
    session_follow, stream, watch,
};
use crate::replay::{
    is_stream,
    stream::{is_log, may_be_stream},
};

/// Follows a session or a stream to its end.
pub(super) fn run(
    library: Library,
    args: &FollowArgs,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let found = library.find(&args.id)?;
    let reader = library.reader();
    match found {
        Found::Session(view) => session_follow::run(library, *view, screen)?,
        Found::Exchange(row) => {
            drop(library);
            if is_stream(&row) {
                watch::follow(&reader, &row, screen)?;
            } else if may_be_stream(&row) || is_log(&row) {
                stream::follow(&reader, &row, args.stdin, screen)?;
            } else {
                return Err(CliError::not_a_stream(&row));
            }
        }
    }
    Ok(Outcome::Fine)
}
