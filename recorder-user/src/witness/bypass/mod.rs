//! What went round the gateway, and who its clients are: from what the kernel tells to what is put on record. Pure: whoever
//! calls brings the time, the processes and the totals, and keeps the records.
//!
//! Nothing is left out silently. What comes too fast to be recorded one by one is counted per cgroup in a session of
//! its own; whom the configuration allows is counted; what could not be followed is told when it ends.

mod allow;
mod book;
mod budget;
mod clients;
mod counts;
mod crowd;
mod egress;
mod listed;
mod sighting;
mod written;

pub use allow::{AllowRule, Pattern, PatternError};
pub use book::{Book, SocketTotals, Told};
pub use clients::{Clients, Use};
pub use counts::BypassCounts;
pub use egress::Egress;
pub use listed::Suspects;
pub use recorder_ebpf::RingRecord;
pub use sighting::{Happened, Sighting, Whose};
