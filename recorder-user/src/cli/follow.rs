//! `recorder follow`: what goes on now.

use super::{
    CliError, Outcome,
    library::{Found, Library},
    screen::Screen,
    session_follow, stream,
    verb_args::FollowArgs,
    watch,
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
    match found {
        Found::Session(whole) => session_follow::run(library, whole.view, screen)?,
        Found::Exchange(row) => {
            let reader = library.reader(row.first);
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
