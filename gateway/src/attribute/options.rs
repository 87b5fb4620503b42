//! What an exec, an attach or a port-forward asks for: its query, as the API server converts it
//! (`Convert_url_Values_To_v1_PodExecOptions` and its like in k8s.io/kubernetes v1.36).
//!
//! Policy decides on the answer and the record keeps it, so where the API server would run something that
//! cannot be written down as it is, the request is refused.

use std::borrow::Cow;

use recorder_user::model::{RequestInfo, StreamKind, StreamRequest};

use super::{
    AttributeError, Query,
    query::{is_decimal, is_true},
};

/// What a request asks to run or to carry; none where it is no stream. A request to a proxy is one also
/// without an upgrade, because whatever is behind it may do anything; any other `upgraded` request is one.
///
/// # Errors
/// When the query does not convert, or holds text that is not UTF-8: it could not be recorded as it would run.
pub fn stream_request(
    info: &RequestInfo,
    raw_query: Option<&str>,
    upgraded: bool,
) -> Result<Option<StreamRequest>, AttributeError> {
    let Some(kind) = kind(info, upgraded) else { return Ok(None) };
    let mut request = StreamRequest {
        kind,
        container: None,
        command: Vec::new(),
        stdin: false,
        stdout: false,
        stderr: false,
        tty: false,
        ports: Vec::new(),
    };
    match kind {
        StreamKind::Exec => Options::read(raw_query)?.runs(&mut request, true)?,
        StreamKind::Attach => Options::read(raw_query)?.runs(&mut request, false)?,
        StreamKind::PortForward => request.ports = Options::read(raw_query)?.ports()?,
        StreamKind::Proxy | StreamKind::Other => {}
    }
    Ok(Some(request))
}

fn kind(info: &RequestInfo, upgraded: bool) -> Option<StreamKind> {
    let of_pods = info.is_resource_request && info.api_group.is_empty() && info.resource == "pods";
    match info.subresource.as_str() {
        "exec" if of_pods => Some(StreamKind::Exec),
        "attach" if of_pods => Some(StreamKind::Attach),
        "portforward" if of_pods => Some(StreamKind::PortForward),
        "proxy" if info.is_resource_request => Some(StreamKind::Proxy),
        // Nobody but its own server knows what the query of such a request means.
        _ => upgraded.then_some(StreamKind::Other),
    }
}

/// The parameters of all three kinds, undecoded where that can fail.
#[derive(Default)]
struct Options<'a> {
    container: Option<Cow<'a, [u8]>>,
    command: Vec<Cow<'a, [u8]>>,
    stdin: Option<bool>,
    stdout: Option<bool>,
    stderr: Option<bool>,
    tty: Option<bool>,
    ports: Vec<Cow<'a, [u8]>>,
}

impl<'a> Options<'a> {
    /// In one pass: a command line may be 10,000 parameters.
    fn read(raw_query: Option<&'a str>) -> Result<Self, AttributeError> {
        let mut options = Self::default();
        for (key, value) in Query::new(raw_query)?.pairs() {
            let flag = match &*key {
                b"command" => {
                    options.command.push(value);
                    continue;
                }
                b"ports" => {
                    options.ports.push(value);
                    continue;
                }
                b"container" => {
                    options.container.get_or_insert(value);
                    continue;
                }
                b"stdin" => &mut options.stdin,
                b"stdout" => &mut options.stdout,
                b"stderr" => &mut options.stderr,
                b"tty" => &mut options.tty,
                _ => continue,
            };
            flag.get_or_insert_with(|| is_true(&value));
        }
        Ok(options)
    }

    fn runs(self, request: &mut StreamRequest, exec: bool) -> Result<(), AttributeError> {
        let container = self.container.filter(|name| !name.is_empty());
        request.container = container.map(|name| text(name, "container name")).transpose()?;
        if exec {
            let words = self.command.into_iter().map(|word| text(word, "command"));
            request.command = words.collect::<Result<_, _>>()?;
        }
        request.stdin = self.stdin.unwrap_or_default();
        request.stdout = self.stdout.unwrap_or_default();
        request.stderr = self.stderr.unwrap_or_default();
        request.tty = self.tty.unwrap_or_default();
        Ok(())
    }

