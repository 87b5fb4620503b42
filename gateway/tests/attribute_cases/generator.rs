//! Requests from a seed: paths, queries and selectors put together from parts, some then damaged.

use super::Case;

/// `count` cases; the same seed gives the same ones.
pub(crate) fn generate(seed: u64, count: usize) -> Vec<Case> {
    let mut random = Random(seed);
    (0..count).map(|_| random.case()).collect()
}

/// SplitMix64: small, good enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("small"))
            .expect("below the bound")
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn case(&mut self) -> Case {
        if self.one_in(4) {
            return self.stream();
        }
        let method = if self.one_in(3) { self.pick(METHODS) } else { "GET" }.to_owned();
        let mut url = self.path();
        if self.one_in(6) {
            self.damage(&mut url);
        }
        if !self.one_in(3) {
            url.push('?');
            let mut query = self.query();
            if self.one_in(8) {
                self.damage(&mut query);
            }
            url.push_str(&query);
        }
        Case { method, url }
    }

    fn stream(&mut self) -> Case {
        let method = self.pick(&["GET", "POST"]).to_owned();
        let subresource = self.pick(&["exec", "attach", "portforward"]);
        let pairs: Vec<String> = (0..self.below(8))
            .map(|_| match self.below(8) {
                0..=2 => format!("command={}", self.pick(WORDS)),
                3 => format!("container={}", self.pick(WORDS)),
                4 => format!("ports={}", self.list(PORTS)),
                _ => format!("{}={}", self.pick(STREAM_KEYS), self.pick(BOOLEANS)),
            })
            .collect();
        let mut query = pairs.join("&");
        if self.one_in(6) {
            self.damage(&mut query);
        }
        Case { method, url: format!("/api/v1/namespaces/n/pods/p/{subresource}?{query}") }
    }

    fn list(&mut self, from: &[&str]) -> String {
        let items: Vec<&str> = (0..=self.below(3)).map(|_| self.pick(from)).collect();
        items.join(",")
    }

    fn path(&mut self) -> String {
        let mut path = String::new();
        for _ in 0..self.below(2) + self.below(2) * self.below(2) + 1 {
            path = match self.below(8) {
                0 => format!("/{}", self.pick(PARTS)),
                1..=3 => "/api/v1".to_owned(),
                _ => format!("/apis/{}/{}", self.pick(PARTS), self.pick(PARTS)),
            };
        }
        if self.one_in(6) {
            path.push_str(self.pick(&["/watch", "/proxy"]));
        }
        if self.one_in(2) {
            path.push_str("/namespaces");
        }
        for _ in 0..self.below(5) {
            path.push('/');
            path.push_str(self.pick(PARTS));
        }
        if self.one_in(6) {
            path.push('/');
        }
        path
    }

    fn query(&mut self) -> String {
        let pairs: Vec<String> = (0..=self.below(4))
            .map(|_| match self.below(6) {
                0 => format!("watch={}", self.pick(BOOLEANS)),
                1 | 2 => format!("fieldSelector={}", self.selector(FIELD_PIECES)),
                3 => format!("labelSelector={}", self.selector(LABEL_PIECES)),
                4 => format!("{}={}", self.pick(&["limit", "timeoutSeconds"]), self.pick(NUMBERS)),
                _ => format!("{}={}", self.pick(KEYS), self.pick(BOOLEANS)),
            })
            .collect();
        pairs.join("&")
    }

    fn selector(&mut self, pieces: &[&str]) -> String {
        if pieces == FIELD_PIECES && self.one_in(2) {
            return format!("metadata.name%3D{}", self.pick(PARTS));
        }
        if self.one_in(3) {
            return format!(
                "app{}x",
                self.pick(&["=", "==", "!=", "+in+(", ">", "", ",", "%21%3D"])
            );
        }
        (0..self.below(7)).map(|_| self.pick(pieces)).collect()
    }

    /// Puts a character somewhere, or takes one away.
    fn damage(&mut self, text: &mut String) {
        let at = self.below(text.len() + 1);
        if self.one_in(3) && at < text.len() && text.len() > 1 {
            text.remove(at);
        } else {
            text.insert_str(at, self.pick(DAMAGE));
        }
    }
}

const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "DELETE", "OPTIONS", "get"];

const PARTS: &[&str] = &[
    "pods",
    "p",
    "n",
    "namespaces",
    "status",
    "finalize",
    "log",
    "exec",
    "proxy",
    "watch",
    "secrets",
    "nodes",
    "deployments",
    "scale",
    "api",
    "apis",
    "v1",
    "apps",
    "a.b",
    "a-b",
    "x:8080",
    "%70ods",
    "a%20b",
    "a+b",
    "%c3%a9",
    "...",
    "a;b",
    "a=b",
    "kube-system",
    "A",
    "0",
    "~",
    "a%25b",
    "a,b",
];

const BOOLEANS: &[&str] = &[
    "",
    "0",
    "1",
    "true",
    "false",
    "TRUE",
    "False",
    "no",
    "t",
    "f",
    "00",
    "%30",
    "fal%C5%BFe",
    "+",
];

const NUMBERS: &[&str] = &[
    "",
    "0",
    "5",
    "-5",
    "%2b5",
    "+5",
    "x",
    "5x",
    "9223372036854775807",
    "9223372036854775808",
    "5.0",
];

const KEYS: &[&str] = &[
    "watch",
    "Watch",
    "allowWatchBookmarks",
    "sendInitialEvents",
    "resourceVersion",
    "continue",
    "resourceVersionMatch",
    "x",
    "%77atch",
    "fieldSelecto%72",
    "follow",
    "",
];

const FIELD_PIECES: &[&str] = &[
    "metadata.name",
    "metadata.name%3D",
    "=",
    "!=",
    "==",
    ",",
    "a",
    "b",
    "%5C",
    "%5C,",
    ".",
    "/",
    "%25",
    "+",
    "%c3%a9",
    "spec.nodeName",
    "!",
    "metadata.namespace",
];

const LABEL_PIECES: &[&str] = &[
    "app", "a", "b", "=", "!=", "==", ",", "!", "(", ")", "+in+", "+notin+", ">", "<", "1", "+",
    "%09", "a.b/c", "-", "_", "/", "exists", "%00", "%c3%a9", ".",
];

const DAMAGE: &[&str] = &[
    "/", "//", ".", "..", "/../", "/./", "%", "%2", "%2f", "%2F", "%2e", "%00", "%0d", "%7f",
    "%ff", ";", "?", "#", "&", "=", "+", "\\", "*", "@", ":", "%25", "'", "\"", "{", "|", "^", "`",
    "<",
];

const STREAM_KEYS: &[&str] =
    &["stdin", "stdout", "stderr", "tty", "tt%79", "TTY", "command", "ports", "x", ""];

const WORDS: &[&str] = &[
    "",
    "sh",
    "-c",
    "ls+-l",
    "%22a+b%22",
    "a%26b",
    "a=b",
    "%00",
    "%0A",
    "%c3%a9",
    "%FF",
    "%27",
    "$x",
    "%2F",
    "*",
    "a,b",
    "0",
];

const PORTS: &[&str] = &[
    "80", "80", "443", "0080", "0", "65535", "65536", "-1", "", "x", "%2b1", "+1", "1_0", "%d9%a3",
];
