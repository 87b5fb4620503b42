//! The decision.

use super::{EffectResult, OBJECTS_MAX};
use crate::{
    model::{Change, Effect, ObjectChange, RequestInfo},
    wire::kubernetes::{Document, ObjectFacts},
};

/// What the decision is made from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Whether the query holds `dryRun=All`.
    pub query_dry_run: bool,
    /// Whether the request had a body.
    pub request_has_body: bool,
    /// What was read of the request's body.
    pub request: Option<&'a Document>,
    /// The status that the API server answered; none when no answer came.
    pub status: Option<u16>,
    /// What was read of the response's body.
    pub response: Option<&'a Document>,
}

/// What the request is, whatever was answered.
enum Kind {
    /// Runs something or carries a connection.
    Connect,
    /// A computation that stores nothing.
    Review,
    Read,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Evict,
    Bind,
    /// Not known to only read.
    Other,
}

fn kind(info: &RequestInfo) -> Kind {
    if !info.is_resource_request {
        return if info.may_change() { Kind::Other } else { Kind::Read };
    }
    let create = info.verb == "create";
    match (info.resource.as_str(), info.subresource.as_str()) {
        // Before the verb: an upgraded GET of `exec` has the verb `get`.
        ("pods", "exec" | "attach" | "portforward") | (_, "proxy") => return Kind::Connect,
        _ if info.verb == "proxy" => return Kind::Connect,
        ("pods", "eviction") if create => return Kind::Evict,
        ("pods", "binding") | ("bindings", _) if create => return Kind::Bind,
        // A minted token is a credential, but no object of the cluster: nothing is stored that could be
        // listed, changed or undone. The record shows it all the same: the verb and resource are kept,
        // and the body's facts tell that `status.token` was removed.
        ("serviceaccounts", "token") if create => return Kind::Review,
        _ => {}
    }
    // Reviews are questions in the shape of a POST: the API server answers and stores nothing.
    let is_review_group =
        matches!(info.api_group.as_str(), "authorization.k8s.io" | "authentication.k8s.io");
    match info.verb.as_str() {
        "get" | "list" | "watch" => Kind::Read,
        "create" if is_review_group => Kind::Review,
        "create" => Kind::Create,
        "update" => Kind::Update,
        "patch" => Kind::Patch,
        "delete" => Kind::Delete,
        "deletecollection" => Kind::DeleteCollection,
        _ => Kind::Other,
    }
}

/// The effect of an exchange that was forwarded. A refused one has [`Effect::Nothing`].
#[must_use]
pub fn of(info: &RequestInfo, facts: Facts<'_>) -> EffectResult {
    let kind = kind(info);
    let plain = EffectResult::without_objects;
    let Some(status) = facts.status else { return plain(Effect::Unknown) };
    if status == 101 {
        return plain(Effect::Executed);
    }
    if let Kind::Read | Kind::Review = kind {
        return plain(if status < 400 { Effect::Read } else { Effect::Nothing });
    }
    match status {
        200..=299 => {}
        // The API server gave up waiting: the change may still have happened.
        504 => return plain(Effect::Unknown),
        // Behind a proxy the status is that of whatever is there, which may have acted; a GET should not.
        400..
            if matches!(kind, Kind::Connect)
                && info.verb != "get"
                && info.subresource == "proxy" =>
        {
            return plain(Effect::Unknown);
        }
        300..=399 if matches!(kind, Kind::Connect) => return plain(Effect::Executed),
        _ => return plain(Effect::Nothing),
    }
    if is_dry_run(&kind, facts) {
        return plain(Effect::Nothing);
    }
    match kind {
        Kind::Connect => plain(Effect::Executed),
        Kind::Read | Kind::Review => plain(Effect::Read),
        Kind::Other => plain(Effect::Unknown),
        Kind::Create if info.subresource.is_empty() => one(info, facts, Change::Created),
        Kind::Create | Kind::Bind => one(info, facts, Change::Modified),
        Kind::Update | Kind::Patch => changed(info, facts, status),
        Kind::Delete if info.subresource.is_empty() => one(info, facts, Change::Deleted),
        // Deleting a subresource leaves the object.
        Kind::Delete | Kind::DeleteCollection if !info.subresource.is_empty() => {
            one(info, facts, Change::Modified)
        }
        Kind::Evict => one(info, facts, Change::Deleted),
        Kind::Delete | Kind::DeleteCollection => all(info, facts),
    }
}

/// Where options may be in a body, the API server reads the query only if there is none (delete), or
/// takes either (eviction).
fn is_dry_run(kind: &Kind, facts: Facts<'_>) -> bool {
    let request = facts.request.filter(|document| document.complete);
    match kind {
        Kind::Delete | Kind::DeleteCollection if facts.request_has_body => {
            request.is_some_and(|document| document.dry_run)
        }
        Kind::Evict => {
            facts.query_dry_run || request.is_some_and(|document| document.delete_options_dry_run)
        }
        _ => facts.query_dry_run,
    }
}

