//! Where a store is, and whether its gateway can be asked.

use std::{io, path::PathBuf};

use super::{Cli, CliError, escape, library, screen::Screen};
use crate::{
    model::{AccessScope, Through},
    socket::{Announcement, AskError, GatewayRows},
    store::Reader,
};

/// A store's directory, and the socket of the gateway that may write it.
pub(super) struct Place {
    pub(super) directory: PathBuf,
    socket: Option<PathBuf>,
}

impl Place {
    /// What was named with `--store` and `--socket`.
    pub(super) fn named(cli: &Cli) -> Result<Self, CliError> {
        match Self::all_named(cli, false)? {
            mut one if one.len() == 1 => Ok(one.remove(0)),
            _ => Err(CliError::OneStore),
        }
    }

    /// All that were named with `--store`; none is fine where there is something else to read.
    pub(super) fn all_named(cli: &Cli, may_be_none: bool) -> Result<Vec<Self>, CliError> {
        if cli.store.is_empty() && !may_be_none {
            return Err(CliError::NoStore);
        }
        if cli.store.len() > 1 && cli.socket.is_some() {
            return Err(CliError::OneSocket);
        }
        cli.store.iter().map(|store| Self::of(store.clone(), cli)).collect()
    }

    /// A store that no gateway writes.
    pub(super) const fn at(directory: PathBuf) -> Self {
        Self { directory, socket: None }
    }

    /// The store in this directory.
    pub(super) fn of(directory: PathBuf, cli: &Cli) -> Result<Self, CliError> {
        if !directory.is_dir() {
            return Err(CliError::MissingStore(directory));
        }
        Ok(Self { directory, socket: cli.socket.clone() })
    }

    /// The socket of the gateway that may write the store.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.directory.join("gateway.sock"))
    }

    pub(super) fn reader(&self) -> Result<Reader, CliError> {
        Reader::open(&self.directory)
            .map_err(|error| library::failed("open", &self.directory, error))
    }

    /// The gateway that writes the store, if one does and it answers.
    pub(super) fn gateway(
        &self,
        reader: &Reader,
        screen: &mut Screen<'_>,
    ) -> Result<Option<GatewayRows>, CliError> {
        if !reader.is_written() {
            return Ok(None);
        }
        match GatewayRows::connect(&self.socket()) {
            Ok(rows) => return Ok(Some(rows)),
            // It may have its socket elsewhere, which it need not tell us.
            Err(AskError::Connect { source, .. })
                if source.kind() == io::ErrorKind::NotFound && self.socket.is_none() => {}
            Err(error) => remark(&error, screen)?,
        }
        Ok(None)
    }

    /// Tells the gateway, if there is one, that files will be read in which no row is needed.
    pub(super) fn announce(
        &self,
        reader: &Reader,
        verb: &str,
        what: AccessScope,
        screen: &mut Screen<'_>,
    ) -> Result<(), CliError> {
        if let Some(gateway) = self.gateway(reader, screen)? {
            let (verb, through) = (verb.to_owned(), Through::Files);
            if let Err(error) = gateway.announce(&Announcement { verb, through, what }) {
                remark(&error, screen)?;
            }
        }
        Ok(())
    }
}

/// Says that the files are read without the gateway, and why.
pub(super) fn remark(
    error: &(dyn std::error::Error + 'static),
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let why = library::chain(error);
    writeln!(screen.err, "note: reading the files without the gateway: {}", escape::line(&why))?;
    Ok(())
}
