//! A recording as it went: sessions as sequences of events in time, bodies and frames decoded.
//!
//! A library: it reads records and rows, and never prints, waits or knows of terminals. Decoding
//! happens here, at replay, so that the record stays what it was and decoders may improve. Whatever
//! a decoder does not understand is shown as what it is, never dropped without a word.

mod body;
mod connections;
mod frames;
mod load;
mod player;
pub mod stream;
mod timeline;
mod tracks;
mod visible;

pub use body::{
    Assembled, BODY_BYTES_MAX, Form, INFLATED_BYTES_MAX, Readable, assemble, indent_json, readable,
};
pub use connections::{CONNECTIONS_MAX, Connections, connections};
pub use frames::{FRAMES_MAX, Frame, Frames, WatchDecoder, watch_frames};
pub use load::{LoadError, Recorded, load};
pub use player::{Pace, Player, Timed};
pub use timeline::{
    CommandView, Detail, Event, ObjectHistory, Summary, Timeline, What, command_label, is_refused,
    is_stream, was_cut,
};
pub use tracks::{TRACK_PAUSE_MAX, Track, WholeSession, merge};
pub use visible::{escape_json, is_hostile};
