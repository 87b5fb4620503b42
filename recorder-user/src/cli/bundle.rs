//! `recorder export SESSION --format bundle`: what an auditor can check without us.

use serde::Serialize;

use super::{
    CliError, Outcome,
    library::{Found, Library, failed},
    screen::Screen,
    text, units,
    verb_args::ExportArgs,
};
use crate::{
    model::{SessionId, Timestamp},
    store::{self, BundleOf, signing},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BundleLine<'a> {
    session: SessionId,
    directory: &'a str,
    segments: usize,
    records: u64,
    withheld: u64,
}

pub(super) fn run(
    library: Library,
    args: &ExportArgs,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let to = args.output.as_deref().ok_or(CliError::NoOutput)?;
    let view = match library.find(&args.id)? {
        Found::Session(whole) => whole.view,
        Found::Exchange(row) => {
            let session = row.session.map(|session| session.to_string());
            return Err(CliError::NotASession { id: row.exchange.to_string(), session });
        }
    };
    let directory = library.reader(view.first).directory().to_owned();
    drop(library);
    let bad = |error| failed("read the public keys of", &directory, error);
    let keys = signing::list(&signing::keys_directory(&directory)).map_err(bad)?;
    let keys = keys.iter().map(|key| signing::read_public_key(&key.public_key_file));
    let of = BundleOf {
        session: view.session,
        first: view.first,
        made: Timestamp::now(),
        by: concat!("recorder ", env!("CARGO_PKG_VERSION")).into(),
        keys: keys.collect::<Result<_, _>>().map_err(bad)?,
    };
    let made = store::export_bundle(&directory, &of, to).map_err(CliError::Bundle)?;
    let line = BundleLine {
        session: made.session,
        directory: &to.display().to_string(),
        segments: made.segments.len(),
        records: made.records,
        withheld: made.withheld,
    };
    if screen.json {
        screen.object(&line)?;
    } else {
        screen.line(&format!(
            "bundle of session {} in {}: {}, {} of others withheld",
            line.session,
            text::short(line.directory, 400),
            units::count(line.records, "record"),
            line.withheld
        ))?;
    }
    Ok(Outcome::Fine)
}
