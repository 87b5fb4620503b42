//! Names of this machine's users.

use tokio::io::AsyncReadExt as _;

/// The name of a user in `/etc/passwd`; none where it has none there, as users of a directory service do.
pub(super) async fn name(uid: u32) -> Option<String> {
    let mut text = Vec::new();
    let file = tokio::fs::File::open("/etc/passwd").await.ok()?;
    file.take(PASSWD_BYTES_MAX).read_to_end(&mut text).await.ok()?;
    find(&String::from_utf8_lossy(&text), uid)
}

fn find(passwd: &str, uid: u32) -> Option<String> {
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then_some(name)
    });
    named.filter(|name| name.len() <= NAME_BYTES_MAX).map(ToOwned::to_owned)
}

/// What lies beyond in the file is not looked at.
const PASSWD_BYTES_MAX: u64 = 1 << 20;
/// Longer names are none: Linux takes 32.
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn users_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n# x:y\nalice:x:1000:1000::/:\n";
        for (uid, name) in [(0, Some("root")), (1000, Some("alice")), (1, None)] {
            assert_eq!(find(passwd, uid).as_deref(), name, "{uid}");
        }
        assert_eq!(find(&format!("{}:x:5:5::/:/", "n".repeat(300)), 5), None);
    }
}
