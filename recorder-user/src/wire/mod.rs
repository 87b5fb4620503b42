//! Pure codecs: bytes to facts, and the few messages that the gateway itself writes.
//!
//! Everything here is passive: no codec changes a byte of the traffic it looks at, none does I/O, and
//! none panics on any input. Whatever a codec keeps in memory has a stated bound; at the bound it
//! reports an error or stops collecting, and the traffic goes on without it.

pub mod gzip;
pub mod json;
pub mod kubernetes;
mod media;
pub mod protobuf;
pub mod status;
pub mod stream;
pub mod tar;
pub mod watch;

pub use media::Media;
