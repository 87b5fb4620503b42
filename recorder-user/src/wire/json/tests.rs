use proptest::prelude::*;

use super::*;

/// Takes every string whose last key is `take`, and everything inside arrays.
#[derive(Default)]
struct Recorder {
    raw: Vec<u8>,
    taken: Vec<(String, Vec<u8>)>,
    current: Vec<u8>,
    closed: Vec<usize>,
}

impl Visitor for Recorder {
    fn raw(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    fn scalar(&mut self, path: &Path, _: Scalar) -> Interest {
        match path.last() {
            Some(Segment::Key(b"take") | Segment::Index) => Interest::Take,
            _ => Interest::Pass,
        }
    }

    fn text(&mut self, piece: &[u8]) {
        self.current.extend_from_slice(piece);
    }

    fn taken(&mut self, path: &Path, _: Scalar) {
        let keys: Vec<_> = path.keys().map(String::from_utf8_lossy).collect();
        self.taken.push((keys.join("."), std::mem::take(&mut self.current)));
        self.raw.push(b'#');
    }

    fn close(&mut self, path: &Path) {
        self.closed.push(path.len());
    }
}

fn scan(input: &[u8], cuts: &[usize]) -> (Recorder, Result<(), JsonError>) {
    let (mut scanner, mut recorder) = (Scanner::new(), Recorder::default());
    let mut from = 0;
    for to in cuts.iter().copied().chain([input.len()]) {
        let to = to.clamp(from, input.len());
        if let Err(stopped) = scanner.feed(&input[from..to], &mut recorder) {
            return (recorder, Err(stopped.error));
        }
        from = to;
    }
    let end = scanner.finish(&mut recorder);
    (recorder, end)
}

#[test]
fn takes_decoded_and_passes_the_rest() {
    let input = br#" {"a":"x\"y", "take":"\u0064\ud83d\ude00\n\ud800z", "b":{"take":[1,"two",{"c":null}]}} 7 "#;
    let (recorder, end) = scan(input, &[]);
    end.expect("JSON");
    let raw = br#" {"a":"x\"y", "take":#, "b":{"take":[#,#,{"c":null}]}} 7 "#;
    assert_eq!(String::from_utf8_lossy(&recorder.raw), String::from_utf8_lossy(raw));
    let taken: Vec<_> =
        recorder.taken.iter().map(|(k, v)| (k.as_str(), String::from_utf8_lossy(v))).collect();
    assert_eq!(taken[0], ("take", "d😀\n\u{fffd}z".into()));
    assert_eq!(taken[1..], [("b.take", "1".into()), ("b.take", "two".into())]);
}

#[test]
fn strict() {
    for (input, error) in [
        (&b"\xef\xbb\xbf{}"[..], JsonError::Syntax),
        (b"{\0}", JsonError::Syntax),
        (b"{a:1}", JsonError::Syntax),
        (b"{'a':1}", JsonError::Syntax),
        (b"{\"a\":1,}", JsonError::Syntax),
        (b"{\"a\":1]", JsonError::Syntax),
        (b"[1 2]", JsonError::Syntax),
        (b"[01]", JsonError::Syntax),
        (b"[1.]", JsonError::Syntax),
        (b"[NaN]", JsonError::Syntax),
        (b"[nul]", JsonError::Syntax),
        (b"[\"a\nb\"]", JsonError::Syntax),
        (b"[\"\\x64\"]", JsonError::Syntax),
        (b"[\"\\u00g0\"]", JsonError::Syntax),
        (b"kind: Secret", JsonError::Syntax),
        (b"# comment", JsonError::Syntax),
        (b"{\"a\":\"b\"} # comment", JsonError::Syntax),
        (b"{\"a\":", JsonError::Truncated),
        (b"[\"a", JsonError::Truncated),
        (b"[1", JsonError::Truncated),
    ] {
        assert_eq!(scan(input, &[]).1, Err(error), "{}", String::from_utf8_lossy(input));
    }
    for input in [&b""[..], b" ", b"1", b"-0.5e+7", b"{} {}\n[]", b"[[],{}]"] {
        assert_eq!(scan(input, &[]).1, Ok(()), "{}", String::from_utf8_lossy(input));
    }
}

#[test]
fn bounds() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert_eq!(scan(&nested(DEPTH_MAX), &[]).1, Ok(()));
    assert_eq!(scan(&nested(DEPTH_MAX + 1), &[]).1, Err(JsonError::OverBound));
    let key = |length: usize| format!("{{\"{}\":1}}", "k".repeat(length)).into_bytes();
    assert_eq!(scan(&key(PATH_BYTES_MAX), &[]).1, Ok(()));
    assert_eq!(scan(&key(PATH_BYTES_MAX + 1), &[]).1, Err(JsonError::OverBound));
    assert_eq!(scan("1".repeat(TOKEN_BYTES_MAX).as_bytes(), &[]).1, Ok(()));
    assert_eq!(scan("1".repeat(TOKEN_BYTES_MAX + 1).as_bytes(), &[]).1, Err(JsonError::OverBound));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        Just(serde_json::Value::Null),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((prop_oneof![Just("take".into()), any::<String>()], inner), 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_chunking_is_the_same(value in json(), mut cuts in prop::collection::vec(0usize..400, 0..20)) {
        let input = serde_json::to_vec(&value).expect("JSON");
        cuts.sort_unstable();
        let (whole, end) = scan(&input, &[]);
        prop_assert_eq!(end, Ok(()));
        let (cut, end) = scan(&input, &cuts);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(whole.raw, cut.raw);
        prop_assert_eq!(whole.taken, cut.taken);
        prop_assert_eq!(whole.closed, cut.closed);
    }

    #[test]
    fn agrees_with_serde_json(input in prop_oneof![
        any::<String>(),
        r#"[\[\]{}:,"a1\-.e \\u0]{0,12}"#,
    ]) {
        let ours = scan(input.as_bytes(), &[]).1;
        let mut theirs = serde_json::Deserializer::from_str(&input).into_iter::<serde_json::Value>();
        if theirs.all(|value| value.is_ok()) {
            // serde_json refuses lone surrogates; we accept what it accepts.
            prop_assert_eq!(ours, Ok(()), "{:?}", input);
        }
    }

    #[test]
    fn any_bytes_are_safe(input in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
        let (whole, end) = scan(&input, &[]);
        let (cut, cut_end) = scan(&input, &[cut]);
        prop_assert_eq!(end, cut_end);
        prop_assert_eq!(whole.raw, cut.raw);
    }
}
