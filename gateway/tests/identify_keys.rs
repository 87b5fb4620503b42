//! The life of an issuer's keys: rotation, outage, age, and how little the issuer is asked.

mod identify_issuer;

use std::{sync::Arc, time::Duration};

use gateway::identify::IdentifyError;
use identify_issuer::{SigningKey, TestIssuer, start, started, until, within};
use recorder_user::model::Timestamp;
use serde_json::json;

const SECOND: i64 = 1_000_000;

#[tokio::test]
async fn a_flood_of_forged_key_ids_does_not_reach_the_issuer() {
    let issuer = TestIssuer::start(&[SigningKey::shared()]).await;
    let running = started(&[issuer.entry("")], |authentication| {
        authentication.keys.cool_down = Duration::from_secs(3600);
    })
    .await;
    let now = Timestamp::now();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..200 {
        let mut claims = issuer.claims(now);
        claims["jti"] = json!(i.to_string());
        let header = json!({"alg": "RS256", "kid": format!("../../forged-{i}")}).to_string();
        let token = if i < 4 {
            SigningKey::shared().sign_text(&header, &claims.to_string())
        } else {
            format!("{}.AAAA", identify_issuer::unsigned(&header, &claims.to_string()))
        };
        let identifier = Arc::clone(&running.identifier);
        tasks.spawn(async move { identifier.identify(&token, now).await });
    }
    for result in within(tasks.join_all()).await {
        assert_eq!(result.err(), Some(IdentifyError::UnknownKey));
    }
    assert_eq!(issuer.key_requests(), 1, "the one fetch at the start");
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_by_all_who_wait() {
    let old = SigningKey::p256("old");
    let issuer = TestIssuer::start(&[&old]).await;
    let running = started(&[issuer.entry("")], |authentication| {
        authentication.keys.cool_down = Duration::ZERO;
    })
    .await;
    let new = Arc::new(SigningKey::p256("new"));
    issuer.publish(&[&old, &new]);
    issuer.hold(true);
    let now = Timestamp::now();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..50 {
        let mut claims = issuer.claims(now);
        claims["jti"] = json!(i.to_string());
        let (token, identifier) = (new.sign(&claims), Arc::clone(&running.identifier));
        tasks.spawn(async move { identifier.identify(&token, now).await });
    }
    // One thread: when the issuer is asked, all of them have begun to wait.
    until(|| issuer.key_requests() == 2).await;
    issuer.hold(false);
    for result in within(tasks.join_all()).await {
        result.expect("the new key is known now");
    }
    // Without a cool-down, one wish may be left over from before the fetch began.
    assert!(issuer.key_requests() <= 3, "{}", issuer.key_requests());
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_tokens_that_it_signed() {
    let (old, new) = (SigningKey::p256("old"), SigningKey::p256("new"));
    let issuer = TestIssuer::start(&[&old]).await;
    let running = started(&[issuer.entry("")], |authentication| {
        authentication.keys.cool_down = Duration::ZERO;
    })
    .await;
    let identifier = &running.identifier;
    let now = Timestamp::now();
    let old_token = old.sign(&issuer.claims(now));
    identifier.identify(&old_token, now).await.expect("good");
    identifier.identify(&old_token, now).await.expect("known");
    assert_eq!(identifier.stats(now).cache_hits, 1);

    issuer.publish(&[&new, &old]);
    identifier.identify(&new.sign(&issuer.claims(now)), now).await.expect("the new key");
    identifier.identify(&old_token, now).await.expect("still published");
    assert_eq!(identifier.stats(now).cache_hits, 2, "a new set alone drops nothing");

    issuer.publish(&[&new]);
    let newer = SigningKey::p256("newer");
    issuer.publish(&[&new, &newer]);
    identifier.identify(&newer.sign(&issuer.claims(now)), now).await.expect("the newer key");
    let refused = identifier.identify(&old_token, now).await;
    assert_eq!(refused.err(), Some(IdentifyError::UnknownKey));
}

#[tokio::test]
async fn the_timer_follows_the_issuer() {
    let (old, new) = (SigningKey::p256("old"), SigningKey::p256("new"));
    let issuer = TestIssuer::start(&[&old]).await;
    let running = started(&[issuer.entry("")], |authentication| {
        authentication.keys.refresh = Duration::from_millis(30);
    })
    .await;
    let now = Timestamp::now();
    let old_token = old.sign(&issuer.claims(now));
    running.identifier.identify(&old_token, now).await.expect("good");
    issuer.publish(&[&new]);
    let asked = issuer.key_requests();
    // The second fetch from here began after the change.
    until(|| issuer.key_requests() >= asked + 3).await;
    let refused = running.identifier.identify(&old_token, now).await;
    assert_eq!(refused.err(), Some(IdentifyError::UnknownKey));
}

#[tokio::test]
async fn a_refusal_does_not_outlive_the_keys_that_it_was_made_by() {
    let (old, new) = (SigningKey::p256("old"), SigningKey::p256("new"));
    let issuer = TestIssuer::start(&[&old]).await;
    let running = started(&[issuer.entry("")], |authentication| {
        authentication.keys.cool_down = Duration::from_secs(3600);
        authentication.keys.refresh = Duration::from_millis(30);
    })
    .await;
    let now = Timestamp::now();
    let token = new.sign(&issuer.claims(now));
    let refused = running.identifier.identify(&token, now).await;
    assert_eq!(refused.err(), Some(IdentifyError::UnknownKey));
    let hits = running.identifier.stats(now).cache_hits;
    running.identifier.identify(&token, now).await.expect_err("still unknown");
    assert_eq!(running.identifier.stats(now).cache_hits, hits + 1, "a refusal is known");
    issuer.publish(&[&new]);
    let asked = issuer.key_requests();
    until(|| issuer.key_requests() >= asked + 3).await;
    running.identifier.identify(&token, now).await.expect("published by now");
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start() {
    let issuer = TestIssuer::start(&[SigningKey::shared()]).await;
    issuer.set_down(true);
    let running = start(&[issuer.entry("")], |authentication| {
        authentication.keys.refresh = Duration::from_millis(30);
    });
    let identifier = &running.identifier;
    let now = Timestamp::now();
    until(|| identifier.stats(now).issuers[0].failures > 1).await;
    assert!(!identifier.ready(now));
    let token = SigningKey::shared().sign(&issuer.claims(now));
    let error = identifier.identify(&token, now).await.expect_err("no keys");
    assert_eq!(error.status().0, 503);
    issuer.set_down(false);
    within(identifier.wait_ready()).await;
    assert!(identifier.ready(now));
    identifier.identify(&token, now).await.expect("keys came");
}

#[tokio::test]
async fn an_issuer_that_goes_down_is_believed_up_to_the_stated_age() {
    let issuer = TestIssuer::start(&[SigningKey::shared()]).await;
    let running = started(&[issuer.entry("")], |authentication| {
        authentication.keys.refresh = Duration::from_millis(30);
        authentication.keys.max_stale = Duration::from_secs(3600);
        authentication.keys.cool_down = Duration::from_secs(3600);
    })
    .await;
    issuer.set_down(true);
    let identifier = &running.identifier;
    let start = Timestamp::now();
    until(|| identifier.stats(start).issuers[0].failures > 1).await;
    let mut claims = issuer.claims(start);
    claims["exp"] = json!(start.as_micros() / SECOND + 10 * 3600);
    let token = SigningKey::shared().sign(&claims);
    identifier.identify(&token, start).await.expect("known keys keep working");

    let soon = start.plus_micros(3500 * SECOND);
    identifier.identify(&token, soon).await.expect("not too old");
    claims["jti"] = json!("another");
    let other = SigningKey::shared().sign(&claims);
    let late = start.plus_micros(3700 * SECOND);
    for token in [&token, &other] {
        let refused = identifier.identify(token, late).await;
        assert_eq!(refused.err(), Some(IdentifyError::KeysUnavailable));
    }
    assert!(identifier.ready(soon) && !identifier.ready(late));
    assert!(identifier.stats(late).issuers[0].keys_age_seconds >= Some(3600));
}

#[tokio::test]
async fn a_known_token_ends_with_its_time() {
    let issuer = TestIssuer::start(&[SigningKey::shared()]).await;
    let running = started(&[issuer.entry("")], |_| {}).await;
    let identifier = &running.identifier;
    let now = Timestamp::now();
    let token = SigningKey::shared().sign(&issuer.claims(now));
    let identity = identifier.identify(&token, now).await.expect("good");
    let again = identifier.identify(&token, now).await.expect("known");
    assert!(Arc::ptr_eq(&identity, &again), "a hit gives the same identity");

    let last = identity.expires.plus_micros(-1);
    assert!(identity.still_valid(last) && !identity.still_valid(identity.expires));
    identifier.identify(&token, last).await.expect("within the leeway");
    let expired = identifier.identify(&token, identity.expires).await;
    assert_eq!(expired.err(), Some(IdentifyError::Expired));
    let stats = identifier.stats(now);
    assert_eq!((stats.cache_hits, stats.cache_misses, stats.cache_entries), (3, 1, 1));
    assert_eq!(issuer.key_requests(), 1);
}

#[tokio::test]
async fn only_signature_keys_verify() {
    let key = SigningKey::p256("a");
    let issuer = TestIssuer::start(&[]).await;
    let mut for_encryption = key.jwk();
    for_encryption["use"] = json!("enc");
    issuer.publish_json(vec![for_encryption, SigningKey::shared().jwk()]);
    let running = started(&[issuer.entry("")], |_| {}).await;
    let now = Timestamp::now();
    let refused = running.identifier.identify(&key.sign(&issuer.claims(now)), now).await;
    assert_eq!(refused.err(), Some(IdentifyError::UnknownKey));
    let good = SigningKey::shared().sign(&issuer.claims(now));
    running.identifier.identify(&good, now).await.expect("the other key");
}

#[tokio::test]
async fn no_keys_at_all_is_not_ready() {
    let issuer = TestIssuer::start(&[]).await;
    let running = started(&[issuer.entry("")], |_| {}).await;
    assert!(!running.identifier.ready(Timestamp::now()));
}
