use super::*;
use crate::model::Level;

fn reason(facts: &BodyFacts) -> (&str, u64) {
    facts.withheld.as_ref().map_or(("", 0), |withheld| (withheld.reason.as_str(), withheld.bytes))
}

#[test]
fn a_secret_keeps_all_but_its_values() {
    let body = br#"{"kind":"Secret","metadata":{"name":"a","managedFields":[{"fieldsV1":{"f:data":{"f:p":{}}}}],
      "annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{}}","note":"kept"}},
      "data":{"p":"czNjcjN0","q":null},"stringData":{"n":1234,"b":true},"type":"Opaque"}"#;
    let (stored, facts) = secrets(body);
    let text = String::from_utf8(stored).expect("UTF-8");
    let value: serde_json::Value = serde_json::from_str(&text).expect("still JSON");
    assert_eq!(value["data"]["p"], mark("czNjcjN0"));
    assert_eq!(value["data"]["q"], serde_json::Value::Null);
    assert_eq!(value["stringData"]["n"], mark("1234"));
    assert_eq!(value["stringData"]["b"], true);
    assert_eq!(value["metadata"]["annotations"]["note"], "kept");
    assert_eq!(value["type"], "Opaque");
    assert_eq!(
        value["metadata"]["managedFields"][0]["fieldsV1"]["f:data"]["f:p"],
        serde_json::json!({})
    );
    let removed: Vec<_> = facts.removed.iter().map(|r| (r.path.as_str(), r.count)).collect();
    let last_applied = "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration";
    assert_eq!(removed, [("data.p", 1), (last_applied, 1), ("stringData.n", 1)]);
    assert_eq!((facts.withheld, facts.ended, facts.encoding.as_str()), (None, true, ""));
}

