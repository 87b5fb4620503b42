//! Which tokens prove an identity, and which do not: against an issuer over real TLS.

mod identify_issuer;

use gateway::identify::{Class, IdentifyError};
use http::Response;
use identify_issuer::{
    Running, SigningKey, TestIssuer, configuration, sign_with, start, started, unsigned, until,
};
use jsonwebtoken::{Algorithm, EncodingKey};
use recorder_user::model::Timestamp;
use serde_json::{Value, json};

const SECOND: i64 = 1_000_000;

struct Subject {
    issuer: TestIssuer,
    running: Running,
    now: Timestamp,
}

impl Subject {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a change to the issuer's entry in the configuration.
    async fn with(change: impl FnOnce(&mut Value)) -> Self {
        let issuer = TestIssuer::start(&[SigningKey::shared()]).await;
        let mut entry = issuer.entry("");
        change(&mut entry);
        let running = started(&[entry], |_| {}).await;
        Self { issuer, running, now: Timestamp::now() }
    }

    /// Good claims but for these; null removes one.
    fn token(&self, changes: &Value) -> String {
        let mut claims = self.issuer.claims(self.now);
        let object = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            if value.is_null() {
                object.remove(name);
            } else {
                object.insert(name.clone(), value.clone());
            }
        }
        SigningKey::shared().sign(&claims)
    }

    async fn refused(&self, token: &str) -> IdentifyError {
        let error = self.running.identifier.identify(token, self.now).await.err();
        let error = error.expect("a token that proves nothing");
        let (status, reason, message) = error.status();
        assert_eq!((status, reason, error.class()), (401, "Unauthorized", Class::Client));
        assert!(!message.contains(token) && !message.contains("alice"), "{message}");
        error
    }

    async fn refused_claim(&self, changes: Value, expected: &str) {
        match self.refused(&self.token(&changes)).await {
            IdentifyError::Claim { claim, .. } if claim == expected => {}
            other => panic!("{changes}: {other}"),
        }
    }

    async fn groups(&self, changes: Value) -> Vec<String> {
        let token = self.token(&changes);
        let identity = self.running.identifier.identify(&token, self.now).await;
        identity.unwrap_or_else(|error| panic!("{changes}: {error}")).principal.groups.clone()
    }

    fn seconds(&self) -> i64 {
        self.now.as_micros() / SECOND
    }
}

#[tokio::test]
async fn a_good_token_proves_its_principal() {
    let subject = Subject::new().await;
    let token = subject.token(&json!({}));
    let identity = subject.running.identifier.identify(&token, subject.now).await.expect("good");
    let principal = &identity.principal;
    assert_eq!(principal.issuer, subject.issuer.url);
    assert_eq!(principal.subject, "alice");
    assert_eq!(principal.username, "alice");
    assert_eq!(principal.groups, ["developers", "oncall"]);
    assert_eq!(principal.uid, None);
    assert_eq!(identity.token.id, "token-1");
    let expires = identity.token.expires.expect("exp");
    assert_eq!(expires.as_micros(), (subject.seconds() + 3600) * SECOND);
    assert_eq!(identity.expires.micros_since(expires), 30 * SECOND);
}

#[tokio::test]
async fn the_token_id_is_a_hash_without_a_plain_jti() {
    let subject = Subject::new().await;
    for jti in [json!(null), json!(""), json!("a\nb"), json!(7), json!("x".repeat(500))] {
        let token = subject.token(&json!({"jti": jti}));
        let identity =
            subject.running.identifier.identify(&token, subject.now).await.expect("good");
        let hash = blake3::hash(token.as_bytes()).to_hex();
        assert_eq!(identity.token.id, hash[..16]);
    }
}

#[tokio::test]
async fn times_are_judged_with_leeway() {
    let subject = Subject::new().await;
    let now = subject.seconds();
    for (changes, expected) in [
        (json!({"exp": now - 25}), None),
        (json!({"exp": now - 31}), Some(IdentifyError::Expired)),
        (json!({"exp": 0}), Some(IdentifyError::Expired)),
        (json!({"nbf": now + 25}), None),
        (json!({"nbf": now + 35}), Some(IdentifyError::NotYetValid)),
        (json!({"exp": f64::from(u32::MAX) + 0.5}), None),
    ] {
        let token = subject.token(&changes);
        let result = subject.running.identifier.identify(&token, subject.now).await;
        assert_eq!(result.err(), expected, "{changes}");
    }
    for exp in [json!(null), json!("9999999999"), json!(-5), json!(1e300), json!([1])] {
        subject.refused_claim(json!({"exp": exp}), "exp").await;
    }
    subject.refused_claim(json!({"nbf": "soon"}), "nbf").await;
}

