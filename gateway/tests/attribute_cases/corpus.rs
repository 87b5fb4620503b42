//! Requests written by hand: what clients send, and what attackers would.

use super::Case;

/// All of them, the same each time.
pub(crate) fn corpus() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |method: &str, url: String| {
        cases.push(Case { method: method.to_owned(), url });
    };
    for method in METHODS {
        for path in PATHS {
            add(method, (*path).to_owned());
        }
    }
    for path in ODD_PATHS {
        for method in ["GET", "POST", "DELETE"] {
            add(method, (*path).to_owned());
        }
    }
    for query in QUERIES {
        for path in
            ["/api/v1/pods", "/apis/apps/v1/namespaces/n/deployments/", "/api/v1/watch/pods"]
        {
            add("GET", format!("{path}?{query}"));
        }
        add("DELETE", format!("/api/v1/namespaces/n/pods?{query}"));
        add("GET", format!("/api/v1/namespaces/n/pods/p?{query}"));
    }
    for query in STREAM_QUERIES {
        for subresource in ["exec", "attach", "portforward", "proxy/exec"] {
            add("GET", format!("/api/v1/namespaces/n/pods/p/{subresource}?{query}"));
        }
        add("POST", format!("/api/v1/namespaces/n/pods/p/exec?{query}"));
    }
    let long = |count: usize| vec!["tty"; count].join("&");
    for query in [long(10_000), long(10_001), "command=y".repeat(200)] {
        add("POST", format!("/api/v1/namespaces/n/pods/p/exec?{query}"));
    }
    for target in
        ["*", "https://host/api/v1/pods", "api/v1/pods", "host:443", "?watch=1", "//h/api"]
    {
        add("GET", target.to_owned());
        add("OPTIONS", target.to_owned());
    }
    cases.sort();
    cases.dedup();
    cases
}

const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "Post", "PURGE"];

const PATHS: &[&str] = &[
    "/",
    "/api",
    "/api/",
    "/api/v1",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/apis/apps/v1/",
    "/healthz",
    "/version",
    "/openapi/v3/apis/apps/v1",
    "/metrics",
    "/api/v1/pods",
    "/api/v1/nodes/n",
    "/api/v1/nodes/n/proxy/exec/a/b/c",
    "/api/v1/namespaces",
    "/api/v1/namespaces/n",
    "/api/v1/namespaces/n/",
    "/api/v1/namespaces/n/status",
    "/api/v1/namespaces/n/finalize",
    "/api/v1/namespaces/n/finalize/x",
    "/api/v1/namespaces/n/pods",
    "/api/v1/namespaces/n/pods/",
    "/api/v1/namespaces/n/pods/p",
    "/api/v1/namespaces/n/pods/p/",
    "/api/v1/namespaces/n/pods/p/log",
    "/api/v1/namespaces/n/pods/p/exec",
    "/api/v1/namespaces/n/pods/p/exec/",
    "/api/v1/namespaces/n/pods/p/eviction",
    "/api/v1/namespaces/n/pods/p/proxy/a/b",
    "/api/v1/namespaces/n/services/https:s:443/proxy/",
    "/api/v1/namespaces/n/serviceaccounts/s/token",
    "/api/v1/namespaces/n/secrets",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/namespaces/n/deployments/d/scale",
    "/apis/apps/v1/namespaces",
    "/apis/apps/v1/namespaces/n",
    "/apis/example.com/v1alpha1/namespaces/n/secrets/s",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/api/v1/watch/pods",
    "/api/v1/watch/namespaces/n/pods",
    "/api/v1/watch/namespaces/n/pods/p",
    "/api/v1/watch/namespaces",
    "/api/v1/watch/namespaces/n",
    "/apis/apps/v1/watch/deployments",
    "/api/v1/watch",
    "/apis/apps/v1/watch/",
    "/api/v1/proxy",
    "/api/v1/proxy/nodes/n",
    "/api/v1/proxy/namespaces/n/pods/p/x/y",
    "/api/v1/watch/proxy/pods",
    "/api/v1/watch/watch/pods",
];

