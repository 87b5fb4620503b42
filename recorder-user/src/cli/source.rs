//! One store that is read: its segments, and whom to ask for its rows.

use std::path::PathBuf;

use super::{
    CliError, escape,
    library::{chain, failed},
    place::Place,
    screen::Screen,
};
use crate::{
    model::{GatewayId, SessionId},
    replay::Track,
    socket::GatewayRows,
    store::{Catalog, CatalogError, ExchangeRow, Position, Query, Reader, RowSource, SessionView},
};

/// A store, and its rows: from the gateway that writes it, else from the files.
pub(super) struct Source {
    directory: PathBuf,
    pub(super) reader: Reader,
    /// Who wrote it, if anybody has.
    pub(super) gateway: Option<GatewayId>,
    rows: Rows,
}

enum Rows {
    Files(Box<Catalog>),
    Gateway(GatewayRows),
}

impl Source {
    /// Opens a store. Where a gateway writes it and answers on the socket, rows are asked of it; why not is said,
    /// unless there is no socket at all.
    pub(super) fn open(place: &Place, screen: &mut Screen<'_>) -> Result<Self, CliError> {
        let reader = place.reader()?;
        match place.gateway(&reader, screen)? {
            Some(rows) => Ok(Self::of(place, reader, Rows::Gateway(rows))),
            None => Self::from_files(place, screen),
        }
    }

    /// As [`Source::open`], from the files alone. Warns of what cannot be read in them.
    pub(super) fn from_files(place: &Place, screen: &mut Screen<'_>) -> Result<Self, CliError> {
        let reader = place.reader()?;
        let catalog = reader.catalog().map_err(|error| failed("read", &place.directory, error))?;
        for what in catalog.damage().iter().map(|error| chain(error)) {
            writeln!(screen.err, "warning: {}", escape::line(&what))?;
        }
        if !catalog.damage().is_empty() {
            writeln!(screen.err, "hint: rows may be missing; see: recorder verify")?;
        }
        Ok(Self::of(place, reader, Rows::Files(Box::new(catalog))))
    }

    fn of(place: &Place, reader: Reader, rows: Rows) -> Self {
        // Where no segment can be read there is nothing to name a gateway for.
        let gateway = reader.gateway().unwrap_or_default();
        Self { directory: place.directory.clone(), reader, gateway, rows }
    }

    pub(super) fn rows(&self) -> &dyn RowSource {
        match &self.rows {
            Rows::Files(catalog) => &**catalog,
            Rows::Gateway(gateway) => gateway,
        }
    }

    /// The gateway, if it is asked.
    pub(super) const fn asked(&self) -> Option<&GatewayRows> {
        match &self.rows {
            Rows::Files(_) => None,
            Rows::Gateway(gateway) => Some(gateway),
        }
    }

    pub(super) fn tracks(&self) -> Result<Vec<Track>, CliError> {
        let views = self.rows().sessions().map_err(|error| self.failed_rows(error))?;
        Ok(views.into_iter().map(|view| self.track(view)).collect())
    }

    pub(super) fn track(&self, view: SessionView) -> Track {
        Track { gateway: self.gateway, view }
    }

    pub(super) fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CliError> {
        self.rows().search(query).map_err(|error| self.failed_rows(error))
    }

    pub(super) fn session(&self, id: SessionId) -> Result<Option<SessionView>, CliError> {
        self.rows().session(id).map_err(|error| self.failed_rows(error))
    }

    /// Whether what is at this position is in this store.
    pub(super) fn has(&self, position: Position) -> bool {
        self.reader.has(position.segment)
    }

    pub(super) fn failed_rows(&self, error: CatalogError) -> CliError {
        match error {
            CatalogError::Asked(error) => CliError::Asked(error),
            error => self.failed(error),
        }
    }

    pub(super) fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
        failed("read", &self.directory, error)
    }
}