#[tokio::test]
async fn audiences_and_issuers_are_exact() {
    let subject = Subject::new().await;
    for aud in [json!("decklog"), json!(["other", "decklog"])] {
        assert!(!subject.groups(json!({"aud": aud})).await.is_empty());
    }
    for aud in [
        json!("other"),
        json!("decklog2"),
        json!("Decklog"),
        json!([]),
        json!([["decklog"]]),
        json!({"decklog": 1}),
        json!(null),
    ] {
        let error = subject.refused(&subject.token(&json!({"aud": aud}))).await;
        assert_eq!(error, IdentifyError::Audience, "{aud}");
    }
    let url = subject.issuer.url.clone();
    for iss in [
        json!(format!("{url}/")),
        json!(url.to_uppercase()),
        json!([url]),
        json!("https://elsewhere.example"),
        json!(null),
    ] {
        let error = subject.refused(&subject.token(&json!({"iss": iss}))).await;
        assert_eq!(error, IdentifyError::UnknownIssuer, "{iss}");
    }
}

#[tokio::test]
async fn signatures_that_prove_nothing() {
    let subject = Subject::new().await;
    let claims = subject.issuer.claims(subject.now).to_string();
    let none = unsigned(r#"{"alg":"none"}"#, &claims);
    assert_eq!(subject.refused(&format!("{none}.")).await, IdentifyError::Algorithm);

    let public = SigningKey::shared().public_pem.clone();
    let secret = EncodingKey::from_secret(public.as_bytes());
    let confused =
        sign_with(r#"{"alg":"HS256","kid":"shared"}"#, &claims, &secret, Algorithm::HS256);
    assert_eq!(subject.refused(&confused).await, IdentifyError::Algorithm);

    // The right header over another algorithm's signature.
    let disguised =
        sign_with(r#"{"alg":"RS256","kid":"shared"}"#, &claims, &secret, Algorithm::HS256);
    assert_eq!(subject.refused(&disguised).await, IdentifyError::Signature);

    let other = SigningKey::p256("shared");
    let header = r#"{"alg":"ES256","kid":"shared"}"#;
    let wrong_kind = other.sign_text(header, &claims);
    assert_eq!(subject.refused(&wrong_kind).await, IdentifyError::UnknownKey);

    let good = SigningKey::shared().sign(&subject.issuer.claims(subject.now));
    let (signed, signature) = good.rsplit_once('.').expect("parts");
    let (header, _) = signed.split_once('.').expect("parts");
    let mut admin = subject.issuer.claims(subject.now);
    admin["groups"] = json!(["admins"]);
    let body = unsigned("", &admin.to_string());
    let changed = format!("{header}{body}.{signature}");
    assert_eq!(subject.refused(&changed).await, IdentifyError::Signature);
}

#[tokio::test]
async fn a_key_in_the_header_is_never_used() {
    let subject = Subject::new().await;
    let own = SigningKey::p256("mine");
    let claims = subject.issuer.claims(subject.now).to_string();
    let header = json!({
        "alg": "ES256", "jwk": own.jwk(), "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/chain",
    });
    let token = own.sign_text(&header.to_string(), &claims);
    assert_eq!(subject.refused(&token).await, IdentifyError::UnknownKey);
}

#[tokio::test]
async fn the_allow_list_of_algorithms_is_the_issuers() {
    let subject = Subject::with(|entry| entry["algorithms"] = json!(["ES256"])).await;
    let token = subject.token(&json!({}));
    assert_eq!(subject.refused(&token).await, IdentifyError::Algorithm);
}

#[tokio::test]
async fn tokens_without_a_key_id_and_for_apis() {
    let subject = Subject::new().await;
    let claims = subject.issuer.claims(subject.now).to_string();
    for header in [r#"{"alg":"RS256"}"#, r#"{"alg":"RS256","kid":"shared","typ":"at+jwt"}"#] {
        let token = SigningKey::shared().sign_text(header, &claims);
        let result = subject.running.identifier.identify(&token, subject.now).await;
        assert!(result.is_ok(), "{header}: {result:?}");
    }
}

#[tokio::test]
async fn malformed_tokens() {
    let subject = Subject::new().await;
    let claims = subject.issuer.claims(subject.now).to_string();
    let twice = claims.replacen('{', r#"{"sub":"root","#, 1);
    let header = r#"{"alg":"RS256","kid":"shared"}"#;
    let token = SigningKey::shared().sign_text(header, &twice);
    assert!(matches!(subject.refused(&token).await, IdentifyError::Malformed(_)));
    let huge = subject.token(&json!({"padding": "x".repeat(9000)}));
    assert_eq!(subject.refused(&huge).await, IdentifyError::TooLarge);
    let critical =
        SigningKey::shared().sign_text(r#"{"alg":"RS256","kid":"shared","crit":["x"]}"#, &claims);
    assert!(matches!(subject.refused(&critical).await, IdentifyError::Malformed(_)));
    let four_parts = format!("{}.x", subject.token(&json!({})));
    assert!(matches!(subject.refused(&four_parts).await, IdentifyError::Malformed(_)));
}

#[tokio::test]
async fn groups_in_all_their_forms() {
    let subject = Subject::new().await;
    assert_eq!(subject.groups(json!({"groups": "one"})).await, ["one"]);
    assert_eq!(subject.groups(json!({"groups": ["a", "b", "a"]})).await, ["a", "b"]);
    for empty in [json!(null), json!([])] {
        assert!(subject.groups(json!({"groups": empty})).await.is_empty());
    }
    let many: Vec<String> = (0..600).map(|i| format!("g{i}")).collect();
    for bad in [
        json!(5),
        json!({"a": 1}),
        json!(["a", 5]),
        json!(["a", ""]),
        json!(""),
        json!(["x\r\nImpersonate-User: root"]),
        json!([" a"]),
        json!(["x".repeat(600)]),
        json!(["system:masters"]),
        json!(many),
    ] {
        subject.refused_claim(json!({"groups": bad}), "groups").await;
    }
    let reference = json!({"groups": null, "_claim_names": {"groups": "src1"}});
    subject.refused_claim(reference, "groups").await;
}

#[tokio::test]
async fn prefixes_do_not_multiply_groups_without_bound() {
    let subject = Subject::with(|entry| {
        entry["claimMappings"]["groups"]["prefix"] = json!("p".repeat(128));
    })
    .await;
    let groups = |count: usize| (0..count).map(|i| format!("group-{i}")).collect::<Vec<_>>();
    assert_eq!(subject.groups(json!({"groups": groups(180)})).await.len(), 180);
    subject.refused_claim(json!({"groups": groups(260)}), "groups").await;
}

#[tokio::test]
async fn names_that_are_no_names() {
    let subject = Subject::new().await;
    for bad in [
        json!(null),
        json!(""),
        json!(" alice"),
        json!("alice "),
        json!("\u{a0}alice"),
        json!("ali\u{0}ce"),
        json!("ali\nce"),
        json!("ali\u{85}ce"),
        json!("x".repeat(600)),
        json!(["alice"]),
        json!(7),
        json!("system:masters"),
        json!("system:admin"),
        json!("system:anonymous"),
        json!("system:serviceaccount:kube-system:default"),
    ] {
        subject.refused_claim(json!({"sub": bad}), "sub").await;
    }
    for good in ["Älice Ünlich", "system", "System:masters", "a:b"] {
        assert!(!subject.groups(json!({"sub": good})).await.is_empty());
    }
}

#[tokio::test]
async fn service_accounts_where_the_issuer_may_name_them() {
    let subject = Subject::with(|entry| {
        entry["allowedSystemPrefixes"] = json!(["system:serviceaccount:"]);
    })
    .await;
    let token = subject.token(&json!({"sub": "system:serviceaccount:ci:agent", "groups": null}));
    let identity = subject.running.identifier.identify(&token, subject.now).await.expect("good");
    assert_eq!(identity.principal.groups, ["system:serviceaccounts", "system:serviceaccounts:ci"]);
    assert!(gateway::identify::impersonation_groups(&identity.principal).is_empty());
    for bad in [
        "system:serviceaccount:",
        "system:serviceaccount:ci",
        "system:serviceaccount::agent",
        "system:serviceaccount:ci:agent:x",
        "system:serviceaccount:Ci:agent",
        "system:serviceaccounts",
        "system:masters",
    ] {
        subject.refused_claim(json!({"sub": bad, "groups": null}), "sub").await;
    }
    let with_groups = json!({"sub": "system:serviceaccount:ci:agent", "groups": ["x"]});
    subject.refused_claim(with_groups, "groups").await;
}

#[tokio::test]
async fn mappings_prefixes_and_rules() {
    let subject = Subject::with(|entry| {
        entry["claimMappings"] = json!({
            "username": {"claim": "email", "prefix": "oidc:"},
            "groups": {"claim": "roles", "prefix": "oidc:"},
            "uid": {"claim": "oid"},
            "extra": [{"key": "example.com/team", "valueExpression": "claims.team"}],
        });
        entry["claimValidationRules"] = json!([{"claim": "hd", "requiredValue": "example.com"}]);
    })
    .await;
    let mut good = json!({
        "email": "a@example.com", "email_verified": true, "roles": ["dev"], "oid": "u-1",
        "team": ["blue"], "hd": "example.com",
    });
    let token = subject.token(&good);
    let identity = subject.running.identifier.identify(&token, subject.now).await.expect("good");
    let principal = &identity.principal;
    assert_eq!(principal.username, "oidc:a@example.com");
    assert_eq!(principal.groups, ["oidc:dev"]);
    assert_eq!(principal.uid.as_deref(), Some("u-1"));
    assert_eq!(principal.extra["example.com/team"], ["blue"]);
    assert_eq!(gateway::identify::impersonation_groups(principal), ["oidc:dev"]);

    for (claim, bad) in [
        ("email_verified", json!(false)),
        ("email_verified", json!("true")),
        ("email", json!("")),
        ("oid", json!(" ")),
        ("team", json!([""])),
        ("hd", json!("example.org")),
        ("hd", json!(["example.com"])),
        ("hd", json!(null)),
    ] {
        let before = good[claim].take();
        good[claim] = bad;
        subject.refused_claim(good.clone(), claim).await;
        good[claim] = before;
    }
}

#[tokio::test]
async fn issuers_cannot_speak_for_each_other() {
    let (first_key, second_key) = (SigningKey::shared(), SigningKey::p256("second"));
    let first = TestIssuer::start(&[first_key]).await;
    let second = TestIssuer::start(&[&second_key]).await;
    let running = start(&[first.entry(""), second.entry("two:")], |_| {});
    let now = Timestamp::now();
    until(|| running.identifier.stats(now).issuers.iter().all(|issuer| issuer.keys == 1)).await;
    let identify = async |token: String| running.identifier.identify(&token, now).await;

    let one = identify(first_key.sign(&first.claims(now))).await.expect("the first's");
    assert_eq!(one.principal.username, "alice");
    let two = identify(second_key.sign(&second.claims(now))).await.expect("the second's");
    assert_eq!(two.principal.username, "two:alice");

    let crossed = identify(second_key.sign(&first.claims(now))).await;
    assert_eq!(crossed.err(), Some(IdentifyError::UnknownKey));

    let mut claims = first.claims(now);
    claims["sub"] = json!("two:alice");
    let impostor = identify(first_key.sign(&claims)).await;
    assert!(matches!(impostor, Err(IdentifyError::Claim { .. })), "{impostor:?}");
}

#[tokio::test]
async fn metadata_and_keys_that_are_not_believed() {
    let moved = Response::builder().status(302).header("location", "https://elsewhere.example");
    let plain = |url: &str| json!({"issuer": url, "jwks_uri": url.replace("https", "http")});
    let issuer = TestIssuer::start(&[SigningKey::shared()]).await;
    let keys = format!("{}/keys", issuer.url);
    let foreign = json!({"issuer": "https://elsewhere.example", "jwks_uri": keys});
    for answer in [
        moved.body("".into()).expect("a response"),
        Response::new(foreign.to_string().into()),
        Response::new(plain(&issuer.url).to_string().into()),
        Response::new("x".repeat(2 << 20).into()),
        Response::new("not json".into()),
    ] {
        issuer.answer_discovery(answer);
        let running = start(&[issuer.entry("")], |_| {});
        let now = Timestamp::now();
        until(|| running.identifier.stats(now).issuers[0].failures > 0).await;
        assert!(!running.identifier.ready(now));
    }
    assert_eq!(issuer.key_requests(), 0);
}

#[tokio::test]
async fn an_issuer_that_tls_does_not_vouch_for_is_not_asked() {
    let issuer = TestIssuer::start(&[SigningKey::shared()]).await;
    let other = TestIssuer::start(&[]).await;
    let mut entry = issuer.entry("");
    entry["issuer"]["certificateAuthority"] = json!(other.certificate);
    let running = start(&[entry], |_| {});
    until(|| running.identifier.stats(Timestamp::now()).issuers[0].failures > 0).await;
    assert_eq!(issuer.key_requests(), 0);
}

#[tokio::test]
async fn the_configuration_shows_no_secret() {
    let issuer = TestIssuer::start(&[]).await;
    let (_directory, file) = configuration(&[issuer.entry("")]);
    std::fs::write(file.with_file_name("token"), "very-secret").expect("a file");
    let config = gateway::config::Config::load(&file).expect("good");
    let access = gateway::config::ClusterAccess::load(&config.clusters[0]).expect("readable");
    let token = access.token.as_ref().expect("a token").authorization();
    assert_eq!(token, "Bearer very-secret");
    for text in
        [config.masked(), format!("{config:?}"), format!("{access:?}"), format!("{token:?}")]
    {
        assert!(!text.contains("very-secret"), "{text}");
    }
}
