//! Every bound of the gateway, and what happens when it is reached.

use std::time::Duration;

/// Client connections at once, those besides that were upgraded ([`UPGRADES_MAX`]). Further ones wait in the kernel's accept queue.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Time for a TLS handshake. A slower client is dropped.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an HTTP/1.1 request head (slowloris). A slower client is dropped.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request head without its target. A larger one is answered 431 by hyper.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request target that `http::Uri` takes (65,534) with room for the rest of the line; longer
/// ones are carried beside it.
pub const SHORT_TARGET_BYTES_MAX: usize = 60 * 1024;
/// Bytes of a request target at all: Go's bound for a head. A connection that begins with more is closed.
pub const TARGET_BYTES_MAX: usize = 1024 * 1024;
/// Targets over [`SHORT_TARGET_BYTES_MAX`] that wait for the rest of their request, and for an identity. A
/// connection that begins with a further one is closed.
pub const LONG_TARGETS_MAX: usize = 64;
/// Headers in an HTTP/1.1 head. More are answered 431 by hyper.
pub const HEADERS_MAX: usize = 128;
/// Concurrent streams of one client connection; the protocol makes the client wait.
pub const CLIENT_STREAMS_MAX: u32 = 256;
/// HTTP/2 window of one request stream from a client.
pub const CLIENT_STREAM_WINDOW: u32 = 256 * 1024;
/// HTTP/2 window of a client connection: at least 16 uploads can fill theirs before they share.
pub const CLIENT_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Streams that we put on one upstream connection: under the API server's own limit (100 and up), so
/// that a full connection opens another and a request never queues.
pub const UPSTREAM_STREAMS_MAX: usize = 80;
/// Streams from which a further connection is worth a handshake while there are fewer than
/// [`UPSTREAM_SPREAD_CONNECTIONS`].
pub const UPSTREAM_SPREAD_STREAMS: usize = 24;
/// Connections over which ordinary load is spread.
pub const UPSTREAM_SPREAD_CONNECTIONS: usize = 4;
/// Connections of one pool. A request that needs more is answered 503.
pub const UPSTREAM_CONNECTIONS_MAX: usize = 128;
/// HTTP/2 window of one response stream.
pub const UPSTREAM_STREAM_WINDOW: u32 = 256 * 1024;
/// HTTP/2 window of an upstream connection: every stream's, so that one stopped reader cannot stall
/// the others (`UPSTREAM_STREAMS_MAX * UPSTREAM_STREAM_WINDOW`).
pub const UPSTREAM_CONNECTION_WINDOW: u32 = 80 * 256 * 1024;
/// The same for watches and followed logs, whose frames are small.
pub const WATCH_STREAM_WINDOW: u32 = 64 * 1024;
/// `UPSTREAM_STREAMS_MAX * WATCH_STREAM_WINDOW`.
pub const WATCH_CONNECTION_WINDOW: u32 = 80 * 64 * 1024;
/// Time to connect and shake hands with the API server. Then 503.
pub const UPSTREAM_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An upstream connection without traffic is pinged, and dropped when the ping is not answered.
pub const UPSTREAM_PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a ping may take.
pub const UPSTREAM_PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Tries of a request that was never sent, or that the API server said it did not process.
pub const FORWARD_TRIES: usize = 4;
/// Request bytes kept to send a request again that the API server said it did not process.
pub const REPLAY_BYTES_MAX: usize = 256 * 1024;

/// Upgraded connections at once. A request for a further one is answered 429.
pub const UPGRADES_MAX: usize = 8_192;
/// Upgraded connections of one principal, who chooses the tasks and so how many sessions it has: it cannot
/// take all places. Further ones get 429.
pub const UPGRADES_PER_PRINCIPAL_MAX: usize = 512;
/// Time for the API server to answer an upgrade: it waits for the kubelet, and that for the container.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an upgraded connection that are read, recorded and passed on at once.
pub const UPGRADE_CHUNK_BYTES: usize = 64 * 1024;
/// Bytes that one system call reads from a connection: four records of TLS. As much of it as TLS has not
/// asked for is held for as long as whoever reads does not go on.
pub const READ_AHEAD_BYTES: usize = 64 * 1024;
/// How long an upgraded connection may wait for a recorder that is behind its bound; then it is closed.
pub const RECORDER_PATIENCE: Duration = Duration::from_secs(10);
/// How long one end of an upgraded connection may go on after the other has ended.
pub const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stream that is cut may take to come to the end of a frame and tell its client why.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Outcomes of streams that wait for a store that failed; of further ones only the intent stays.
pub const LATE_OUTCOMES_MAX: usize = UPGRADES_MAX;

/// Sessions open at once. A request that would open another is answered 429.
pub const SESSIONS_MAX: usize = 10_000;
/// Sessions of one principal, who chooses the tasks: it cannot take all places. Further ones get 429.
pub const SESSIONS_PER_PRINCIPAL_MAX: usize = 1_000;
/// Sessions that wait to be told who their client is; further ones are not, and are counted.
pub const CLIENTS_QUEUE: usize = 4_096;
/// Sessions that a connection's record names.
pub const CONNECTION_SESSIONS_MAX: usize = 64;
/// Exchanges of which a connection's record says where their response ended.
pub const CONNECTION_ENDS_MAX: usize = 64;
/// Objects that an exchange's record names; more are counted.
pub const OBJECTS_MAX: usize = 256;
/// Refusals without an identity that are recorded one by one, per second and client address; the
/// others are counted in the next.
pub const REFUSALS_PER_SECOND: u32 = 20;

/// How long a stopping gateway waits for requests to finish.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long upstream connections may then take to close.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a gateway that starts waits for its probe, which may be starting, too.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(30);
/// How often the wall clock is compared with a token's expiry while a watch lives, so that a clock
/// step is noticed.
pub const EXPIRY_CHECK: Duration = Duration::from_secs(10);
/// How often the issuers' keys are compared with those of live streams' tokens.
pub const REVOCATION_CHECK: Duration = Duration::from_secs(1);

/// Connections to the admin socket; a further one waits.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;
/// How long an answer on the admin socket may take.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one connection to the admin socket may last: so long a deletion may take.
pub const ADMIN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Bytes of a legal hold's reason, or of the task or principal that it is on; more is refused.
pub const HOLD_WORD_BYTES_MAX: usize = 1024;
/// Bytes of a request's body on the admin socket; more is refused.
pub const ADMIN_BODY_BYTES_MAX: usize = 4096;
/// Bytes of the reason of a kill; more is refused.
pub const KILL_REASON_BYTES_MAX: usize = 512;

/// Accesses to recordings that may get rows; a further one takes the place of the oldest, which must be announced
/// again.
pub const ACCESSES_MAX: usize = 1024;
/// How long an announced access may get rows; then it must be announced again.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(600);
/// Letters of an access's verb; a longer one is refused.
pub const ACCESS_VERB_BYTES_MAX: usize = 16;
/// Ids in an announcement; more are refused.
pub const ACCESS_IDS_MAX: usize = 16;
/// Bytes of the query in an announcement; a longer one is refused.
pub const ACCESS_QUERY_BYTES_MAX: usize = 2048;
/// Rows from which an answer on the admin socket ends; the rest is asked for again.
pub const ROWS_ANSWER_MAX: usize = 512;
/// How long an answer with rows looks before it ends with what it has.
pub const ROWS_TIME: Duration = Duration::from_millis(250);
