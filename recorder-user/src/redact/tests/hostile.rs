use proptest::prelude::*;

use super::*;

#[test]
fn deep_nesting_and_huge_keys_are_withheld() {
    let deep = format!("{}{}", "{\"a\":".repeat(500), r#"{"data":{"p":"hunter22"}}"#);
    let huge = format!(r#"{{"{}":1,"data":{{"p":"hunter22"}}}}"#, "k".repeat(1 << 20));
    for body in [deep, huge] {
        let (stored, facts) = secrets(body.as_bytes());
        assert!(!contains(&stored, b"hunter22"));
        assert_eq!(facts.withheld.expect("cut").reason, "over_bound");
    }
}

#[test]
fn bad_bytes_are_withheld() {
    for body in [
        &b"\xef\xbb\xbf{\"data\":{\"p\":\"hunter22\"}}"[..],
        b"\0{\"data\":{\"p\":\"hunter22\"}}",
        b"{\"data\":{\"p\":\"hunter\x0022\"}}",
        b"{\"data\":{\"p\":\"hunter\n22\"}}",
        b"\xff\xfe{\0\"\0",
        b"{\"data\":{\"p\":\"hunter22\"}}}",
    ] {
        let (stored, facts) = secrets(body);
        assert!(!contains(&stored, b"hunter"), "{body:?}");
        assert_eq!(facts.withheld.expect("cut").reason, "undecodable");
    }
}

#[test]
fn a_gzip_bomb_is_withheld() {
    let bomb = gzip(format!("{{\"metadata\":\"{}\"}}", "a".repeat(64 << 20)).as_bytes());
    let (stored, facts) = secrets_as(&bomb, JSON, "gzip");
    assert!(stored.len() < 32 << 20);
    assert_eq!(facts.withheld.expect("cut").reason, "over_bound");
}

#[test]
fn many_small_values_keep_the_facts_small() {
    let members: Vec<_> = (0..5000).map(|n| format!(r#""k{n}":"v""#)).collect();
    let (_, facts) = secrets(format!(r#"{{"data":{{{}}}}}"#, members.join(",")).as_bytes());
    assert!(facts.removed.len() <= 65);
    assert_eq!(facts.removed.iter().map(|removed| removed.count).sum::<u64>(), 5000);
}

proptest! {
    #[test]
    fn any_bytes_are_safe(
        body in prop::collection::vec(any::<u8>(), 0..300),
        at in 0usize..300,
        protobuf in any::<bool>(),
        framed in any::<bool>(),
        gzipped in any::<bool>(),
        ended in any::<bool>(),
    ) {
        let body = if framed && protobuf { [&b"k8s\0"[..], &body].concat() } else { body };
        let body = if gzipped { gzip(&body) } else { body };
        let (head, tail) = body.split_at(at.min(body.len()));
        let content_type = if protobuf { PROTOBUF } else { JSON };
        for encoding in ["", "gzip"] {
            let info = info("get", "secrets");
            let plan = response_plan(&info, 200, content_type, encoding, &Obligations::default());
            let (_, facts) = run(plan.clone(), &[head, tail], ended);
            prop_assert!(facts.withheld.is_none_or(|withheld| withheld.bytes <= facts.bytes));
        }
    }

    #[test]
    fn any_damage_leaks_nothing(at in 0usize..200, byte in any::<u8>(), chunk in 1usize..60) {
        let mut body = br#"{"kind":"Secret","data":{"p":"hunter22hunter22"},"metadata":{"name":"a"}}"#.to_vec();
        // Not the bytes that make it a Secret's value: with another key it is none.
        let at = 15 + at % (body.len() - 15);
        let in_key = body[..at].ends_with(b"\"data") || (17..24).contains(&at);
        prop_assume!(!in_key);
        body[at] = byte;
        let plan = response_plan(&info("get", "secrets"), 200, JSON, "", &Obligations::default());
        let chunks: Vec<_> = body.chunks(chunk).collect();
        let (stored, _) = run(plan, &chunks, true);
        let text = String::from_utf8_lossy(&stored).into_owned();
        prop_assert!(!text.contains("hunter"), "{}", text);
    }
}
