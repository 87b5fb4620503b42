//! A request in Cedar's words: principal, action, resource, context.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};
use recorder_user::model::{Principal, RequestInfo, Timestamp};

use super::{Question, stream::stream};
use crate::attribute::selector::{FieldRequirement, LabelRequirement, parse_fields, parse_labels};

/// Why a request could not be put into Cedar's words; it is denied.
pub(super) type Unbuildable = String;

type Attributes = HashMap<String, RestrictedExpression>;

/// The names of the schema, parsed once.
#[derive(Debug)]
pub(super) struct Vocabulary {
    user: EntityTypeName,
    group: EntityTypeName,
    service_account: EntityTypeName,
    node: EntityTypeName,
    resource: EntityTypeName,
    non_resource_url: EntityTypeName,
    principal_uid: EntityTypeName,
    extra: EntityTypeName,
    on_resources: HashMap<&'static str, EntityUid>,
    on_paths: HashMap<&'static str, EntityUid>,
    impersonate: EntityUid,
}

impl Vocabulary {
    pub(super) fn new() -> Self {
        let type_name = |name: &str| {
            format!("k8s::{name}").parse::<EntityTypeName>().expect("the schema's names are valid")
        };
        let action =
            |verb: &str| EntityUid::from_type_name_and_id(type_name("Action"), EntityId::new(verb));
        let actions = |verbs: &[&'static str]| {
            verbs.iter().map(|verb| (*verb, action(verb))).collect::<HashMap<_, _>>()
        };
        Self {
            user: type_name("User"),
            group: type_name("Group"),
            service_account: type_name("ServiceAccount"),
            node: type_name("Node"),
            resource: type_name("Resource"),
            non_resource_url: type_name("NonResourceURL"),
            principal_uid: type_name("PrincipalUID"),
            extra: type_name("Extra"),
            on_resources: actions(&RESOURCE_VERBS),
            on_paths: actions(&PATH_VERBS),
            impersonate: action("impersonate"),
        }
    }

    /// The action of a verb; none when no policy can name it.
    pub(super) fn action(&self, info: &RequestInfo, verb: &str) -> Option<EntityUid> {
        let actions = if info.is_resource_request { &self.on_resources } else { &self.on_paths };
        actions.get(verb).cloned()
    }

    pub(super) fn impersonate(&self) -> EntityUid {
        self.impersonate.clone()
    }

    /// The principal with its groups as parents, and with those that the API server adds to it.
    pub(super) fn principal(&self, principal: &Principal) -> Result<Entity, Unbuildable> {
        let mut groups: HashSet<EntityUid> =
            principal.groups.iter().map(|group| self.group_uid(group)).collect();
        groups.insert(self.group_uid("system:authenticated"));
        let (uid, mut attributes) = self.subject(&principal.username);
        if let Some(RestrictedName::ServiceAccount { namespace, .. }) =
            parse_name(&principal.username)
        {
            groups.insert(self.group_uid("system:serviceaccounts"));
            groups.insert(self.group_uid(&format!("system:serviceaccounts:{namespace}")));
        }
        if !principal.extra.is_empty() {
            let extra = principal.extra.iter().map(|(key, values)| {
                record([("key", text(key)), ("values", set(values.iter().map(text)))])
            });
            attributes.insert("extra".into(), set(extra.collect::<Result<Vec<_>, _>>()?));
        }
        Entity::new(uid, attributes, groups).map_err(|error| error.to_string())
    }

    /// The resource or the path. `subresource` replaces the request's own where it has one.
    pub(super) fn resource(
        &self,
        info: &RequestInfo,
        subresource: Option<&str>,
    ) -> Result<Entity, Unbuildable> {
        let id = EntityId::new(&info.path);
        let mut attributes = Attributes::from([("path".to_owned(), text(&info.path))]);
        if !info.is_resource_request {
            let uid = EntityUid::from_type_name_and_id(self.non_resource_url.clone(), id);
            return entity(uid, attributes);
        }
        attributes.insert("apiGroup".into(), text(&info.api_group));
        attributes.insert("resource".into(), text(&info.resource));
        let optional = [
            ("subresource", subresource.unwrap_or(&info.subresource)),
            ("namespace", &info.namespace),
            ("name", &info.name),
        ];
        for (key, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
            attributes.insert(key.into(), text(value));
        }
        // A selector that the API server cannot read is one that it does not honour.
        if let Ok(terms) = parse_fields(&info.field_selector)
            && !terms.is_empty()
        {
            let terms = terms.iter().map(field).collect::<Result<Vec<_>, _>>()?;
            attributes.insert("fieldSelector".into(), set(terms));
        }
        if let Ok(terms) = parse_labels(&info.label_selector)
            && !terms.is_empty()
        {
            let terms = terms.iter().map(label).collect::<Result<Vec<_>, _>>()?;
            attributes.insert("labelSelector".into(), set(terms));
        }
        entity(EntityUid::from_type_name_and_id(self.resource.clone(), id), attributes)
    }