    /// Each value is a comma-separated list.
    fn ports(self) -> Result<Vec<u16>, AttributeError> {
        let lists = self.ports.iter().map(|list| std::str::from_utf8(list));
        let mut ports = Vec::new();
        for list in lists {
            for port in list.map_err(|_| AttributeError::Ports)?.split(',') {
                // Rust's parser takes a plus sign, Go's does not.
                let port = Some(port).filter(|port| is_decimal(port));
                let port = port.and_then(|port| port.parse().ok()).ok_or(AttributeError::Ports)?;
                ports.push(port);
            }
        }
        Ok(ports)
    }
}

fn text(bytes: Cow<'_, [u8]>, what: &'static str) -> Result<String, AttributeError> {
    String::from_utf8(bytes.into_owned()).map_err(|_| AttributeError::NotText { what })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{super::request_info, *};

    fn ask(target: &str, upgraded: bool) -> Result<Option<StreamRequest>, AttributeError> {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let info = request_info(&Method::GET, path, query).expect("attributable");
        stream_request(&info, query, upgraded)
    }

    fn exec(query: &str) -> StreamRequest {
        let target = format!("/api/v1/namespaces/n/pods/p/exec?{query}");
        ask(&target, false).expect("text").expect("a stream")
    }

    #[test]
    fn the_first_value_counts_but_for_lists() {
        let asked = exec(
            "command=sh&tty=false&command=-c&container=a&command=&stdin&container=b&tty=1&stdout=0",
        );
        assert_eq!(asked.command, ["sh", "-c", ""]);
        assert_eq!(asked.container.as_deref(), Some("a"));
        assert!(asked.stdin && !asked.tty && !asked.stdout && !asked.stderr);
        assert_eq!(exec("container=&container=b").container, None);
        assert_eq!(exec("command=a%20b+c&command=%zz&command=x;y").command, ["a b c"]);
        assert!(exec("command=ls&ports=x").ports.is_empty());
    }

    #[test]
    fn kinds_are_those_of_pods_and_proxies() {
        let kind = |target: &str, upgraded| {
            let asked = ask(target, upgraded).expect("text");
            asked.map(|asked| asked.kind)
        };
        let pod = "/api/v1/namespaces/n/pods/p";
        assert_eq!(kind(&format!("{pod}/attach"), false), Some(StreamKind::Attach));
        assert_eq!(kind(&format!("{pod}/portforward"), false), Some(StreamKind::PortForward));
        for path in ["pods/p/proxy", "services/https:s:1/proxy/a/b"] {
            let path = format!("/api/v1/namespaces/n/{path}");
            assert_eq!(kind(&path, false), Some(StreamKind::Proxy), "{path}");
        }
        assert_eq!(kind("/api/v1/nodes/n/proxy/exec/a/b/c", true), Some(StreamKind::Proxy));
        assert_eq!(kind(&format!("{pod}/log"), false), None);
        let machine = "/apis/subresources.kubevirt.io/v1/namespaces/n/virtualmachineinstances/v";
        assert_eq!(kind(&format!("{machine}/portforward/22"), false), None);
        assert_eq!(kind(&format!("{machine}/portforward/22"), true), Some(StreamKind::Other));
        assert_eq!(kind("/x?command=%ff", true), Some(StreamKind::Other));
    }

    #[test]
    fn what_cannot_be_written_down_is_refused() {
        let pod = "/api/v1/namespaces/n/pods/p";
        let refused = |tail: &str| ask(&format!("{pod}/{tail}"), false).expect_err("refused");
        assert_eq!(refused("exec?command=%ff"), AttributeError::NotText { what: "command" });
        let container = AttributeError::NotText { what: "container name" };
        assert_eq!(refused("attach?container=%c3"), container);
        for ports in ["", "x", "%2b80", "-1", "65536", "80,", "80,%20443", "80&ports="] {
            assert_eq!(refused(&format!("portforward?ports={ports}")), AttributeError::Ports);
        }
        let asked = ask(&format!("{pod}/portforward?ports=80,0443&ports=0"), false);
        assert_eq!(asked.expect("numbers").expect("a stream").ports, [80, 443, 0]);
        // What is not read needs not be text: an attach has no command.
        assert!(ask(&format!("{pod}/attach?command=%ff"), false).is_ok());
    }
}
