//! The taps: bytes flow on while the recorder gets its own reference to them. A tap waits only when the
//! recorder is behind its bound; it never drops and never changes a byte.

mod cut;
mod pace;
mod recording;
mod request;
mod response;
mod waiting;

pub use cut::{Cut, told};
pub use pace::Stopwatch;
pub use recording::{Recording, RequestCut, Shared, lock, micros};
pub use request::{RequestBody, RequestTap, Returned};
pub use response::{Live, ResponseTap};
pub use waiting::{Append, append, queue};