    /// Everything that an impersonation claims, one resource each.
    pub(super) fn impersonated(&self, claim: &Principal) -> Result<Vec<Entity>, Unbuildable> {
        let (uid, attributes) = self.subject(&claim.username);
        let mut entities = vec![entity(uid, attributes)?];
        for group in &claim.groups {
            let attributes = Attributes::from([("name".to_owned(), text(group))]);
            entities.push(entity(self.group_uid(group), attributes)?);
        }
        if let Some(uid) = &claim.uid {
            let id = EntityId::new(uid);
            let uid = EntityUid::from_type_name_and_id(self.principal_uid.clone(), id);
            entities.push(entity(uid, Attributes::new())?);
        }
        for (key, values) in &claim.extra {
            for value in values {
                let id = EntityId::new(format!("{key}={value}"));
                let uid = EntityUid::from_type_name_and_id(self.extra.clone(), id);
                let attributes = [("key".to_owned(), text(key)), ("value".to_owned(), text(value))];
                entities.push(entity(uid, attributes.into())?);
            }
        }
        Ok(entities)
    }

    fn group_uid(&self, group: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.group.clone(), EntityId::new(group))
    }

    /// Type, id and name of a username. The id is the whole username for every type.
    fn subject(&self, username: &str) -> (EntityUid, Attributes) {
        let mut attributes = Attributes::new();
        let (type_name, name) = match parse_name(username) {
            Some(RestrictedName::ServiceAccount { namespace, name }) => {
                attributes.insert("namespace".into(), text(namespace));
                (&self.service_account, name)
            }
            Some(RestrictedName::Node { name }) => (&self.node, name),
            None => (&self.user, username),
        };
        attributes.insert("name".into(), text(name));
        let id = EntityId::new(username);
        (EntityUid::from_type_name_and_id(type_name.clone(), id), attributes)
    }
}

/// A question in Cedar's words.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) entities: Entities,
}

/// Puts principal, action, resource and context together.
pub(super) fn request(
    principal: Entity,
    action: EntityUid,
    resource: Entity,
    context: Context,
) -> Result<Asked, Unbuildable> {
    let (subject, object) = (principal.uid(), resource.uid());
    // Someone who impersonates himself is both.
    let both = if subject == object { vec![principal] } else { vec![principal, resource] };
    let entities = Entities::from_entities(both, None).map_err(|error| error.to_string())?;
    let request =
        Request::new(subject, action, object, context, None).map_err(|error| error.to_string())?;
    Ok(Asked { request, entities })
}

/// The facts about a request that are neither principal nor resource.
pub(super) fn context(
    question: &Question<'_>,
    now: Option<Timestamp>,
) -> Result<Context, Unbuildable> {
    let mut pairs = vec![("cluster".to_owned(), text(question.cluster))];
    pairs.extend(question.task.map(|task| ("task".to_owned(), text(task))));
    if let Some(asked) = question.stream {
        pairs.push(("stream".to_owned(), stream(asked)?));
    }
    pairs.extend(
        now.map(|now| ("now".to_owned(), RestrictedExpression::new_datetime(datetime(now)))),
    );
    Context::from_pairs(pairs).map_err(|error| error.to_string())
}

enum RestrictedName<'a> {
    ServiceAccount { namespace: &'a str, name: &'a str },
    Node { name: &'a str },
}

fn parse_name(username: &str) -> Option<RestrictedName<'_>> {
    if let Some(name) = username.strip_prefix("system:node:") {
        return (!name.is_empty()).then_some(RestrictedName::Node { name });
    }
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    valid.then_some(RestrictedName::ServiceAccount { namespace, name })
}

fn entity(uid: EntityUid, attributes: Attributes) -> Result<Entity, Unbuildable> {
    Entity::new(uid, attributes, HashSet::new()).map_err(|error| error.to_string())
}

fn field(term: &FieldRequirement) -> Result<RestrictedExpression, Unbuildable> {
    let operator = if term.equal { "=" } else { "!=" };
    record([
        ("field", text(&term.field)),
        ("operator", text(operator)),
        ("value", text(&term.value)),
    ])
}

fn label(term: &LabelRequirement) -> Result<RestrictedExpression, Unbuildable> {
    let values = set(term.values.iter().map(text));
    record([("key", text(&term.key)), ("operator", text(term.operator)), ("values", values)])
}

pub(super) fn record(
    fields: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
) -> Result<RestrictedExpression, Unbuildable> {
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value));
    RestrictedExpression::new_record(fields).map_err(|error| error.to_string())
}

pub(super) fn set(items: impl IntoIterator<Item = RestrictedExpression>) -> RestrictedExpression {
    RestrictedExpression::new_set(items)
}

