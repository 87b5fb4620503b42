//! `recorder export`: a stream in the formats of others, or a session as a bundle.

use std::{
    fs::File,
    io::{self, Write},
};

use super::{
    CliError, Outcome, bundle, escape,
    library::{Found, Library},
    screen::Screen,
    stream, units,
    verb_args::{ChannelWord, ExportArgs, FormatWord},
};
use crate::{
    export::{self, CastVersion, ExportError, Format, LeftOut, Options, Selected},
    replay::stream::Utf8,
};

/// Writes the stream, and says on the error stream what the export does not have.
pub(super) fn run(
    library: Library,
    args: &ExportArgs,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let Some(format) = format(args.format) else { return bundle::run(library, args, screen) };
    let row = match library.find(&args.id)? {
        Found::Exchange(row) => row,
        Found::Session(whole) => {
            return Err(CliError::NotAnExchange { id: whole.view.session.to_string() });
        }
    };
    let reader = library.reader(row.first);
    drop(library);
    let options = options(args, format);
    let failed = |error| match error {
        ExportError::Open(error) => stream::cannot_open(error, &row),
        error => CliError::Export(error),
    };
    let left_out = match &args.output {
        Some(path) => {
            let at = |source| CliError::ExportFile { path: path.clone(), source };
            // Nothing is made where there is nothing to write.
            drop(stream::open(&reader, &row)?);
            let mut file = io::BufWriter::new(File::create(path).map_err(at)?);
            export::export(&reader, &row, &options, &mut file).map_err(failed)?
        }
        None if screen.look.terminal => {
            if options.format == Format::Raw {
                return Err(CliError::RawToTerminal);
            }
            let mut out = Escaped { out: screen.out, utf8: Utf8::default() };
            export::export(&reader, &row, &options, &mut out).map_err(failed)?
        }
        None => export::export(&reader, &row, &options, screen.out).map_err(failed)?,
    };
    for remark in remarks(&left_out) {
        writeln!(screen.err, "note: {remark}")?;
    }
    Ok(Outcome::Fine)
}

/// As what a stream is written; none where it is a bundle.
const fn format(word: FormatWord) -> Option<Format> {
    Some(match word {
        FormatWord::AsciicastV2 => Format::Asciicast(CastVersion::V2),
        FormatWord::AsciicastV3 => Format::Asciicast(CastVersion::V3),
        FormatWord::Text => Format::Text,
        FormatWord::Raw => Format::Raw,
        FormatWord::Bundle => return None,
    })
}

fn options(args: &ExportArgs, format: Format) -> Options {
    let channel = args.channel.map(|channel| match channel {
        ChannelWord::Stdin => Selected::Stdin,
        ChannelWord::Stdout => Selected::Stdout,
        ChannelWord::Stderr => Selected::Stderr,
    });
    Options { format, channel, input: args.stdin }
}

fn remarks(left_out: &LeftOut) -> Vec<String> {
    let LeftOut { undecoded_bytes, missing_bytes, withheld_bytes, stderr_bytes, full_screens } =
        *left_out;
    let bytes = |count, what: &str| (count > 0).then(|| format!("{} {what}", units::bytes(count)));
    [
        bytes(
            undecoded_bytes,
            "could not be decoded and are left out: recorder show --json has them",
        ),
        bytes(missing_bytes, "are missing in the record"),
        bytes(withheld_bytes, "of stdin are left out: only their sizes were kept"),
        bytes(stderr_bytes, "of stderr are left out: --channel stderr has them"),
        (full_screens > 0)
            .then(|| "what full-screen programs drew is left out: an asciicast has it".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Text on its way to a terminal: what the terminal would act on is escaped.
struct Escaped<'a> {
    out: &'a mut dyn Write,
    utf8: Utf8,
}

impl Write for Escaped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = String::new();
        self.utf8.push(bytes, &mut text);
        self.out.write_all(escape::block(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