#[test]
fn escaped_key_spellings_are_keys() {
    for key in [r"\u0064ata", r"d\u0061ta", r"DATA", r"string\u0044ata"] {
        let (stored, facts) = secrets(format!(r#"{{"{key}":{{"p":"hunter22"}}}}"#).as_bytes());
        assert!(!contains(&stored, b"hunter22"), "{key}");
        assert_eq!(facts.removed.len(), 1);
    }
    let (stored, _) = secrets(br#"{"metadata":{"annotations":{"kubectl.kubernetes.io\/last-applied-configuration":"hunter22","kapp.k14s.io/original":"hunter22"}}}"#);
    assert!(!contains(&stored, b"hunter22"));
}

#[test]
fn duplicate_keys_are_all_removed() {
    let (stored, facts) =
        secrets(br#"{"data":{"p":"hunter22"},"data":{"p":"hunter22","p":"hunter22"}}"#);
    assert!(!contains(&stored, b"hunter22"));
    assert_eq!(facts.removed[0].count, 3);
}

#[test]
fn json_patches_keep_only_where() {
    let info = info("patch", "secrets");
    let body = br#"[{"op":"add","path":"/data","value":{"p":"hunter22","q":["hunter22"]}},
        {"op":"test","path":"/data/p","value":"hunter22"},{"op":"move","from":"/data/p","path":["hunter22"]},
        {"op":"x","other":"hunter22"},"hunter22",["hunter22"],12345]"#;
    let (stored, facts) =
        run(request_plan(&info, "application/json-patch+json", ""), &[body], true);
    let text = String::from_utf8(stored).expect("UTF-8");
    assert!(!text.contains("hunter22") && !text.contains("12345"), "{text}");
    assert!(text.contains(r#""op":"move","from":"/data/p""#), "{text}");
    assert_eq!(facts.removed.iter().map(|removed| removed.count).sum::<u64>(), 8);
}

#[test]
fn what_passes_is_not_copied() {
    let plan = request_plan(&info("create", "pods"), "anything/else", "br");
    assert!(plan.is_pass());
    let mut redactor = Redactor::new(plan, Arc::new(RedactKey::from_bytes([7; 32])));
    let bytes = Bytes::from_static(b"\xff\0 whatever");
    let mut out = Vec::new();
    redactor.push(&bytes, &mut out);
    assert_eq!(out[0].as_ptr(), bytes.as_ptr());
    let facts = redactor.finish(false, &mut out);
    assert_eq!((facts.encoding.as_str(), facts.ended, out.len()), ("br", false, 1));
    assert!(facts.withheld.is_none());
}

#[test]
fn which_requests_are_sensitive() {
    let mut proxied = info("create", "services/proxy");
    proxied.parts = ["services", "vc", "proxy", "api", "v1", "secrets"].map(String::from).to_vec();
    let mut harmless = proxied.clone();
    harmless.parts.truncate(5);
    for (info, passes) in [
        (info("get", "secrets"), false),
        (info("deletecollection", "secrets"), false),
        (info("create", "serviceaccounts/token"), false),
        (info("create", "tokenreviews"), false),
        (proxied, false),
        (harmless, true),
        (info("create", "serviceaccounts"), true),
        (info("get", "configmaps"), true),
        (info("create", "certificatesigningrequests"), true),
        (info("create", "selfsubjectreviews"), true),
        (RequestInfo { resource: "secrets".into(), ..RequestInfo::default() }, true),
    ] {
        assert_eq!(request_plan(&info, JSON, "").is_pass(), passes, "{info:?}");
    }
}

#[test]
fn tokens_are_removed() {
    let info = info("create", "serviceaccounts/token");
    let body = br#"{"kind":"TokenRequest","spec":{"audiences":["a"]},"status":{"token":"hunter22","expirationTimestamp":"t"}}"#;
    let plan = response_plan(&info, 201, JSON, "", &Obligations::default());
    let (stored, facts) = run(plan, &[body], true);
    let value: serde_json::Value = serde_json::from_slice(&stored).expect("still JSON");
    assert_eq!(value["status"]["token"], mark("hunter22"));
    assert_eq!(value["spec"]["audiences"][0], "a");
    assert_eq!(facts.removed[0].path, "status.token");
}

#[test]
fn error_text_that_may_quote_is_removed() {
    let body = br#"{"kind":"Status","message":"illegal: hunter22","reason":"Invalid","details":{"causes":[{"message":"hunter22","field":"data"}]}}"#;
    let none = Obligations::default();
    let plan = response_plan(&info("create", "secrets"), 422, JSON, "", &none);
    let (stored, _) = run(plan, &[body], true);
    assert!(!contains(&stored, b"hunter22") && contains(&stored, b"Invalid"));
    let plan = response_plan(&info("get", "secrets"), 404, JSON, "", &none);
    assert_eq!(run(plan, &[body], true).0, body);
}

#[test]
fn obligations_name_further_paths() {
    let redact = ["spec.containers[].env[].value", "data.*", r"metadata.labels.a\.b"];
    let obligations =
        Obligations { redact: redact.map(String::from).to_vec(), ..Obligations::default() };
    let object = r#"{"spec":{"containers":[{"env":[{"name":"n","value":"hunter22"}]}]},"data":{"x":"hunter22"},"metadata":{"labels":{"a.b":"hunter22","a":{"b":"kept"}}},"value":"kept"}"#;
    let info = info("watch", "pods");
    for body in [
        object.to_owned(),
        format!(r#"{{"items":[{object},{object}]}}"#),
        format!(r#"{{"type":"ADDED","object":{object}}}"#),
        format!(r#"{{"rows":[{{"object":{object}}}]}}"#),
        format!(r#"{{"type":"ADDED","object":{{"rows":[{{"object":{object}}}]}}}}"#),
    ] {
        let plan = response_plan(&info, 200, JSON, "", &obligations);
        let (stored, facts) = run(plan, &[body.as_bytes()], true);
        let text = String::from_utf8(stored).expect("UTF-8");
        assert!(!text.contains("hunter22"), "{text}");
        assert_eq!(text.matches("kept").count(), body.matches("kept").count());
        assert_eq!(facts.removed.len(), 3, "{text}");
    }
    // Protobuf has no names to find paths by; logs are no objects.
    let (stored, facts) =
        run(response_plan(&info, 200, PROTOBUF, "", &obligations), &[b"k8s\0"], true);
    assert_eq!((stored.len(), reason(&facts)), (0, ("undecodable", 4)));
    let log = super::info("get", "pods/log");
    assert!(response_plan(&log, 200, "text/plain", "", &obligations).is_pass());
}

#[test]
fn levels_withhold() {
    let level = |level| Obligations { level, ..Obligations::default() };
    for (name, request, response) in [
        (Level::None, false, false),
        (Level::Metadata, false, false),
        (Level::Request, true, false),
        (Level::Full, true, true),
    ] {
        let obligations = level(name);
        let info = info("create", "pods");
        let head = RequestHead::default();
        let (stored, facts) = run(BodyPlan::request(&info, &head, &obligations), &[b"{}"], true);
        assert_eq!(!stored.is_empty(), request, "{name:?}");
        assert_eq!(reason(&facts), if request { ("", 0) } else { ("policy", 2) });
        let (stored, facts) =
            run(response_plan(&info, 200, JSON, "", &obligations), &[b"{}"], true);
        assert_eq!(!stored.is_empty(), response, "{name:?}");
        assert_eq!(reason(&facts), if response { ("", 0) } else { ("policy", 2) });
    }
}

#[test]
fn what_cannot_be_decoded_is_withheld() {
    let body = br#"{"data":{"p":"hunter22"}}"#;
    for (content_type, encoding, why) in [
        ("application/cbor", "", "unknown_content_type"),
        ("text/plain", "", "unknown_content_type"),
        (JSON, "br", "unknown_encoding"),
        (JSON, "gzip, gzip", "unknown_encoding"),
        (JSON, "gzip", "undecodable"),
        (PROTOBUF, "", "over_bound"),
    ] {
        let (stored, facts) = secrets_as(body, content_type, encoding);
        assert_eq!(stored, b"", "{content_type} {encoding}");
        assert_eq!(reason(&facts), (why, body.len() as u64), "{content_type} {encoding}");
    }
    let (stored, facts) = secrets_as(b"", "application/cbor", "");
    assert_eq!((stored.len(), reason(&facts)), (0, ("", 0)));
}

#[test]
fn yaml_that_is_json_is_read_and_other_yaml_is_not() {
    let (stored, facts) = secrets_as(br#"{"data":{"p":"hunter22"}}"#, "application/yaml", "");
    assert!(facts.withheld.is_none() && contains(&stored, b"decklog:redacted:"));
    for body in [
        "data:\n  p: hunter22\n",
        "{data: {p: hunter22}}",
        "\"data\":\n  p: hunter22\n",
        "\"data\": {\"p\": \"hunter22\"}",
        "---\n{\"data\":{\"p\":\"hunter22\"}}",
        "{\"data\": {\"p\": hunter22}}",
        "{\"data\": {\"p\": 'hunter22'}}",
        "{\"\\x64ata\": {\"p\": \"hunter22\"}}",
        "- hunter22",
    ] {
        let (stored, facts) = secrets_as(body.as_bytes(), "application/apply-patch+yaml", "");
        assert!(!contains(&stored, b"hunter22"), "{body}");
        assert_eq!(reason(&facts).0, "undecodable", "{body}");
    }
}

#[test]
fn a_cut_body_keeps_what_was_redacted_before() {
    let body = br#"{"data":{"p":"hunter22","q":"hunter33"}}"#;
    for end in 1..body.len() {
        let plan = response_plan(&info("get", "secrets"), 200, JSON, "", &Obligations::default());
        let (stored, facts) = run(plan, &[&body[..end]], false);
        assert!(!contains(&stored, b"hun") && !facts.ended);
        let kept = body.len().min(end) as u64 - reason(&facts).1;
        assert!(kept >= 12 || end < 12, "only the pending value is lost");
    }
    // In the middle of the first value: `"hun` is lost, nothing else.
    let plan = response_plan(&info("get", "secrets"), 200, JSON, "", &Obligations::default());
    let (stored, facts) = run(plan, &[&body[..17]], false);
    assert_eq!((stored.as_slice(), reason(&facts)), (&br#"{"data":{"p":"#[..], ("truncated", 4)));
}

#[test]
fn gzip_is_stored_as_identity() {
    let body = br#"{"items":[{"data":{"p":"hunter22"}}]}"#;
    let (stored, facts) = secrets_as(&gzip(body), JSON, "GZIP");
    assert!(contains(&stored, mark("hunter22").as_bytes()));
    assert_eq!((facts.encoding.as_str(), facts.withheld), ("identity", None));
    let compressed = gzip(body);
    let cut = &compressed[..compressed.len() - 9];
    let (stored, facts) = secrets_as(cut, JSON, "gzip");
    assert!(!contains(&stored, b"hunter22"));
    assert_eq!(reason(&facts), ("truncated", cut.len() as u64));
}

#[test]
fn large_output_comes_in_pieces() {
    let body = format!("{{\"metadata\":\"{}\"}}", "x".repeat(1 << 20));
    let plan = response_plan(&info("get", "secrets"), 200, JSON, "", &Obligations::default());
    let mut redactor = Redactor::new(plan, Arc::new(RedactKey::from_bytes([7; 32])));
    let mut out = Vec::new();
    redactor.push(&Bytes::from(body.clone()), &mut out);
    assert!(out.len() > 4 && out.iter().all(|piece| piece.len() <= 256 << 10));
    assert_eq!(out.concat(), body.as_bytes());
}
