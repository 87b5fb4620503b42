use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;
use crate::wire::{
    kubernetes::{Document, envelope, read_envelope},
    protobuf::{Value, fields, write_bytes, write_number},
    watch::{Framing, Splitter},
};

fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    write_bytes(1, key.as_bytes(), &mut entry);
    write_bytes(2, value, &mut entry);
    entry
}

fn secret(values: &[&[u8]]) -> Vec<u8> {
    let mut metadata = Vec::new();
    write_bytes(1, b"a", &mut metadata);
    write_bytes(5, b"uid-1", &mut metadata);
    write_bytes(12, &entry("note", b"kept"), &mut metadata);
    for value in values {
        let key = "kubectl.kubernetes.io/last-applied-configuration";
        write_bytes(12, &entry(key, value), &mut metadata);
    }
    let mut secret = Vec::new();
    write_bytes(1, &metadata, &mut secret);
    for value in values {
        write_bytes(2, &entry("p", value), &mut secret);
        write_bytes(4, &entry("s", value), &mut secret);
        // A field that does not exist yet.
        write_bytes(99, value, &mut secret);
    }
    write_bytes(3, b"Opaque", &mut secret);
    write_number(5, 1, &mut secret);
    secret
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::new();
    write_bytes(1, &[], &mut list);
    for item in items {
        write_bytes(2, item, &mut list);
    }
    list
}

fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::new();
    write_bytes(1, object, &mut extension);
    let mut message = Vec::new();
    write_bytes(1, event.as_bytes(), &mut message);
    write_bytes(2, &extension, &mut message);
    [&(message.len() as u32).to_be_bytes()[..], &message].concat()
}

#[test]
fn a_secret_is_rewritten() {
    let body = envelope("v1", "Secret", &secret(&[b"hunter22"]));
    let (stored, facts) = secrets_as(&body, PROTOBUF, "");
    assert!(!contains(&stored, b"hunter22") && facts.withheld.is_none());
    for kept in [&b"kept"[..], b"Opaque", b"note"] {
        assert!(contains(&stored, kept));
    }
    let document = Document::from_protobuf(&stored).expect("still an envelope");
    assert!(document.complete);
    assert_eq!((document.object.name.as_str(), document.object.uid.as_str()), ("a", "uid-1"));
    // The digest of `data` is that of its base64 text, as JSON shows it.
    assert!(contains(&stored, mark(&STANDARD.encode("hunter22")).as_bytes()));
    assert!(contains(&stored, mark("hunter22").as_bytes()));
    let removed: Vec<_> = facts.removed.iter().map(|r| (r.path.as_str(), r.count)).collect();
    let last_applied = "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration";
    assert_eq!(removed, [("?", 1), ("data.p", 1), (last_applied, 1), ("stringData.s", 1)]);
}

#[test]
fn long_values_hash_as_one_text() {
    let value = vec![0xa5; 10_000];
    let body = envelope("v1", "Secret", &secret(&[&value]));
    let (stored, _) = secrets_as(&body, PROTOBUF, "");
    assert!(contains(&stored, mark(&STANDARD.encode(&value)).as_bytes()));
}

#[test]
fn lists_and_watches_are_rewritten() {
    let items = [secret(&[b"hunter22"]), secret(&[b"hunter33"])];
    let (stored, facts) = secrets_as(&envelope("v1", "SecretList", &list(&items)), PROTOBUF, "");
    assert!(!contains(&stored, b"hunter"));
    assert_eq!(Document::from_protobuf(&stored).expect("list").item_count, 2);
    assert!(
        facts.removed.iter().any(|removed| removed.path == "items[].data.p" && removed.count == 2)
    );

    let mut stream = Vec::new();
    for value in [&b"hunter22"[..], b"hunter33"] {
        stream.extend(watch_frame("ADDED", &envelope("v1", "Secret", &secret(&[value]))));
    }
    let content_type = format!("{PROTOBUF};stream=watch");
    for chunk in [1, 3, 50, usize::MAX] {
        let plan = response_plan(
            &info("watch", "secrets"),
            200,
            &content_type,
            "",
            &Obligations::default(),
        );
        let (stored, facts) = run(plan, &stream.chunks(chunk).collect::<Vec<_>>(), false);
        assert!(!contains(&stored, b"hunter") && facts.withheld.is_none());
        let mut frames = Vec::new();
        Splitter::new(Framing::Protobuf).push(&stored, &mut frames).expect("small");
        assert_eq!(frames.len(), 2);
        assert_eq!(Document::from_watch_protobuf(&frames[1]).expect("event").event, "ADDED");
    }
    // A cut frame is lost, the frames before it are not.
    let plan =
        response_plan(&info("watch", "secrets"), 200, &content_type, "", &Obligations::default());
    let (stored, facts) = run(plan, &[&stream[..stream.len() - 5]], false);
    assert!(!stored.is_empty() && !contains(&stored, b"hunter33"));
    assert_eq!(
        facts.withheld.map(|w| (w.reason, w.bytes)),
        Some(("truncated".into(), stream.len() as u64 / 2 - 5))
    );
}

