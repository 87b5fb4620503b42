//! What a request becomes: an upgrade, a stream that lasts, a change.

use http::{HeaderMap, header};
use recorder_user::model::RequestInfo;

use super::Query;

/// The verb that policy is asked for.
///
/// `GET` on exec, attach and port-forward opens a shell or a tunnel, so it is `create`, as newer API servers
/// ask; also without an `Upgrade` header, so that no other reading of the headers can get round it. An
/// upgraded `GET` on a proxy is `create` for the same reason.
#[must_use]
pub fn effective_verb(info: &RequestInfo, upgraded: bool) -> &str {
    let creates = match info.subresource.as_str() {
        "exec" | "attach" | "portforward" => true,
        "proxy" => upgraded,
        _ => false,
    };
    if info.is_resource_request && info.verb == "get" && creates { "create" } else { &info.verb }
}

/// Whether a request can change the cluster: its intent must be durable before it is forwarded. What lies
/// behind a proxy or comes after an upgrade is unknown, so that counts always.
#[must_use]
pub fn may_change(info: &RequestInfo, upgraded: bool) -> bool {
    let reads =
        matches!(effective_verb(info, upgraded), "get" | "list" | "watch" | "head" | "options");
    !reads || upgraded || info.subresource == "proxy"
}

/// Whether the client asks to leave HTTP. Wider than any server's own test, so that nothing is an upgrade
/// there and an ordinary request here.
#[must_use]
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        || headers.get_all(header::CONNECTION).iter().any(|value| {
            value.as_bytes().to_ascii_lowercase().windows(7).any(|word| word == b"upgrade")
        })
}

/// Whether the exchange is expected to last: the API server's own test, but a log only when it is followed.
#[must_use]
pub fn is_long_running(info: &RequestInfo, raw_query: Option<&str>) -> bool {
    if matches!(info.verb.as_str(), "watch" | "proxy") {
        return true;
    }
    if !info.is_resource_request {
        return info.path.starts_with("/debug/pprof/");
    }
    match info.subresource.as_str() {
        "attach" | "exec" | "proxy" | "portforward" => true,
        "log" => Query::new(raw_query).is_ok_and(|query| query.is_true("follow")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::{super::request_info, *};

    fn info(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        request_info(&method, path, query).expect("attributable")
    }

    #[test]
    fn shells_are_created_whatever_the_method() {
        let pod = "/api/v1/namespaces/n/pods/p";
        for (method, tail, upgraded, verb, changes) in [
            ("GET", "/exec", true, "create", true),
            ("GET", "/exec", false, "create", true),
            ("GET", "/attach", true, "create", true),
            ("GET", "/portforward", true, "create", true),
            ("POST", "/exec", true, "create", true),
            ("GET", "/proxy/x", true, "create", true),
            ("GET", "/proxy/x", false, "get", true),
            ("GET", "/log", false, "get", false),
            ("GET", "", true, "get", true),
            ("GET", "", false, "get", false),
            ("DELETE", "", false, "delete", true),
            ("OPTIONS", "", false, "", true),
        ] {
            let info = info(method, &format!("{pod}{tail}"));
            assert_eq!(effective_verb(&info, upgraded), verb, "{method} {tail}");
            assert_eq!(may_change(&info, upgraded), changes, "{method} {tail}");
        }
    }

    #[test]
    fn what_lasts() {
        for (target, expected) in [
            ("/api/v1/pods?watch=1", true),
            ("/api/v1/watch/pods", true),
            ("/api/v1/pods", false),
            ("/api/v1/namespaces/n/pods/p/log", false),
            ("/api/v1/namespaces/n/pods/p/log?follow=false", false),
            ("/api/v1/namespaces/n/pods/p/log?follow=t", true),
            ("/api/v1/namespaces/n/pods/p/log?follow", true),
            ("/api/v1/namespaces/n/pods/p/exec", true),
            ("/api/v1/nodes/n/proxy/logs", true),
            ("/debug/pprof/profile", true),
            ("/healthz", false),
        ] {
            let info = info("GET", target);
            let query = target.split_once('?').map(|(_, query)| query);
            assert_eq!(is_long_running(&info, query), expected, "{target}");
        }
    }

    #[test]
    fn upgrades_are_seen_in_any_form() {
        let mut headers = HeaderMap::new();
        assert!(!is_upgrade(&headers));
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        assert!(!is_upgrade(&headers));
        headers.append(header::CONNECTION, HeaderValue::from_static("close, UPGRADE"));
        assert!(is_upgrade(&headers));
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(is_upgrade(&headers));
    }
}
