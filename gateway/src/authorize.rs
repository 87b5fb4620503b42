//! Phase authorize: may this pass, how much of it is recorded, and in whose name does it go.

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use recorder_user::model::{Decision, Principal, RequestInfo, Verdict};

use crate::{exchange::Draft, gateway::Gateway, policy, refuse::Refused};

/// Asks the policy; the verdict goes into the record, also where it denies.
///
/// # Errors
/// When the request may not pass.
pub fn authorize(
    gateway: &Gateway,
    request: &Request<Incoming>,
    info: &RequestInfo,
    task: Option<&str>,
    draft: &mut Draft,
) -> Result<(), Refused> {
    let upgraded = draft.upgraded;
    let principal = draft.opened.principal.clone().unwrap_or_default();
    let policies = gateway.policies.current();
    let cluster = draft.opened.cluster.clone();
    let asked = policy::Question {
        principal: &principal,
        info,
        stream: draft.opened.stream.as_ref(),
        cluster: &cluster,
        task,
        upgraded,
    };
    let verdict = policies.authorize(&asked);
    let refused = refusal(&principal, info, &verdict, upgraded);
    draft.opened.verdict = Some(verdict);
    if let Some(refused) = refused {
        return Err(refused);
    }
    let acting = policy::impersonation(request.headers()).map_err(|error| {
        let (status, reason, message) = error.status();
        Refused::new("authorize", status, reason, message)
    })?;
    if let Some(acting) = acting {
        let verdict = policies.authorize_impersonation(&asked, &acting);
        if verdict.decision != Decision::Allow {
            let message = policy::impersonation_denied(&principal, &acting, &verdict);
            draft.opened.verdict = Some(verdict);
            return Err(Refused::new("authorize", 403, "Forbidden", message));
        }
        draft.opened.acting_as = Some(Arc::new(acting));
    }
    Ok(())
}

fn refusal(
    principal: &Principal,
    info: &RequestInfo,
    verdict: &Verdict,
    upgraded: bool,
) -> Option<Refused> {
    match verdict.decision {
        Decision::Allow => None,
        Decision::Deny => {
            let message = policy::denied(principal, info, verdict, upgraded);
            Some(Refused::new("authorize", 403, "Forbidden", message))
        }
        Decision::Hold => Some(Refused::new(
            "authorize",
            403,
            "Forbidden",
            "policy holds this request for approval, and this gateway cannot ask for approvals yet",
        )),
    }
}