fn changed(info: &RequestInfo, facts: Facts<'_>, status: u16) -> EffectResult {
    if status == 201 && info.subresource.is_empty() {
        return one(info, facts, Change::Created);
    }
    let version = |document: Option<&Document>| {
        let object = document.and_then(|document| document.objects().next());
        object.map(|object| object.resource_version.clone()).filter(|version| !version.is_empty())
    };
    // Only for a whole object: in a patch a repeated key may hide that no version was asked for.
    if info.verb == "update"
        && let (Some(before), Some(after)) = (version(facts.request), version(facts.response))
        && before == after
    {
        return EffectResult::without_objects(Effect::Nothing);
    }
    // The API server removes an object with the update that takes the last thing it waits for.
    let removed =
        facts.response.and_then(|document| document.objects().next()).is_some_and(|object| {
            object.deleting && object.no_grace && !object.finalizers && info.subresource.is_empty()
        });
    one(info, facts, if removed { Change::Deleted } else { Change::Modified })
}

/// An effect on the one object that the request names or the response shows.
fn one(info: &RequestInfo, facts: Facts<'_>, change: Change) -> EffectResult {
    let object = match kind(info) {
        Kind::Bind | Kind::Evict => pod(info, facts, change),
        _ => shown(info, facts.response, change),
    };
    EffectResult { effect: effect(change), objects: vec![object], count: 1 }
}

/// Bindings and evictions are about a pod; they are answered with a `Status`.
fn pod(info: &RequestInfo, facts: Facts<'_>, change: Change) -> ObjectChange {
    let asked = facts.request.map(|document| &document.object);
    let name = match info.name.as_str() {
        "" => asked.map(|object| object.name.clone()).unwrap_or_default(),
        name => name.to_owned(),
    };
    let status = facts.response.map(|document| &document.status);
    ObjectChange {
        kind: "Pod".to_owned(),
        namespace: info.namespace.clone(),
        name,
        uid: status.map(|status| status.uid.clone()).unwrap_or_default(),
        change,
    }
}

fn shown(info: &RequestInfo, response: Option<&Document>, change: Change) -> ObjectChange {
    let object = response.and_then(|document| document.objects().next());
    let mut shown = object_change(info, response, object, change);
    if let Some(document) = response.filter(|document| document.kind == "Status") {
        shown.name.clone_from(&document.status.name);
        shown.uid.clone_from(&document.status.uid);
    }
    // The path says which object it was, whatever the answer shows.
    if !info.name.is_empty() {
        shown.name.clone_from(&info.name);
    }
    shown
}

fn object_change(
    info: &RequestInfo,
    response: Option<&Document>,
    object: Option<&ObjectFacts>,
    change: Change,
) -> ObjectChange {
    let text = |of: fn(&ObjectFacts) -> &String| object.map(of).cloned().unwrap_or_default();
    let mut namespace = text(|object| &object.namespace);
    // A namespace is not in a namespace, though the path to it reads so.
    if namespace.is_empty() && info.resource != "namespaces" {
        namespace.clone_from(&info.namespace);
    }
    ObjectChange {
        kind: object_kind(info, response, object),
        namespace,
        name: text(|object| &object.name),
        uid: text(|object| &object.uid),
        change,
    }
}

/// The object's kind where the response carries it, else the resource.
fn object_kind(
    info: &RequestInfo,
    response: Option<&Document>,
    object: Option<&ObjectFacts>,
) -> String {
    let own = object.map_or("", |object| object.kind.as_str());
    let list = response.and_then(|document| document.kind.strip_suffix("List")).unwrap_or("");
    // `Scale` and the like stand for another object; the others are views that hide the kind.
    let hides = |kind: &str| {
        matches!(kind, "" | "PartialObjectMetadata" | "Table" | "Status" | "Scale" | "List")
    };
    let kind = [own, list].into_iter().find(|kind| !hides(kind));
    kind.unwrap_or(&info.resource).to_owned()
}

/// An effect on every object of the response.
fn all(info: &RequestInfo, facts: Facts<'_>) -> EffectResult {
    let Some(document) = facts.response else {
        return EffectResult::without_objects(Effect::Deleted);
    };
    let change = Change::Deleted;
    let objects = document.objects().take(OBJECTS_MAX);
    let objects: Vec<_> =
        objects.map(|object| object_change(info, Some(document), Some(object), change)).collect();
    let count = if document.is_list() { document.item_count } else { objects.len() as u64 };
    // A collection that was empty: nothing happened. But only if the answer was seen to its end.
    let nothing = document.is_list() && document.complete && count == 0;
    let effect = if nothing { Effect::Nothing } else { Effect::Deleted };
    EffectResult { effect, objects, count }
}

fn effect(change: Change) -> Effect {
    match change {
        Change::Created => Effect::Created,
        Change::Modified => Effect::Modified,
        Change::Deleted => Effect::Deleted,
    }
}