const ODD_PATHS: &[&str] = &[
    "/API/v1/pods",
    "/Api/v1/pods",
    "/apis/APPS/V1/Deployments",
    "/apix/v1/pods",
    "//api/v1/pods",
    "/api//v1/pods",
    "/api/v1//pods",
    "/api/v1/pods//",
    "/api/v1/namespaces//pods",
    "/api/v1/namespaces/n//pods",
    "/api/v1/./pods",
    "/api/v1/../v1/pods",
    "/api/v1/namespaces/n/../kube-system/pods",
    "/api/v1/namespaces/n/pods/..",
    "/api/v1/namespaces/n/pods/%2e%2e/secrets",
    "/api/v1/namespaces/n/pods/.%2E",
    "/api/v1/namespaces/n/pods/...",
    "/api/v1/namespaces/n/pods/.hidden",
    "/api/v1/namespaces%2fn/pods",
    "/api/v1/namespaces/n%2Fpods",
    "/%2fapi/v1/pods",
    "/api%2fv1%2fpods",
    "/api/v1/namespaces/n/pods/p%2flog",
    "/%61pi/v1/pods",
    "/api/v1/%70ods",
    "/api/v1/namespaces/n/pods/p%20q",
    "/api/v1/namespaces/n/pods/p+q",
    "/api/v1/namespaces/n/pods/p%00",
    "/api/v1/namespaces/n/pods/p%0a",
    "/api/v1/namespaces/n/pods/p%7f",
    "/api/v1/namespaces/n/pods/p%c3%a9",
    "/api/v1/namespaces/n/pods/p%ff",
    "/api/v1/namespaces/n/pods/%252e%252e",
    "/api/v1/namespaces/n/pods/%252f",
    "/api/v1/namespaces/n/pods/p%3fwatch=1",
    "/api/v1/namespaces/n/pods/p%23x",
    "/api/v1/namespaces/n/pods/p%",
    "/api/v1/namespaces/n/pods/p%2",
    "/api/v1/namespaces/n/pods/p%zz",
    "/api/v1/namespaces/n/pods/p;x=1/log",
    "/api/v1/namespaces;x/n/pods",
    "/api/v1/namespaces/n/pods/p\\..\\q",
    "/api/v1/namespaces/n/pods/p%5c..",
    "/api/v1/namespaces/n/pods/p:8080/proxy",
    "/api/v1/namespaces/n/status/x/y",
    "/api/v1/namespaces/status",
    "/api/v1/namespaces/status/status",
    "/api/v1/namespaces/n/namespaces/m",
    "/api/v1/namespaces/n/watch/pods",
    "/apis/namespaces/v1/namespaces/n/pods",
    "/api/v1/pods/p/exec",
    "/clusters/c/api/v1/pods",
    "/api/v1/namespaces/n/pods/p/log/a/b/c/d",
];

