use std::{io::Write, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;
use crate::{
    model::{Change, RequestHead, RequestInfo, ResponseHead},
    wire::{kubernetes::envelope, protobuf::write_bytes},
};

/// One exchange to observe.
#[derive(Clone, Debug)]
struct Case {
    info: RequestInfo,
    query: &'static str,
    request: Vec<u8>,
    status: Option<u16>,
    content_type: &'static str,
    encoding: &'static str,
    response: Vec<u8>,
}

fn case(verb: &str, resource: &str, status: u16, response: &str) -> Case {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let info = RequestInfo {
        is_resource_request: true,
        verb: verb.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: "shop".into(),
        name: if matches!(verb, "create" | "deletecollection") { "" } else { "a" }.into(),
        ..RequestInfo::default()
    };
    Case {
        info,
        query: "",
        request: Vec::new(),
        status: Some(status),
        content_type: "application/json",
        encoding: "",
        response: response.into(),
    }
}

impl Case {
    fn request(mut self, body: &str) -> Self {
        self.request = body.into();
        self
    }

    fn query(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.info.name = name.into();
        self
    }

    fn group(mut self, group: &str) -> Self {
        self.info.api_group = group.into();
        self
    }

    fn observe(&self, chunk: usize) -> EffectResult {
        let head = RequestHead {
            target: format!("/x{}", self.query),
            headers: vec![("content-type".into(), "application/json".into())],
            ..RequestHead::default()
        };
        let mut observer = Observer::new(&Arc::new(self.info.clone()), &head);
        self.request.chunks(chunk).for_each(|bytes| observer.request_chunk(bytes));
        if let Some(status) = self.status {
            let headers = vec![
                ("content-type".into(), self.content_type.into()),
                ("content-encoding".into(), self.encoding.into()),
            ];
            observer.response_started(&ResponseHead { status, headers });
        }
        self.response.chunks(chunk).for_each(|bytes| observer.response_chunk(bytes));
        observer.finish()
    }

    /// The effect and the objects as `kind namespace/name uid change`.
    fn told(&self) -> (Effect, Vec<String>, u64) {
        let result = self.observe(usize::MAX);
        let objects = result.objects.iter().map(|object| {
            let ObjectChange { kind, namespace, name, uid, change } = object;
            format!("{kind} {namespace}/{name} {uid} {change:?}")
        });
        (result.effect, objects.collect(), result.count)
    }
}

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u1","resourceVersion":"5"}}"#;
const SCALE: &str = r#"{"kind":"Scale","metadata":{"name":"a","namespace":"shop","uid":"u1"},"spec":{"replicas":2}}"#;
const DELETED: &str =
    r#"{"kind":"Status","status":"Success","details":{"name":"a","kind":"pods","uid":"u1"}}"#;
const SUCCESS: &str = r#"{"kind":"Status","status":"Success"}"#;
const PODS: &str = r#"{"kind":"PodList","items":[{"metadata":{"name":"a","namespace":"shop","uid":"u1"}},{"metadata":{"name":"b","namespace":"shop","uid":"u2"}}]}"#;
const TABLE: &str = r#"{"kind":"Table","rows":[{"object":{"kind":"PartialObjectMetadata","metadata":{"name":"a","namespace":"shop","uid":"u1"}}}]}"#;

#[test]
fn objects_that_change() {
    let finalized = r#"{"kind":"Pod","metadata":{"name":"a","uid":"u1","deletionTimestamp":"t","deletionGracePeriodSeconds":0}}"#;
    let held = r#"{"kind":"Pod","metadata":{"name":"a","uid":"u1","deletionTimestamp":"t","deletionGracePeriodSeconds":0,"finalizers":["x"]}}"#;
    let (created, modified, deleted) = (Effect::Created, Effect::Modified, Effect::Deleted);
    for (case, effect, object) in [
        (case("create", "pods", 201, POD), created, "Pod shop/a u1 Created"),
        (case("create", "pods", 201, TABLE), created, "pods shop/a u1 Created"),
        (case("create", "pods", 201, ""), created, "pods shop/  Created"),
        (case("patch", "pods", 201, POD), created, "Pod shop/a u1 Created"),
        (case("update", "pods", 201, POD), created, "Pod shop/a u1 Created"),
        (case("update", "pods", 200, POD), modified, "Pod shop/a u1 Modified"),
        (case("patch", "pods", 200, POD), modified, "Pod shop/a u1 Modified"),
        (case("patch", "pods", 200, finalized), deleted, "Pod shop/a u1 Deleted"),
        (case("patch", "pods", 200, held), modified, "Pod shop/a u1 Modified"),
        (case("patch", "pods/status", 200, POD), modified, "Pod shop/a u1 Modified"),
        (
            case("update", "deployments/scale", 200, SCALE),
            modified,
            "deployments shop/a u1 Modified",
        ),
        (case("delete", "pods", 200, DELETED), deleted, "pods shop/a u1 Deleted"),
        (case("delete", "pods", 200, POD), deleted, "Pod shop/a u1 Deleted"),
        (case("delete", "pods", 202, POD), deleted, "Pod shop/a u1 Deleted"),
        (case("create", "pods/eviction", 201, SUCCESS).named("a"), deleted, "Pod shop/a  Deleted"),
        (case("create", "pods/binding", 201, SUCCESS).named("a"), modified, "Pod shop/a  Modified"),
        (
            case("create", "bindings", 201, SUCCESS).request(r#"{"metadata":{"name":"a"}}"#),
            modified,
            "Pod shop/a  Modified",
        ),
    ] {
        assert_eq!(case.told(), (effect, vec![object.to_owned()], 1), "{case:?}");
    }
}

#[test]
fn namespaces_are_in_none() {
    let body = r#"{"kind":"Namespace","metadata":{"name":"shop","uid":"u1"}}"#;
    let case = case("delete", "namespaces", 200, body).named("shop");
    assert_eq!(case.told().1, ["Namespace /shop u1 Deleted"]);
}

#[test]
fn effects_without_objects() {
    let review = |group| case("create", "reviews", 201, POD).group(group);
    let mut lost = case("create", "pods", 201, "");
    lost.status = None;
    let mut other = case("post", "", 200, "");
    other.info.is_resource_request = false;
    for (case, effect) in [
        (case("get", "pods", 200, POD), Effect::Read),
        (case("watch", "pods", 200, POD), Effect::Read),
        (case("list", "pods", 304, ""), Effect::Read),
        (case("get", "pods/log", 200, ""), Effect::Read),
        (case("get", "pods", 404, ""), Effect::Nothing),
        (case("create", "pods", 409, POD), Effect::Nothing),
        (case("create", "pods", 500, POD), Effect::Nothing),
        (case("delete", "pods", 307, ""), Effect::Nothing),
        (case("create", "pods", 504, ""), Effect::Unknown),
        (lost, Effect::Unknown),
        (other, Effect::Unknown),
        (case("get", "pods/exec", 101, ""), Effect::Executed),
        (case("create", "pods/exec", 101, ""), Effect::Executed),
        (case("create", "pods/attach", 403, ""), Effect::Nothing),
        (case("get", "pods/portforward", 101, ""), Effect::Executed),
        (case("get", "services/proxy", 200, ""), Effect::Executed),
        (case("create", "services/proxy", 302, ""), Effect::Executed),
        (case("create", "services/proxy", 500, ""), Effect::Unknown),
        (case("get", "services/proxy", 404, ""), Effect::Nothing),
        (case("get", "virtualmachineinstances/vnc", 101, ""), Effect::Executed),
        (case("create", "serviceaccounts/token", 201, POD), Effect::Read),
        (review("authorization.k8s.io"), Effect::Read),
        (review("authentication.k8s.io"), Effect::Read),
    ] {
        assert_eq!(case.told(), (effect, vec![], 0), "{case:?}");
    }
}

#[test]
fn dry_runs_do_nothing_and_only_real_ones() {
    let all = r#"{"kind":"DeleteOptions","dryRun":["All"]}"#;
    let nested = r#"{"deleteOptions":{"dryRun":["All"]}}"#;
    for (case, effect) in [
        (case("create", "pods", 201, POD).query("?dryRun=All"), Effect::Nothing),
        (case("patch", "pods", 200, POD).query("?dryRun=All"), Effect::Nothing),
        (case("delete", "pods", 200, POD).query("?dryRun=All"), Effect::Nothing),
        (case("delete", "pods", 200, POD).request(all), Effect::Nothing),
        (case("deletecollection", "pods", 200, PODS).request(all), Effect::Nothing),
        (case("create", "pods/eviction", 201, "").request(nested), Effect::Nothing),
        (case("create", "pods/eviction", 201, "").query("?dryRun=All"), Effect::Nothing),
        // With a body, the API server does not look at the query.
        (case("delete", "pods", 200, POD).query("?dryRun=All").request("{}"), Effect::Deleted),
        (case("delete", "pods", 200, POD).request(nested), Effect::Deleted),
        (
            case("delete", "pods", 200, POD).request(r#"{"dryRun":["All"],"dryRun":[]}"#),
            Effect::Deleted,
        ),
        (case("delete", "pods", 200, POD).request(r#"{"dryRun":["All"]"#), Effect::Deleted),
        (case("create", "pods", 201, POD).request(all), Effect::Created),
        (case("create", "pods/eviction", 201, "").request(all), Effect::Deleted),
    ] {
        assert_eq!(case.told().0, effect, "{case:?}");
    }
}

#[test]
fn an_update_without_change_is_nothing() {
    let older = POD.replace("\"5\"", "\"4\"");
    assert_eq!(case("update", "pods", 200, POD).request(POD).told().0, Effect::Nothing);
    assert_eq!(case("update", "pods", 200, POD).request(&older).told().0, Effect::Modified);
    assert_eq!(case("update", "pods", 200, POD).request("{}").told().0, Effect::Modified);
    assert_eq!(case("patch", "pods", 200, POD).request(POD).told().0, Effect::Modified);
}

#[test]
fn collections_count_all() {
    let objects = ["Pod shop/a u1 Deleted", "Pod shop/b u2 Deleted"].map(String::from).to_vec();
    assert_eq!(case("deletecollection", "pods", 200, PODS).told(), (Effect::Deleted, objects, 2));
    let empty = r#"{"kind":"PodList","items":[]}"#;
    assert_eq!(case("deletecollection", "pods", 200, empty).told(), (Effect::Nothing, vec![], 0));
    let cut = r#"{"kind":"PodList","items":["#;
    assert_eq!(case("deletecollection", "pods", 200, cut).told(), (Effect::Deleted, vec![], 0));
    assert_eq!(case("deletecollection", "pods", 200, SUCCESS).told(), (Effect::Deleted, vec![], 0));
    let many = vec![r#"{"metadata":{"name":"a"}}"#; OBJECTS_MAX + 9].join(",");
    let many = format!(r#"{{"kind":"PodList","items":[{many}]}}"#);
    let (_, objects, count) = case("deletecollection", "pods", 200, &many).told();
    assert_eq!((objects.len(), count), (OBJECTS_MAX, OBJECTS_MAX as u64 + 9));
}

#[test]
fn gzip_and_protobuf_are_read() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(POD.as_bytes()).expect("memory");
    let mut gzipped = case("create", "pods", 201, "");
    gzipped.response = encoder.finish().expect("memory");
    gzipped.encoding = "gzip";
    let mut metadata = Vec::new();
    write_bytes(1, b"a", &mut metadata);
    write_bytes(3, b"shop", &mut metadata);
    write_bytes(5, b"u1", &mut metadata);
    let mut pod = Vec::new();
    write_bytes(1, &metadata, &mut pod);
    // More than the prefix that is kept: the metadata came before.
    write_bytes(2, &vec![0; 2 << 20], &mut pod);
    let mut protobuf = case("create", "pods", 201, "");
    protobuf.response = envelope("v1", "Pod", &pod);
    protobuf.content_type = "application/vnd.kubernetes.protobuf";
    let mut unknown = case("create", "pods", 201, POD);
    unknown.content_type = "application/cbor";
    let pod = ["Pod shop/a u1 Created".to_owned()].to_vec();
    assert_eq!(gzipped.told(), (Effect::Created, pod.clone(), 1));
    assert_eq!(protobuf.told(), (Effect::Created, pod, 1));
    assert_eq!(unknown.told().1, ["pods shop/  Created"]);
    gzipped.response[15] ^= 0xff;
    assert_eq!(gzipped.told().0, Effect::Created);
}

proptest! {
    #[test]
    fn every_chunking_is_the_same(
        verb in prop::sample::select(vec!["create", "update", "patch", "delete", "deletecollection"]),
        body in prop::sample::select(vec![POD, SCALE, DELETED, SUCCESS, PODS, TABLE]),
        chunk in 1usize..50,
        cut in 0usize..200,
    ) {
        let case = case(verb, "pods", 200, &body[..body.len().min(cut)]).request(body);
        prop_assert_eq!(case.observe(chunk), case.observe(usize::MAX));
    }

    #[test]
    fn any_bytes_are_safe(
        body in prop::collection::vec(any::<u8>(), 0..200),
        chunk in 1usize..50,
        content_type in prop::sample::select(vec!["application/json", "application/vnd.kubernetes.protobuf"]),
        encoding in prop::sample::select(vec!["", "gzip", "br"]),
    ) {
        let mut case = case("patch", "pods", 200, "");
        case.response = body;
        case.content_type = content_type;
        case.encoding = encoding;
        let result = case.observe(chunk);
        prop_assert_eq!((result.effect, result.objects[0].change), (Effect::Modified, Change::Modified));
    }
}
