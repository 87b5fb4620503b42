use proptest::prelude::*;

use super::*;
use crate::wire::protobuf::{write_bytes, write_number};

fn pod_metadata(name: &str) -> Vec<u8> {
    let mut metadata = Vec::new();
    write_bytes(1, name.as_bytes(), &mut metadata);
    write_bytes(3, b"shop", &mut metadata);
    write_bytes(5, b"uid-1", &mut metadata);
    write_bytes(6, b"42", &mut metadata);
    write_bytes(9, &[], &mut metadata);
    write_number(10, 0, &mut metadata);
    write_bytes(14, b"example.com/keep", &mut metadata);
    metadata
}

fn pod(name: &str) -> Vec<u8> {
    let mut pod = Vec::new();
    write_bytes(1, &pod_metadata(name), &mut pod);
    pod
}

fn facts(name: &str) -> ObjectFacts {
    ObjectFacts {
        namespace: "shop".into(),
        name: name.into(),
        uid: "uid-1".into(),
        resource_version: "42".into(),
        deleting: true,
        no_grace: true,
        finalizers: true,
        ..ObjectFacts::default()
    }
}

const METADATA: &str = r#"{"name":"a","namespace":"shop","uid":"uid-1","resourceVersion":"42",
    "deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0,
    "finalizers":["example.com/keep"],"labels":{"name":"not this","metadata":"x"},
    "ownerReferences":[{"name":"nor this","uid":"nor this"}]}"#;