const QUERIES: &[&str] = &[
    "",
    "watch",
    "watch=",
    "watch=1",
    "watch=0",
    "watch=true",
    "watch=TRUE",
    "watch=false",
    "watch=FaLsE",
    "watch=fal%c5%bfe",
    "watch=yes",
    "watch=f",
    "watch=%ff",
    "watch=false&watch=true",
    "watch=true&watch=false",
    "Watch=true",
    "%77atch=1",
    "watch=1;x",
    "watch=%zz",
    "watch=%zz&watch=0",
    "a;b&watch=1",
    "watch=1#fragment",
    "limit=500",
    "limit=",
    "limit=x&watch=1",
    "limit=x&watch=fal%c5%bfe",
    "limit=x&watch=FALSE",
    "limit=9223372036854775808",
    "limit=%2b5",
    "limit=1_0",
    "timeoutSeconds=abc&fieldSelector=metadata.name%3Da",
    "timeoutSeconds=-5&fieldSelector=metadata.name%3Da",
    "fieldSelector=metadata.name%3Da",
    "fieldSelector=metadata.name%3D%3Da",
    "fieldSelector=metadata.name!%3Da",
    "fieldSelector=metadata.name=a",
    "fieldSelector=metadata.name%3Da&watch=1",
    "fieldSelector=metadata.name%3D",
    "fieldSelector=metadata.name%3D.",
    "fieldSelector=metadata.name%3D..",
    "fieldSelector=metadata.name%3Da%2Fb",
    "fieldSelector=metadata.name%3Da%25b",
    "fieldSelector=metadata.name%3Da%5C%2Cb",
    "fieldSelector=metadata.name%3Da%5Cb",
    "fieldSelector=metadata.name%3Db,metadata.name%3Da",
    "fieldSelector=metadata.name%3D%3Db,metadata.name%3Da",
    "fieldSelector=metadata.name%3Da,spec.nodeName%3Dn",
    "fieldSelector=metadata.name%3Da,bad",
    "fieldSelector=metadata.namespace%3Dn",
    "fieldSelector=+metadata.name%3Da",
    "fieldSelector=metadata.name+%3Da",
    "fieldSelector=bad&watch=1",
    "fieldSelector==",
    "fieldSelector=%3D,,",
    "fieldSelector=metadata.name%3Da&fieldSelector=metadata.name%3Db",
    "fieldSelector=metadata.name%3D%c3%a9",
    "fieldSelector=%ff",
    "labelSelector=app%3Dx",
    "labelSelector=app&fieldSelector=metadata.name%3Da",
    "labelSelector=%21app&fieldSelector=metadata.name%3Da",
    "labelSelector=a+in+(b,c)&fieldSelector=metadata.name%3Da",
    "labelSelector=a+in+(b,c&fieldSelector=metadata.name%3Da",
    "labelSelector=a+notin+()&fieldSelector=metadata.name%3Da",
    "labelSelector=a+in+(,)&fieldSelector=metadata.name%3Da",
    "labelSelector=a>1&fieldSelector=metadata.name%3Da",
    "labelSelector=a>x&fieldSelector=metadata.name%3Da",
    "labelSelector=in+in+(in)&fieldSelector=metadata.name%3Da",
    "labelSelector=a,&fieldSelector=metadata.name%3Da",
    "labelSelector=,a&fieldSelector=metadata.name%3Da",
    "labelSelector=a%00b&fieldSelector=metadata.name%3Da",
    "labelSelector=a%3D%00-&fieldSelector=metadata.name%3Da",
    "labelSelector=a!=%00b&fieldSelector=metadata.name%3Da",
    "labelSelector=a%3D%00%00b&fieldSelector=metadata.name%3Da",
    "labelSelector=a%00,,&fieldSelector=metadata.name%3Da",
    "labelSelector=-a&fieldSelector=metadata.name%3Da&watch=1",
    "labelSelector=A.b/c%3Dd&fieldSelector=metadata.name%3Da",
    "labelSelector=a.b/c%3Dd&fieldSelector=metadata.name%3Da",
    "labelSelector=a%3D%3D%3Db&fieldSelector=metadata.name%3Da",
    "labelSelector=a%09%0a%3D%0db&fieldSelector=metadata.name%3Da",
    "sendInitialEvents=maybe&fieldSelector=metadata.name%3Da",
    "resourceVersionMatch=Never&fieldSelector=metadata.name%3Da",
    "dryRun=All&propagationPolicy=Foreground&gracePeriodSeconds=x",
    "pretty=true&follow=true",
    "shardSelector=x&continue=y&fieldSelector=metadata.name%3Da",
];

const STREAM_QUERIES: &[&str] = &[
    "command=ls",
    "command=ls&command=-l&container=web&stdout=true&stderr=true",
    "command=sh&command=-c&command=echo+%22a+b%22&stdin=true&stdout=true&tty=true",
    "command=sh&container=a&command=-c&container=b&command=",
    "container=&container=b",
    "container=%20&command=+",
    "container",
    "command",
    "command=&command=",
    "Command=ls&commands=ls&command[]=ls&command.0=ls",
    "c%6fmmand=ls&comman%64=-l",
    "command=a;b&command=c",
    "command=%zz&command=%6c%73",
    "command=%ff",
    "command=%c3%a9&container=%c3%a9",
    "container=%ff&command=ls",
    "command=%00&command=%0a",
    "command=a%2Cb,c",
    "stdin",
    "stdin=&stdout=0&stderr=1&tty=2",
    "stdin=false&stdin=true&tty=true&tty=false",
    "stdin=FALSE&stdout=False&stderr=fal%c5%bfe&tty=f",
    "stdin=no&tty=00&stdout=+0&stderr=0+",
    "STDIN=true&Tty=true",
    "stdin=%ff&tty=%66alse",
    "stdin=true;tty=true",
    "ports=80",
    "ports=80&ports=443",
    "ports=80,443&ports=0080",
    "ports=65535&ports=0",
    "ports=65536",
    "ports=4294967376",
    "ports=",
    "ports=80,",
    "ports=,80",
    "ports=%2b80",
    "ports=+80",
    "ports=-1",
    "ports=8_0",
    "ports=0x50",
    "ports=80&ports=x",
    "ports=%d9%a3",
    "ports=%ff",
    "ports=80#x",
    "command=ls#&tty=1",
    "command=ls?tty=1&a?command=x",
    "=ls&command=a=b=c&&tty",
    "path=/etc&command=ls",
];
