//! No secret value longer than three bytes is ever stored, in whatever shape it travels.

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// How a Secret is shown.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Object,
    List,
    WatchFrames,
    Table,
    TableWatch,
    PartialList,
    MergePatch,
    JsonPatch,
    Apply,
}

const SHAPES: [Shape; 9] = [
    Shape::Object,
    Shape::List,
    Shape::WatchFrames,
    Shape::Table,
    Shape::TableWatch,
    Shape::PartialList,
    Shape::MergePatch,
    Shape::JsonPatch,
    Shape::Apply,
];

/// Values without hexadecimal digits or letters of the fixed text, so that no digest and no key can
/// contain one by chance.
fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[G-Z]{4,60}", "[G-Z\"\\\\/\n\t\u{1}\u{2028}éß😀]{4,30}", Just("GHIJ".repeat(1000)),]
}

fn secret(values: &[String]) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "name", "uid": "uid", "labels": {"app": "shop"}}});
    for (index, value) in values.iter().enumerate() {
        object["data"][format!("d{index}")] = STANDARD.encode(value).into();
        object["stringData"][format!("s{index}")] = value.as_str().into();
    }
    let copy = object.to_string();
    object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
        copy.into();
    object
}

/// The body, its content type, and whether it is a request.
fn body(shape: Shape, object: &Value) -> (String, &'static str, bool) {
    let partial = json!({"kind": "PartialObjectMetadata", "metadata": object["metadata"]});
    let table = json!({"kind": "Table", "rows": [{"cells": ["name"], "object": object}, {"object": partial}]});
    let event = |object: &Value| json!({"type": "MODIFIED", "object": object}).to_string();
    match shape {
        Shape::Object => (object.to_string(), JSON, false),
        Shape::List => {
            (json!({"kind": "SecretList", "items": [object, object]}).to_string(), JSON, false)
        }
        Shape::WatchFrames => (format!("{}\n{}\n", event(object), event(object)), JSON, false),
        Shape::Table => (table.to_string(), JSON, false),
        Shape::TableWatch => (format!("{}\n", event(&table)), JSON, false),
        Shape::PartialList => (json!({"items": [partial]}).to_string(), JSON, false),
        Shape::MergePatch => (object.to_string(), "application/strategic-merge-patch+json", true),
        Shape::Apply => (object.to_string(), "application/apply-patch+yaml", true),
        Shape::JsonPatch => {
            let patch = json!([
                {"op": "add", "path": "/data", "value": object["data"]},
                {"op": "replace", "path": "/stringData/s0", "value": object["stringData"]["s0"]},
                {"op": "add", "path": "/metadata/annotations", "value": object["metadata"]["annotations"]},
            ]);
            (patch.to_string(), "application/json-patch+json", true)
        }
    }
}

/// Every spelling of the value that a reader could take it from.
fn spellings(value: &str) -> Vec<String> {
    let escaped = serde_json::to_string(value).expect("JSON");
    let twice = serde_json::to_string(&escaped).expect("JSON");
    let base64 = STANDARD.encode(value);
    let inner = |text: &str| text.trim_matches('"').to_owned();
    // The last base64 group depends on padding; whole groups do not.
    let groups = base64[..base64.len() / 4 * 4 - 4].to_owned();
    let all = [value.to_owned(), inner(&escaped), inner(&twice), groups];
    all.into_iter().filter(|spelling| spelling.len() > 3).collect()
}

/// The same JSON with every character of its strings escaped.
fn escape_all(text: &str) -> String {
    let mut out = String::new();
    let (mut in_string, mut escaped) = (false, false);
    for character in text.chars() {
        match character {
            '"' if !escaped => {
                in_string = !in_string;
                out.push(character);
            }
            _ if escaped || character == '\\' || !in_string => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
        }
        // Hexadecimal digits after `\u` must stay themselves.
        escaped = !escaped && character == '\\';
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_value_is_stored(
        values in prop::collection::vec(value(), 1..4),
        shape in prop::sample::select(SHAPES.to_vec()),
        gzipped in any::<bool>(),
        escape in any::<bool>(),
        mut cuts in prop::collection::vec(0usize..4000, 0..12),
        end in prop::option::of(0usize..4000),
    ) {
        let object = secret(&values);
        let (mut sent, content_type, is_request) = body(shape, &object);
        if escape && !sent.contains("\\u") {
            sent = escape_all(&sent);
            prop_assert!(serde_json::Deserializer::from_str(&sent).into_iter::<Value>().all(|v| v.is_ok()));
        }
        let bytes = if gzipped { gzip(sent.as_bytes()) } else { sent.into_bytes() };
        let whole = end.is_none();
        let bytes = &bytes[..end.unwrap_or(usize::MAX).min(bytes.len())];
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut from = 0;
        let mut chunks = Vec::new();
        for cut in cuts {
            let to = cut.clamp(from, bytes.len());
            chunks.push(&bytes[from..to]);
            from = to;
        }
        let encoding = if gzipped { "gzip" } else { "" };
        let plan = || if is_request {
            request_plan(&info("patch", "secrets"), content_type, encoding)
        } else {
            response_plan(&info("list", "secrets"), 200, content_type, encoding, &Obligations::default())
        };
        let (stored, facts) = run(plan(), &chunks, whole);
        // Searched as text: all spellings are, and it is much faster.
        let text = String::from_utf8_lossy(&stored);
        for spelling in values.iter().flat_map(|value| spellings(value)) {
            prop_assert!(
                !text.contains(&spelling), "{:?} in {}", spelling, text
            );
        }
        if escape {
            let escaped: Vec<String> = values.iter().map(|value| escape_all(&format!("\"{value}\""))).collect();
            for value in escaped.iter().filter(|value| !value.contains('\n')) {
                prop_assert!(!text.contains(value.trim_matches('"')));
            }
        }
        // The same in one piece.
        let (one, one_facts) = run(plan(), &[bytes], whole);
        prop_assert_eq!(&one, &stored);
        prop_assert_eq!(&one_facts.removed, &facts.removed);
        if whole {
            prop_assert!(facts.withheld.is_none());
            let documents: Result<Vec<Value>, _> =
                serde_json::Deserializer::from_slice(&stored).into_iter().collect();
            prop_assert!(documents.is_ok(), "still JSON");
            prop_assert!(facts.removed.iter().map(|removed| removed.count).sum::<u64>() > 0);
        }
    }
}