#[test]
fn tokens_are_rewritten() {
    let mut status = Vec::new();
    write_bytes(1, b"hunter22", &mut status);
    let mut request = Vec::new();
    write_bytes(1, &[], &mut request);
    write_bytes(3, &status, &mut request);
    let body = envelope("authentication.k8s.io/v1", "TokenRequest", &request);
    let info = info("create", "serviceaccounts/token");
    let plan = response_plan(&info, 201, PROTOBUF, "", &Obligations::default());
    let (stored, facts) = run(plan, &[&body], true);
    assert!(contains(&stored, mark("hunter22").as_bytes()) && !contains(&stored, b"hunter22"));
    assert_eq!(facts.removed[0].path, "status.token");
}

#[test]
fn error_text_is_removed_where_it_may_quote() {
    let body = crate::wire::status::protobuf_body(422, "Invalid", "hunter22");
    for (verb, leaks) in [("create", false), ("get", true)] {
        let plan =
            response_plan(&info(verb, "secrets"), 422, PROTOBUF, "", &Obligations::default());
        assert_eq!(contains(&run(plan, &[&body], true).0, b"hunter22"), leaks);
    }
}

#[test]
fn what_is_not_understood_is_withheld() {
    let mut encoded = envelope("v1", "Secret", &secret(&[b"hunter22"]));
    write_bytes(3, b"gzip", &mut encoded);
    let mut other_type = envelope("v1", "Secret", &secret(&[b"hunter22"]));
    write_bytes(4, b"application/json", &mut other_type);
    let mut group = envelope("v1", "Secret", &secret(&[b"hunter22"]));
    group.push(0x0b);
    let mut bad_length = secret(&[b"hunter22"]);
    bad_length.extend([0x0a, 0xff, 0xff, 0x03]);
    let bad_length = envelope("v1", "Secret", &bad_length);
    let unknown_kind = envelope("v1", "ConfigMap", &secret(&[b"hunter22"]));
    for body in [encoded, other_type, group, bad_length, unknown_kind] {
        let (stored, facts) = secrets_as(&body, PROTOBUF, "");
        assert_eq!(stored, b"");
        let withheld = facts.withheld.expect("withheld");
        assert_eq!((withheld.reason.as_str(), withheld.bytes), ("undecodable", body.len() as u64));
    }
    let large = envelope("v1", "Secret", &secret(&[&vec![b'x'; 5 << 20]]));
    let (stored, facts) = secrets_as(&large, PROTOBUF, "");
    assert_eq!(
        (stored.len(), facts.withheld.expect("withheld").reason.as_str()),
        (0, "over_bound")
    );
    let cut = envelope("v1", "Secret", &secret(&[b"hunter22"]));
    let plan = response_plan(&info("get", "secrets"), 200, PROTOBUF, "", &Obligations::default());
    let (stored, facts) = run(plan, &[&cut], false);
    assert_eq!((stored.len(), facts.withheld.expect("withheld").reason.as_str()), (0, "truncated"));
}

#[test]
fn delete_options_pass() {
    let mut options = Vec::new();
    write_bytes(5, b"All", &mut options);
    let body = envelope("v1", "DeleteOptions", &options);
    let (stored, facts) =
        run(request_plan(&info("delete", "secrets"), PROTOBUF, ""), &[&body], true);
    assert_eq!((stored, facts.removed.len()), (body, 0));
}

proptest! {
    #[test]
    fn no_value_survives_and_the_rest_does(
        values in prop::collection::vec("[G-Z]{4,40}", 1..4),
        shape in 0..3,
        chunk in 1usize..200,
    ) {
        let bytes: Vec<_> = values.iter().map(String::as_bytes).collect();
        let object = envelope("v1", "Secret", &secret(&bytes));
        let body = match shape {
            0 => object,
            1 => envelope("v1", "SecretList", &list(&[secret(&bytes), secret(&bytes)])),
            _ => watch_frame("MODIFIED", &object),
        };
        let plan = response_plan(&info("list", "secrets"), 200, PROTOBUF, "", &Obligations::default());
        let (stored, facts) = run(plan, &body.chunks(chunk).collect::<Vec<_>>(), true);
        prop_assert!(facts.withheld.is_none());
        for value in &values {
            prop_assert!(!contains(&stored, value.as_bytes()));
        }
        prop_assert!(contains(&stored, b"uid-1"));
        if shape < 2 {
            let unknown = read_envelope(&stored).expect("still an envelope");
            let is_sound = fields(unknown.raw).all(|field| {
                field.is_ok_and(|field| match field.value {
                    Value::Bytes(bytes) if field.number == 1 => fields(bytes).all(|f| f.is_ok()),
                    _ => true,
                })
            });
            prop_assert!(is_sound);
        }
    }
}
