//! The gateway's own path prefixes, and which targets are paths at all.

use http::{Method, Uri, Version};

use super::AttributeError;

/// A task (and a cluster's name) has at most this many bytes, like a Kubernetes label; longer ones are refused.
pub const TASK_BYTES_MAX: usize = 63;

/// A path split into the gateway's prefixes and the API server's own path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// From `/clusters/NAME`.
    pub cluster: Option<&'a str>,
    /// From `/tasks/TASK`: chosen by the client, so never proof of anything.
    pub task: Option<&'a str>,
    /// The path for the API server, still encoded; begins with a slash.
    pub rest: &'a str,
}

/// Strips `[/clusters/NAME][/tasks/TASK]` from a raw path.
///
/// # Errors
/// When the path is not absolute or a name is malformed. Whether the cluster exists is the caller's to say.
pub fn route(raw_path: &str) -> Result<Route<'_>, AttributeError> {
    if !raw_path.starts_with('/') {
        return Err(AttributeError::NotAPath);
    }
    let (cluster, rest) = strip(raw_path, "/clusters", "cluster name")?;
    let (task, rest) = strip(rest, "/tasks", "task")?;
    Ok(Route { cluster, task, rest })
}

/// The raw path and query of a target that is a path: not `*`, not an authority, not an absolute URL over
/// HTTP/1 (HTTP/2 always carries scheme and authority, beside the path).
///
/// # Errors
/// When the target is of another form, or the method is `CONNECT`.
pub fn target<'a>(
    method: &Method,
    uri: &'a Uri,
    version: Version,
) -> Result<(&'a str, Option<&'a str>), AttributeError> {
    if method == Method::CONNECT {
        return Err(AttributeError::Connect);
    }
    let absolute = uri.scheme().is_some() || uri.authority().is_some();
    if (absolute && version < Version::HTTP_2) || !uri.path().starts_with('/') {
        return Err(AttributeError::NotAPath);
    }
    Ok((uri.path(), uri.query()))
}

/// The raw path and query of a target that is too long for `http::Uri`.
///
/// # Errors
/// As [`target`]; also when it holds what `http::Uri` would not take.
pub fn long_target<'a>(
    method: &Method,
    target: &'a str,
) -> Result<(&'a str, Option<&'a str>), AttributeError> {
    if method == Method::CONNECT {
        return Err(AttributeError::Connect);
    }
    if !is_long_target(target) {
        return Err(AttributeError::NotAPath);
    }
    Ok(target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query))))
}

/// Whether a text is a path and query as `http::Uri` would take it: visible ASCII, no fragment.
fn is_long_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

/// Whether a text may be a task: 1 to 63 of `[A-Za-z0-9._-]`, and not a dot segment.
#[must_use]
pub fn is_task(text: &str) -> bool {
    (1..=TASK_BYTES_MAX).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn strip<'a>(
    path: &'a str,
    prefix: &str,
    what: &'static str,
) -> Result<(Option<&'a str>, &'a str), AttributeError> {
    let Some(behind) = path.strip_prefix(prefix) else { return Ok((None, path)) };
    let Some(behind) = behind.strip_prefix('/') else {
        // `/clusters` alone asks for nothing; `/clustersx` is the API server's own path.
        let none = behind.is_empty();
        return if none { Err(AttributeError::Prefix { what }) } else { Ok((None, path)) };
    };
    let end = behind.find('/').unwrap_or(behind.len());
    let (name, rest) = behind.split_at(end);
    if !is_task(name) {
        return Err(AttributeError::Prefix { what });
    }
    Ok((Some(name), if rest.is_empty() { "/" } else { rest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_stripped_in_order() {
        let check = |path, cluster, task, rest| {
            assert_eq!(route(path), Ok(Route { cluster, task, rest }), "{path}");
        };
        check("/api/v1/pods", None, None, "/api/v1/pods");
        check("/clusters/prod/api", Some("prod"), None, "/api");
        check("/tasks/T-1/api", None, Some("T-1"), "/api");
        check("/clusters/prod/tasks/a.b_c/api", Some("prod"), Some("a.b_c"), "/api");
        check("/clusters/prod", Some("prod"), None, "/");
        check("/tasks/t/", None, Some("t"), "/");
        check("/tasks/t/clusters/prod/api", None, Some("t"), "/clusters/prod/api");
        check("/tasks/t/tasks/u/api", None, Some("t"), "/tasks/u/api");
        check("/clustersx/prod", None, None, "/clustersx/prod");
        check("/tasks/t//api", None, Some("t"), "//api");
    }

    #[test]
    fn malformed_names_are_refused() {
        let long = format!("/tasks/{}/api", "x".repeat(TASK_BYTES_MAX + 1));
        for path in
            ["/tasks//api", "/tasks/../api", "/tasks/%41/api", "/clusters/", "/clusters", &long]
        {
            assert!(matches!(route(path), Err(AttributeError::Prefix { .. })), "{path}");
        }
        assert!(route(&format!("/tasks/{}/api", "x".repeat(TASK_BYTES_MAX))).is_ok());
        assert_eq!(route("api"), Err(AttributeError::NotAPath));
        assert_eq!(route("*"), Err(AttributeError::NotAPath));
    }

    #[test]
    fn only_paths_are_targets() {
        let parse = |method: &Method, text: &str, version| {
            let uri: Uri = text.parse().expect("a target of the table");
            target(method, &uri, version).map(|(path, query)| (path.to_owned(), query.is_some()))
        };
        let (get, h1, h2) = (Method::GET, Version::HTTP_11, Version::HTTP_2);
        assert_eq!(parse(&get, "/api?x", h1), Ok(("/api".to_owned(), true)));
        assert_eq!(parse(&get, "https://host/api", h2), Ok(("/api".to_owned(), false)));
        assert_eq!(parse(&get, "https://host/api", h1), Err(AttributeError::NotAPath));
        assert_eq!(parse(&Method::OPTIONS, "*", h1), Err(AttributeError::NotAPath));
        assert_eq!(parse(&Method::CONNECT, "host:443", h1), Err(AttributeError::Connect));
        assert_eq!(parse(&Method::CONNECT, "https://h/api", h2), Err(AttributeError::Connect));
    }

    #[test]
    fn long_targets_are_visible_ascii() {
        assert!(is_long_target("/a?b=%00&c=/"));
        for bad in ["", "a", "/a b", "/a\tb", "/\u{e4}", "/a#b", "http://h/", "/a\u{7f}"] {
            assert!(!is_long_target(bad), "{bad:?}");
        }
    }
}
