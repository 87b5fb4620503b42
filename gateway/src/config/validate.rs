//! From the file's text to a [`Config`], or to all that is wrong with it.

use std::{net::SocketAddr, num::NonZero, path::Path, time::Duration};

use recorder_user::store::{IndexBackend, RetentionRules, encryption::KeySource};
use serde_json::{Map, Value};

use crate::upgrade::Limits;

use super::{
    Admin, Config, Health, LoadConfigError, PolicyDirectories, Retention, ServerTls, Sessions,
    Store, archive, authentication,
    clusters::{self, Environment, readable},
    problem::Problems,
    raw, units, witness,
};

/// The keys of the file, for the message about one that is none.
const KEYS: &str = "listen, tls, health, admin, threads, store, archive, clusters, authentication, \
                    policy, witness, sessions";

pub(super) fn config(
    text: &str,
    file: &Path,
    environment: Environment<'_>,
) -> Result<Config, LoadConfigError> {
    let options = serde_saphyr::options! { strict_booleans: true };
    let mut sections: Map<String, Value> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| {
            LoadConfigError::invalid(file, "", format!("is not valid YAML: {error}"))
        })?;
    // A key without a value is the same as no key.
    let mut take = |key: &str| sections.remove(key).filter(|value| !value.is_null());
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut problems = Problems::default();

    let listen = listen("listen", take("listen"), &mut problems);
    let tls = tls(take("tls"), directory, &mut problems);
    let health = take("health").and_then(|value| {
        let raw: raw::Health = problems.shape("health", value)?;
        address("health.listen", &raw.listen, &mut problems).map(|listen| Health { listen })
    });
    let admin = take("admin").and_then(|value| problems.shape::<raw::Admin>("admin", value));
    let socket = admin.and_then(|admin| admin.socket).map(|socket| directory.join(socket));
    let threads = threads(take("threads"), &mut problems);
    let store = store(take("store"), directory, &mut problems);
    let archive = archive::validate(take("archive"), directory, &mut problems);
    let clusters = clusters::validate(take("clusters"), directory, environment, &mut problems);
    let authentication = authentication::validate(take("authentication"), directory, &mut problems);
    let policy = policy(take("policy"), directory, &mut problems);
    let witness = witness::validate(take("witness"), directory, &mut problems);
    let sessions = self::sessions(take("sessions"), &mut problems);
    for key in sections.keys() {
        problems.add(key.escape_debug(), format!("is not a key of this file; the keys are {KEYS}"));
    }

    let problems = problems.into_vec();
    match (listen, tls, store, authentication, policy) {
        (Some(listen), Some(tls), Some(store), Some(authentication), Some(policy))
            if problems.is_empty() =>
        {
            Ok(Config {
                file: file.into(),
                listen,
                tls,
                health,
                // In the store, which is the gateway's own in any case.
                admin: Admin {
                    socket: socket.unwrap_or_else(|| store.directory.join("gateway.sock")),
                },
                threads,
                store,
                archive,
                clusters,
                authentication,
                policy,
                witness,
                sessions,
            })
        }
        _ => Err(LoadConfigError::Invalid { path: file.into(), problems }),
    }
}

fn listen(path: &str, given: Option<Value>, problems: &mut Problems) -> Option<SocketAddr> {
    let text: String =
        problems.required(path, given, "the address for clients, for example 0.0.0.0:8443")?;
    address(path, &text, problems)
}

fn address(path: &str, given: &str, problems: &mut Problems) -> Option<SocketAddr> {
    let parsed = given.parse();
    if parsed.is_err() {
        problems.add(
            path,
            format!(
                "`{given}` is not an address; write IP:PORT, for example 0.0.0.0:8443 or [::]:8443"
            ),
        );
    }
    parsed.ok()
}

fn tls(given: Option<Value>, directory: &Path, problems: &mut Problems) -> Option<ServerTls> {
    let raw: raw::Tls =
        problems.required("tls", given, "write {certificate: tls.crt, key: tls.key}")?;
    let certificate = readable("tls.certificate", &directory.join(raw.certificate), problems);
    let key = readable("tls.key", &directory.join(raw.key), problems);
    Some(ServerTls { certificate: certificate?, key: key? })
}

/// One processor is left to the writer of records, which is what a request waits for.
fn threads(given: Option<Value>, problems: &mut Problems) -> usize {
    let Some(given) = given else {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        return (processors - 1).clamp(1, THREADS_MAX);
    };
    let threads = given.as_u64().and_then(|threads| usize::try_from(threads).ok());
    threads.filter(|threads| (1..=THREADS_MAX).contains(threads)).unwrap_or_else(|| {
        problems.add("threads", format!("`{given}` is not a number from 1 to {THREADS_MAX}"));
        1
    })
}

