//! The table of slots that the programs write, as user space reads it: mapped memory, no system call, no
//! right. The same in the process that loaded the programs and in one that was passed the descriptor.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use recorder_ebpf::{PROBES, SLOT_BYTES, SLOT_WORDS, Slot};

use super::sys::SharedWords;

/// Slots of the largest table that is mapped: 256 MiB.
const SLOTS_MAX: u32 = 1 << 20;

/// How often a slot is read again that changed hands meanwhile.
const ATTEMPTS: u32 = 4;

/// The table, mapped read-only.
pub struct Table {
    words: SharedWords,
    slots: u32,
}

impl Table {
    /// Maps the table of a descriptor of the map `SLOTS`, however it was come by. The map's form is read
    /// from `/proc/self/fdinfo`.
    ///
    /// # Errors
    /// When the descriptor is no such map, or of another form than this build's ABI.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let slots = slots_of(&info).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "not the table of the witness's programs")
        })?;
        let words = SharedWords::map(fd, slots as usize * SLOT_WORDS)?;
        Ok(Self { words, slots })
    }

    /// What is known of a socket now; None when it has no slot. Totals of a closed socket stay for about
    /// ten seconds.
    #[must_use]
    pub fn read(&self, cookie: u64) -> Option<Slot> {
        if cookie == 0 {
            return None;
        }
        let candidates = (0..PROBES).map(|attempt| Slot::index(cookie, attempt, self.slots - 1));
        candidates.filter_map(|index| self.slot(index)).find(|slot| slot.cookie == cookie)
    }

    /// Looks at every slot in use.
    pub fn for_each(&self, mut each: impl FnMut(&Slot)) {
        for index in 0..self.slots {
            if let Some(slot) = self.slot(index) {
                each(&slot);
            }
        }
    }

    /// How many slots there are.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.slots
    }

    /// A published slot: all of it is of one socket.
    fn slot(&self, index: u32) -> Option<Slot> {
        let start = index as usize * SLOT_WORDS;
        for _ in 0..ATTEMPTS {
            let cookie = self.words.load(start);
            if cookie == 0 || cookie == recorder_ebpf::BUSY {
                return None;
            }
            let words: [u64; SLOT_WORDS] =
                std::array::from_fn(|word| self.words.load(start + word));
            SharedWords::order();
            if self.words.load(start) == cookie && words[0] == cookie {
                let slot = Slot::from_words(&words);
                return (slot.role != 0).then_some(slot);
            }
        }
        None
    }
}

/// The number of slots by the map's description, if it is one of ours.
fn slots_of(fdinfo: &str) -> Option<u32> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse::<u32>().ok()
    };
    let ours =
        field("map_type")? == BPF_MAP_TYPE_ARRAY && field("value_size")? as usize == SLOT_BYTES;
    let slots = field("max_entries")?;
    (ours && slots.is_power_of_two() && slots <= SLOTS_MAX).then_some(slots)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::fd::AsFd as _};

    use recorder_ebpf::{BUSY, role};

    use super::*;

    /// A table in a file, since only its memory matters.
    fn table(slots: u32, contents: &[(u32, &[(usize, u64)])]) -> Table {
        let mut words = vec![0u64; slots as usize * SLOT_WORDS];
        for (index, fields) in contents {
            for (word, value) in *fields {
                words[*index as usize * SLOT_WORDS + word] = *value;
            }
        }
        let mut file: File = tempfile::tempfile().expect("temporary file");
        for word in &words {
            file.write_all(&word.to_ne_bytes()).expect("write");
        }
        let words = SharedWords::map(file.as_fd(), words.len()).expect("map");
        Table { words, slots }
    }

    fn published() -> u64 {
        let [a, b, c, d] = role::ACCEPTED.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
    }

    #[test]
    fn a_socket_is_found_in_any_slot_that_it_may_have() {
        let slot = |cookie: u64, sent: u64| [(0, cookie), (1, published()), (3, sent)];
        let table = table(
            16,
            &[(14, &slot(30, 1)), (15, &slot(46, 2)), (0, &slot(62, 3)), (6, &slot(94, 4))],
        );
        let sent = |cookie| table.read(cookie).map(|slot| slot.sent_bytes);
        assert_eq!([sent(30), sent(46), sent(62)], [Some(1), Some(2), Some(3)]);
        assert_eq!(sent(94), None, "nine slots away: nobody would have put it there");
        assert_eq!(sent(78), None);
        assert_eq!(sent(0), None, "no socket");
        let mut seen = 0;
        table.for_each(|_| seen += 1);
        assert_eq!(seen, 4);
    }

    #[test]
    fn what_is_not_published_is_not_there() {
        let claimed = table(16, &[(7, &[(0, 7), (3, 99)])]);
        assert!(claimed.read(7).is_none());
        let busy = table(16, &[(7, &[(0, BUSY), (1, published())])]);
        assert!(busy.read(7).is_none());
        assert!(busy.read(BUSY).is_none());
    }

    #[test]
    fn only_our_own_map_is_mapped() {
        let info = "pos:\t0\nmap_type:\t2\nkey_size:\t4\nvalue_size:\t256\nmax_entries:\t65536\n";
        assert_eq!(slots_of(info), Some(65_536));
        assert_eq!(slots_of(&info.replace("\t256", "\t88")), None, "another ABI");
        assert_eq!(slots_of(&info.replace("type:\t2", "type:\t1")), None, "another kind");
        assert_eq!(slots_of(&info.replace("65536", "65535")), None);
        assert_eq!(slots_of(&info.replace("65536", "4194304")), None);
        assert_eq!(slots_of("pos:\t0\n"), None);
        let file = File::open("/proc/self/status").expect("a file");
        assert!(Table::map(file.as_fd()).is_err());
    }
}
