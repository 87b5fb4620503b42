//! Sockets of the kernel's list whose owner was not found: the gateway's own may have been closed between the list and
//! the look at its descriptors, so that one look is no proof.

use std::collections::HashSet;

/// Sockets without an owner at the last look.
#[derive(Debug, Default)]
pub struct Suspects {
    last: HashSet<u64>,
}

impl Suspects {
    /// Takes the cookies of a look, and gives those that were there at the look before too.
    pub fn confirm(&mut self, cookies: HashSet<u64>) -> HashSet<u64> {
        let confirmed = cookies.intersection(&self.last).copied().collect();
        self.last = cookies;
        confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_an_owner_must_be_seen_twice() {
        let mut suspects = Suspects::default();
        assert!(suspects.confirm(HashSet::from([1, 2])).is_empty());
        assert_eq!(suspects.confirm(HashSet::from([2, 3])), HashSet::from([2]));
        assert!(suspects.confirm(HashSet::from([1])).is_empty());
    }
}
