//! What a client reads when policy says no.

use recorder_user::model::{Decision, Principal, RequestInfo, Verdict};

use crate::attribute::effective_verb;

/// At most this many deciding policies are named in a message; the record has them all.
const POLICIES_SHOWN_MAX: usize = 4;

/// The message of the `Status` for a request that may not pass: the API server's own words, and then the
/// policies that decided.
#[must_use]
pub fn denied(
    principal: &Principal,
    info: &RequestInfo,
    verdict: &Verdict,
    upgraded: bool,
) -> String {
    let what = format!("{} {}", effective_verb(info, upgraded), object(info));
    message(principal, &what, verdict)
}

/// The message of the `Status` for an impersonation that policy does not permit.
#[must_use]
pub fn impersonation_denied(
    principal: &Principal,
    acting_as: &Principal,
    verdict: &Verdict,
) -> String {
    let groups = match acting_as.groups.as_slice() {
        [] => String::new(),
        groups => format!(" with groups {groups:?}"),
    };
    message(principal, &format!("impersonate user {:?}{groups}", acting_as.username), verdict)
}

fn message(principal: &Principal, what: &str, verdict: &Verdict) -> String {
    let (user, set) = (&principal.username, &verdict.policy_set);
    format!("User {user:?} cannot {what}: {} (policy set {set})", reason(verdict))
}

fn object(info: &RequestInfo) -> String {
    if !info.is_resource_request {
        return format!("path {:?}", info.path);
    }
    let resource = match info.subresource.as_str() {
        "" => info.resource.clone(),
        subresource => format!("{}/{subresource}", info.resource),
    };
    let scope = match info.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!("resource {resource:?} in API group {:?} {scope}", info.api_group)
}

fn reason(verdict: &Verdict) -> String {
    // The text of an evaluation error is for the operator: it is in the record and in the log.
    if !verdict.errors.is_empty() {
        return "denied because a policy could not be evaluated".to_owned();
    }
    if verdict.decision == Decision::Hold {
        return format!("needs approval by one of: {}", verdict.obligations.approval.join(", "));
    }
    match verdict.policies.as_slice() {
        [] => "no policy permits it".to_owned(),
        policies => {
            let shown = policies.iter().take(POLICIES_SHOWN_MAX).map(String::as_str);
            let more = policies.len().saturating_sub(POLICIES_SHOWN_MAX);
            let noun = if policies.len() == 1 { "policy" } else { "policies" };
            let names = shown.collect::<Vec<_>>().join(", ");
            let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("denied by {noun} {names}{rest}")
        }
    }
}