pub(super) fn text(value: impl AsRef<str>) -> RestrictedExpression {
    RestrictedExpression::new_string(value.as_ref().to_owned())
}

/// Cedar's `datetime` takes milliseconds.
fn datetime(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{}Z", text.get(..MILLISECONDS_END).unwrap_or("1970-01-01T00:00:00.000"))
}

/// The length of `2026-09-21T14:13:20.000`.
const MILLISECONDS_END: usize = 23;

const RESOURCE_VERBS: [&str; 8] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

const PATH_VERBS: [&str; 7] = ["get", "head", "options", "post", "put", "patch", "delete"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cedar_policy::Schema;
    use http::Method;

    use super::*;
    use recorder_user::model::StreamRequest;

    use crate::{
        attribute::{request_info, stream_request},
        policy::SCHEMA,
    };

    /// The validator's promises hold only for what conforms to the schema; on the data path that is not
    /// checked again, so it is here, for every shape of request.
    #[test]
    fn what_is_built_conforms_to_the_schema() {
        let schema: Schema = SCHEMA.parse().expect("the schema is valid");
        let vocabulary = Vocabulary::new();
        let extra = BTreeMap::from([("k".to_owned(), vec!["v".to_owned(), "w".to_owned()])]);
        let principals =
            ["ada", "system:serviceaccount:ns:sa", "system:node:n", ""].map(|username| {
                let (username, groups) =
                    (username.to_owned(), vec!["g".to_owned(), "h".to_owned()]);
                let uid = Some("7".to_owned());
                Principal { username, groups, uid, extra: extra.clone(), ..Principal::default() }
            });
        let targets = [
            ("GET", "/api/v1/pods", Some("labelSelector=a+in+(b),!c&fieldSelector=x%3Dy,z!%3D1")),
            ("GET", "/api/v1/pods", Some("labelSelector=((&fieldSelector=x")),
            ("DELETE", "/apis/apps/v1/namespaces/n/deployments", None),
            ("PATCH", "/api/v1/namespaces/n/pods/p/status", None),
            ("POST", "/api/v1/namespaces", None),
            ("POST", "/api/v1/namespaces/n/pods/p/exec", Some("command=sh&command=-c&container=c")),
            ("GET", "/api/v1/namespaces/n/pods/p/exec", None),
            ("GET", "/api/v1/namespaces/n/pods/p/attach", Some("stdin&tty")),
            ("POST", "/api/v1/namespaces/n/pods/p/portforward", Some("ports=80,65535")),
            ("GET", "/api/v1/nodes/n/proxy/exec", None),
            ("PUT", "/api/v1/namespaces/n", None),
            ("GET", "/version", None),
            ("HEAD", "/healthz", None),
            ("POST", "/x", None),
        ];
        for principal in &principals {
            let subject = vocabulary.principal(principal).expect("built");
            for (method, path, query) in targets {
                let method: Method = method.parse().expect("a method");
                let info = request_info(&method, path, query).expect("attributable");
                let stream = stream_request(&info, query, path == "/x").expect("text");
                let action = vocabulary.action(&info, &info.verb).expect("known");
                let resource = vocabulary.resource(&info, None).expect("built");
                let asked = (&info, stream.as_ref());
                conforms(&schema, principal, asked, &subject, action, &resource);
            }
            let info = RequestInfo::default();
            for resource in vocabulary.impersonated(principal).expect("built") {
                let action = vocabulary.impersonate();
                conforms(&schema, principal, (&info, None), &subject, action, &resource);
            }
        }
    }

    fn conforms(
        schema: &Schema,
        principal: &Principal,
        (info, stream): (&RequestInfo, Option<&StreamRequest>),
        subject: &Entity,
        action: EntityUid,
        resource: &Entity,
    ) {
        for task in [None, Some("T-1")] {
            let question =
                Question { principal, info, stream, cluster: "c", task, upgraded: false };
            let context = context(&question, Some(Timestamp::now())).expect("built");
            let (uid, target) = (subject.uid(), resource.uid());
            let text = format!("{uid} {action} {target}");
            let request = Request::new(uid, action.clone(), target, context, Some(schema));
            assert!(request.is_ok(), "{text}: {request:?}");
            for entity in [subject, resource] {
                let entities = Entities::from_entities([entity.clone()], Some(schema));
                assert!(entities.is_ok(), "{text}: {entities:?}");
            }
        }
    }

    #[test]
    fn every_verb_of_the_schema_is_asked_for_or_known_not_to_be() {
        let schema: Schema = SCHEMA.parse().expect("the schema is valid");
        let mut known: HashSet<&str> = RESOURCE_VERBS.into_iter().chain(PATH_VERBS).collect();
        known.extend(["impersonate", "approve", "attest", "bind", "escalate", "sign", "use"]);
        let actions: HashSet<&str> =
            schema.actions().map(|action| action.id().unescaped()).collect();
        assert_eq!(known, actions);
    }
}