#[test]
fn one_object() {
    let expected = ObjectFacts { api_version: "v1".into(), kind: "Pod".into(), ..facts("a") };
    let text = format!(r#"{{"metadata":{METADATA},"kind":"Pod","apiVersion":"v1","type":"x"}}"#);
    let json = Document::from_json(text.as_bytes());
    assert_eq!(json.object, expected);
    assert_eq!((json.event.as_str(), json.complete, json.item_count), ("", true, 0));
    let protobuf = Document::from_protobuf(&envelope("v1", "Pod", &pod("a"))).expect("envelope");
    assert_eq!(protobuf.object, expected);
    assert!(protobuf.complete);
    assert_eq!(protobuf.objects().count(), 1);
}

#[test]
fn lists_and_tables() {
    let list = format!(
        r#"{{"kind":"PodList","metadata":{{"resourceVersion":"7"}},"items":[{{"metadata":{METADATA}}},{{}}]}}"#
    );
    let list = Document::from_json(list.as_bytes());
    assert_eq!(list.items, [facts("a"), ObjectFacts::default()]);
    assert_eq!(list.item_count, 2);
    let table = format!(
        r#"{{"kind":"Table","rows":[{{"cells":["a",{{"name":1}}],"object":{{"kind":"PartialObjectMetadata","metadata":{METADATA}}}}}]}}"#
    );
    let table = Document::from_json(table.as_bytes());
    let kind = "PartialObjectMetadata".to_owned();
    assert_eq!(table.items, [ObjectFacts { kind, ..facts("a") }]);
    let mut raw = Vec::new();
    write_bytes(1, &[], &mut raw);
    for _ in 0..ITEMS_MAX + 3 {
        write_bytes(2, &pod("a"), &mut raw);
    }
    let list = Document::from_protobuf(&envelope("v1", "PodList", &raw)).expect("envelope");
    assert_eq!((list.items.len(), list.item_count), (ITEMS_MAX, ITEMS_MAX as u64 + 3));
    assert_eq!(list.items[0], facts("a"));
    let many = format!(r#"{{"items":[{}{{}}]}}"#, "{},".repeat(ITEMS_MAX));
    let many = Document::from_json(many.as_bytes());
    assert_eq!((many.items.len(), many.item_count), (ITEMS_MAX, ITEMS_MAX as u64 + 1));
}

#[test]
fn watch_events() {
    let text = format!(r#"{{"type":"DELETED","object":{{"kind":"Pod","metadata":{METADATA}}}}}"#);
    let document = Document::from_json(text.as_bytes());
    assert_eq!((document.event.as_str(), document.kind.as_str()), ("DELETED", "Pod"));
    assert_eq!(document.object, ObjectFacts { kind: "Pod".into(), ..facts("a") });
    let rows = format!(
        r#"{{"type":"ADDED","object":{{"kind":"Table","rows":[{{"object":{{"metadata":{METADATA}}}}}]}}}}"#
    );
    assert_eq!(Document::from_json(rows.as_bytes()).items, [facts("a")]);
}

#[test]
fn status_of_a_delete() {
    let json = Document::from_json(
        br#"{"kind":"Status","status":"Success","details":{"name":"a","kind":"pods","uid":"uid-1"}}"#,
    );
    let mut details = Vec::new();
    write_bytes(1, b"a", &mut details);
    write_bytes(3, b"pods", &mut details);
    write_bytes(6, b"uid-1", &mut details);
    let mut raw = Vec::new();
    write_bytes(2, b"Success", &mut raw);
    write_bytes(5, &details, &mut raw);
    let protobuf = Document::from_protobuf(&envelope("", "Status", &raw)).expect("envelope");
    assert_eq!(json, protobuf);
    assert_eq!(json.status.uid, "uid-1");
    assert_eq!(json.objects().count(), 0);
}

#[test]
fn dry_run_in_the_body() {
    for (text, own, nested) in [
        (r#"{"kind":"DeleteOptions","dryRun":["All"]}"#, true, false),
        (r#"{"kind":"Eviction","deleteOptions":{"dryRun":["All"]}}"#, false, true),
        (r#"{"kind":"DeleteOptions","dryRun":[]}"#, false, false),
        (r#"{"metadata":{"dryRun":["All"]}}"#, false, false),
        (r#"{"dryRun":{"[]":"All"}}"#, false, false),
        // What a decoder makes of these is not to be relied on.
        (r#"{"dryRun":["All"],"dryRun":[]}"#, false, false),
        (r#"{"dryRun":["All"],"dryRun":null}"#, false, false),
        (r#"{"dryRun":["All"],"dry\u0052un":null}"#, false, false),
        (r#"{"deleteOptions":{"dryRun":["All"]},"deleteOptions":null}"#, false, false),
        (r#"{"deleteOptions":{"dryRun":["All"],"dryRun":null}}"#, false, false),
    ] {
        let document = Document::from_json(text.as_bytes());
        let read = (document.dry_run, document.delete_options_dry_run);
        assert_eq!(read, (own, nested), "{text}");
    }
    let mut options = Vec::new();
    write_bytes(5, b"All", &mut options);
    let delete = envelope("v1", "DeleteOptions", &options);
    assert!(Document::from_protobuf(&delete).expect("envelope").dry_run);
    let mut eviction = Vec::new();
    write_bytes(2, &options, &mut eviction);
    let eviction = envelope("policy/v1", "Eviction", &eviction);
    let eviction = Document::from_protobuf(&eviction).expect("envelope");
    assert!(eviction.delete_options_dry_run && !eviction.dry_run);
}

#[test]
fn prefixes_keep_what_they_say() {
    let mut raw = pod("a");
    write_bytes(2, &[0; 1000], &mut raw);
    let whole = envelope("v1", "Pod", &raw);
    let cut = Document::from_protobuf(&whole[..whole.len() - 500]).expect("magic");
    assert_eq!(cut.object.name, "a");
    assert!(!cut.complete);
    let text = format!(r#"{{"kind":"Pod","metadata":{METADATA},"spec":{{"#);
    let cut = Document::from_json(text.as_bytes());
    assert_eq!((cut.object.name.as_str(), cut.complete), ("a", false));
}

#[test]
fn long_values_are_cut_at_a_character() {
    let text = format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "é".repeat(VALUE_BYTES_MAX));
    assert_eq!(Document::from_json(text.as_bytes()).object.name.len(), VALUE_BYTES_MAX);
    let text = format!(r#"{{"metadata":{{"name":"x{}"}}}}"#, "é".repeat(VALUE_BYTES_MAX));
    assert_eq!(Document::from_json(text.as_bytes()).object.name.len(), VALUE_BYTES_MAX - 1);
}

proptest! {
    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = Document::from_json(&bytes);
        let _ = Document::from_protobuf(&bytes);
        let _ = Document::from_watch_protobuf(&bytes);
        let framed = [&b"k8s\0"[..], &bytes].concat();
        let _ = Document::from_protobuf(&framed);
        for kind in ["Pod", "PodList", "Status", "DeleteOptions", "Eviction"] {
            let _ = Document::from_protobuf(&envelope("v1", kind, &bytes));
        }
    }

    #[test]
    fn any_damage_is_safe(at in 0usize..80, byte in any::<u8>(), end in 0usize..120) {
        let mut bytes = envelope("v1", "Pod", &pod("a"));
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(end);
        let _ = Document::from_protobuf(&bytes);
    }
}
