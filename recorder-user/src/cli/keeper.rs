//! Who deletes and keeps holds: the gateway that writes the store, or else this process.

use std::os::unix::fs::MetadataExt as _;

use super::{CliError, library::failed, place::Place};
use crate::{
    model::{HoldChanged, HoldId},
    socket::{AskError, GatewayKeeper, HoldRequest, PruneRequest},
    store::{self, PruneError, PruneOrder, PruneReport, Retention, Store},
};

pub(super) enum Keeper {
    Gateway(GatewayKeeper),
    Own(Box<(Store, Retention)>),
}

impl Keeper {
    /// The gateway if one runs: only it can write the store then.
    pub(super) fn of(place: &Place) -> Result<Self, CliError> {
        if place.reader()?.is_written() {
            return Ok(Self::Gateway(GatewayKeeper::at(&place.socket())));
        }
        let opened = store::open_to_prune(&place.directory);
        let opened = opened.map_err(|error| failed("open", &place.directory, error))?;
        Ok(Self::Own(Box::new(opened)))
    }

    pub(super) fn prune(
        self,
        place: &Place,
        request: PruneRequest,
    ) -> Result<PruneReport, CliError> {
        let PruneRequest { rules, dry_run } = request;
        match self {
            Self::Gateway(gateway) => gateway.prune(request).map_err(asked),
            Self::Own(own) => {
                let order = PruneOrder { rules, who: Some(who()), dry_run };
                with(*own, place, "prune", |retention| retention.prune(&order))
            }
        }
    }

    pub(super) fn hold(self, place: &Place, request: HoldRequest) -> Result<HoldChanged, CliError> {
        match self {
            Self::Gateway(gateway) => gateway.hold(&request).map_err(asked),
            Self::Own(own) => with(*own, place, "write a hold to", |retention| {
                retention.add_hold(request.on, request.reason, who())
            }),
        }
    }

    pub(super) fn release(self, place: &Place, hold: HoldId) -> Result<HoldChanged, CliError> {
        match self {
            Self::Gateway(gateway) => gateway.release(hold).map_err(asked),
            Self::Own(own) => with(*own, place, "write a hold to", |retention| {
                retention.release_hold(hold, who())
            }),
        }
    }
}

/// Works on a store that was opened, and closes it in order.
fn with<T>(
    (opened, retention): (Store, Retention),
    place: &Place,
    action: &'static str,
    work: impl FnOnce(&Retention) -> Result<T, PruneError>,
) -> Result<T, CliError> {
    let store = &place.directory;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| failed(action, store, error))?;
    let done = work(&retention).map_err(|error| failed(action, store, error));
    drop(retention);
    let closed = runtime.block_on(opened.close());
    let done = done?;
    closed.map_err(|error| failed("close", store, error))?;
    Ok(done)
}

fn asked(error: AskError) -> CliError {
    CliError::Asked(Box::new(error))
}

fn who() -> String {
    let uid = std::fs::metadata("/proc/self").map(|metadata| metadata.uid()).unwrap_or_default();
    format!("uid {uid}")
}