fn store(given: Option<Value>, directory: &Path, problems: &mut Problems) -> Option<Store> {
    const MIB: u64 = 1 << 20;
    let raw: raw::Store =
        problems.required("store", given, "write {directory: /var/lib/decklog}")?;
    if raw.directory.is_empty() {
        problems.add("store.directory", "is empty");
    }
    // The defaults: a segment is small enough to move and large enough to be few; the queue holds
    // seconds of a busy gateway; with the interval an outcome is on disk within 200 ms.
    let segment = units::size_key(
        "store.segmentSize",
        raw.segment_size,
        256 * MIB,
        MIB..=4096 * MIB,
        problems,
    );
    let queue =
        units::size_key("store.queueSize", raw.queue_size, 64 * MIB, MIB..=1024 * MIB, problems);
    let sync_interval = units::duration_key(
        "store.syncInterval",
        raw.sync_interval,
        Duration::from_millis(100),
        Duration::from_millis(1)..=Duration::from_millis(150),
        problems,
    );
    // Without a bound of its own: who sets it knows the disk. The default follows the disk's size.
    let floor = raw.free_space_floor.map(|given| {
        units::size_key("store.freeSpaceFloor", Some(given), 0, 0..=u64::MAX, problems)
    });
    let index = match raw.index.as_deref().map(str::parse::<IndexBackend>) {
        None => IndexBackend::default(),
        Some(Ok(index)) => index,
        Some(Err(error)) => {
            problems.add("store.index", error.to_string());
            IndexBackend::default()
        }
    };
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let segment_age_max = units::duration_key(
        "store.segmentAge",
        raw.segment_age,
        DAY,
        Duration::from_secs(10)..=30 * DAY,
        problems,
    );
    let checkpoint_interval = units::duration_key(
        "store.checkpointInterval",
        raw.checkpoint_interval,
        Duration::from_secs(10),
        Duration::from_secs(1)..=Duration::from_secs(60 * 60),
        problems,
    );
    let encryption = raw.encryption.and_then(|raw| encryption(raw, directory, problems));
    let retention = raw.retention.and_then(|raw| retention(raw, problems));
    Some(Store {
        retention,
        encryption,
        segment_age_max,
        checkpoint_interval,
        directory: directory.join(raw.directory),
        segment_bytes_max: segment,
        queue_bytes_max: usize::try_from(queue).unwrap_or(usize::MAX),
        sync_interval,
        free_floor_bytes: floor,
        index,
        // Who reads recordings is part of what an auditor asks.
        record_access: raw.record_access.unwrap_or(true),
    })
}

fn retention(raw: raw::Retention, problems: &mut Problems) -> Option<Retention> {
    const SECOND: Duration = Duration::from_secs(1);
    const YEARS: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    const EXBIBYTE: u64 = 1 << 60;
    let mut age = |key: &str, given: Option<String>| {
        let key = format!("store.retention.{key}");
        given.map(|given| units::duration_key(&key, Some(given), YEARS, SECOND..=YEARS, problems))
    };
    let (reads, bodies_of_reads) =
        (age("reads", raw.reads), age("bodiesOfReads", raw.bodies_of_reads));
    let age = age("age", raw.age);
    let size = raw.size.map(|given| {
        let key = "store.retention.size";
        units::size_key(key, Some(given), EXBIBYTE, 1 << 20..=EXBIBYTE, problems)
    });
    // An hour is little against the days that records are kept, and much against what looking takes.
    let interval = units::duration_key(
        "store.retention.interval",
        raw.interval,
        Duration::from_secs(60 * 60),
        SECOND..=Duration::from_secs(24 * 60 * 60),
        problems,
    );
    let rules = RetentionRules { age, size, reads, bodies_of_reads };
    if rules.is_empty() {
        problems.add(
            "store.retention",
            "keeps everything; write at least one of age, size, reads, bodiesOfReads",
        );
        return None;
    }
    Some(Retention { rules, interval })
}

fn encryption(
    raw: raw::Encryption,
    directory: &Path,
    problems: &mut Problems,
) -> Option<KeySource> {
    match (raw.key_file, raw.command) {
        (Some(file), None) if !file.is_empty() => Some(KeySource::KeyFile(directory.join(file))),
        (None, Some(command)) if command.first().is_some_and(|program| !program.is_empty()) => {
            Some(KeySource::Command(command))
        }
        _ => {
            problems
                .add("store.encryption", "write {keyFile: FILE} or {command: [PROGRAM, ARGUMENT]}");
            None
        }
    }
}

fn policy(
    given: Option<Value>,
    directory: &Path,
    problems: &mut Problems,
) -> Option<PolicyDirectories> {
    let raw: raw::Policy = problems.required(
        "policy",
        given,
        "write {access: policy/access}; without a permit nothing passes",
    )?;
    let mut folder = |key: &str, value: String| {
        let path = directory.join(value);
        if !path.is_dir() {
            problems.add(format!("policy.{key}"), format!("{} is not a directory", path.display()));
        }
        path
    };
    let access = folder("access", raw.access);
    let recording = raw.recording.map(|value| folder("recording", value));
    Some(PolicyDirectories { access, recording })
}

fn sessions(given: Option<Value>, problems: &mut Problems) -> Sessions {
    let raw = given.and_then(|value| problems.shape::<raw::Sessions>("sessions", value));
    let (idle, stream_idle, stream_longest) =
        raw.map_or((None, None, None), |raw| (raw.idle, raw.stream_idle, raw.stream_longest));
    // Long enough for an agent that thinks, short enough that a session is one piece of work.
    let default = Duration::from_secs(15 * 60);
    let bounds = Duration::from_secs(10)..=DAY;
    let idle = units::duration_key("sessions.idle", idle, default, bounds, problems);
    let bounds = Duration::from_secs(1)..=30 * DAY;
    // The kubelet's own default (streamingConnectionIdleTimeout).
    let default = Duration::from_secs(4 * 3600);
    let key = "sessions.streamIdle";
    let stream_idle = units::duration_key(key, stream_idle, default, bounds.clone(), problems);
    // As long as a token lasts, unless the operator wants it shorter.
    let key = "sessions.streamLongest";
    let longest =
        stream_longest.map(|given| units::duration_key(key, Some(given), DAY, bounds, problems));
    Sessions { idle, streams: Limits { idle: stream_idle, longest } }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// More would only take turns.
const THREADS_MAX: usize = 256;
