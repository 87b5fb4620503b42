//! What may be typed. What it means is in the module of each verb.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};

use super::verb_args::{
    AccessesArgs, ArchiveArgs, ExportArgs, FollowArgs, HoldVerb, KeysVerb, LsArgs, ProbeArgs,
    PruneArgs, ReplayArgs, SearchArgs, WitnessArgs,
};

/// Shows, replays and checks what agents and people did to Kubernetes through a Decklog gateway.
#[derive(Debug, Parser)]
#[command(
    name = "recorder",
    version,
    after_help = "\
Ids may be shortened to any unique beginning or end of at least 4 characters, as the tables do.
A store can be read while a gateway writes it; the gateway is asked for rows, and records who reads.

Examples:
  recorder ls                                  who was here, and what came of it
  recorder replay 3f9a                         one session, in its own time
  recorder search --verdict deny --since 1h    what was refused in the last hour
  recorder search --effect deleted --json      what was deleted, one JSON object a line
  recorder follow 3f9a                         one that goes on now
  recorder export 77d0 --format asciicast-v3   an exec, for asciinema
  recorder verify                              is the record intact?

Exit codes: 0 fine, 1 not found or does not verify, 2 wrong usage or failure."
)]
pub struct Cli {
    /// The store's directory (`store.directory` of the gateway's configuration). ls, show, replay, search and verify
    /// take several: give it again.
    #[arg(long, global = true, env = "DECKLOG_STORE", value_name = "DIR")]
    pub store: Vec<PathBuf>,
    /// The running gateway's socket (`admin.socket`); `gateway.sock` in the store by default.
    #[arg(long, global = true, env = "DECKLOG_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print one JSON object a line instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List sessions, oldest first.
    #[command(after_help = "\
EFFECTS counts objects created, modified and deleted. ACCOUNT compares what was recorded with what the
kernel counted: complete, gap (how much is missing), or unwitnessed (the kernel could not be asked); of
what went round the gateway it says bypass, and how many bytes.

Examples:
  recorder ls
  recorder ls --kind bypass                                    what went round the gateway
  recorder ls --json | jq 'select(.denied > 0) | .principal.username'
  recorder ls --store /mnt/a/decklog --store /mnt/b/decklog    of two gateways: what they carried together is one session")]
    Ls(LsArgs),
    /// Show a session with its exchanges, or one exchange with heads, bodies and evidence.
    #[command(after_help = "\
Bodies are shown as they were stored: secrets were replaced before they reached the disk, and what was
removed is stated. JSON is indented, gzip is unpacked, protobuf is summarised. Long bodies are cut for
reading; --json gives them whole.

Examples:
  recorder show 3f9a
  recorder search --name web --json | jq -r .exchange | tail -1 | xargs recorder show")]
    Show {
        /// A session or an exchange.
        id: String,
        /// What else is read.
        #[command(flatten)]
        archive: ArchiveArgs,
    },
    /// Tell what happened in a session, or play back an exec, attach, port-forward, log or watch.
    #[command(after_help = "\
A session: each line is one request: time since the session began, command, request, status, latency,
account, and what it did. Watch events appear at the time they were delivered. A summary closes the replay.

An exec or attach with a terminal is drawn as it looked, in place when the output is a terminal, else as
the lines that it left. Without a terminal its lines are told with their times, stderr apart from stdout.
A port-forward is told by connection. Recorded bytes never reach your terminal as they are: a terminal in
memory takes them, and what it shows is drawn.

Output that does not go to a terminal is not delayed unless --speed is given.

Examples:
  recorder replay 3f9a                  original timing, pauses cut to 2 s
  recorder replay 3f9a --speed 10       ten times as fast
  recorder replay 3f9a --max-wait 1h    with its real pauses
  recorder replay 3f9a --at-once        no delays
  recorder replay 77d0 --seek 5m        an exec, from its sixth minute on
  recorder replay 77d0 --stdin          with what was typed")]
    Replay(ReplayArgs),
    /// Show a session, an exec or a log while it goes on.
    #[command(after_help = "\
Begins with the recent past (--json: with all of it), goes on as the gateway records, and ends when the session or stream ends.
It only reads the store, so the gateway does not notice. Recorded frames reach the store within 200 ms.

Examples:
  recorder follow 3f9a                  a session: its requests as they are answered
  recorder follow 77d0                  an exec: its screen or lines as they happen
  recorder search --resource pods/exec --json | jq -r 'select(.status == null) | .exchange'
                                        the execs that go on now")]
    Follow(FollowArgs),
    /// Write a recorded exec, attach or log as asciicast, text, or its bytes; or a session as a bundle.
    #[command(after_help = "\
asciicast-v2 and -v3 play in asciinema and its web player, with resizes, and in v3 the exit code; stdout and
stderr are in one stream there, as a terminal would have shown them. text is UTF-8: what a terminal was sent
is drawn first, and its lines are written. raw is a channel's bytes exactly, and goes to files and pipes only:
they may hold sequences that a terminal would obey. text and raw have stdout unless --channel says otherwise.
What the record does not have, or nobody could decode, is said on standard error.
bundle is a directory with all records of one session that others can check without the rest of the store:
records of other sessions are in it as digests alone. See its README.txt.

Examples:
  recorder export 77d0 --format asciicast-v3 --output exec.cast    then: asciinema play exec.cast
  recorder export 77d0 --format asciicast-v2 --stdin > exec.cast   with what was typed
  recorder export 77d0 --format raw | sha256sum
  recorder export 77d0 --format text --channel stderr
  recorder export 3f9a --format bundle --output ./bundle           then: recorder verify ./bundle --key decklog.pub")]
    Export(ExportArgs),
    /// Find exchanges, oldest first.
    #[command(after_help = "\
All given filters must match. Times are RFC 3339, dates, or durations ago (15m, 2h, 7d).
When the limit cuts the result, stderr names the cursor for --after.

Examples:
  recorder search --principal alice --verb delete
  recorder search --resource deployments --namespace shop --name web --effect modified
  recorder search --resource secrets --verb get --since 2026-01-31
  recorder search --status 4xx --user-agent helm
  recorder search --resource pods/exec --command 'rm -rf'
  recorder search --uid 0b7f2c1e-5a51-4f0e-9b8e-6f1f0c2f8e11
  recorder search --session 3f9a --limit 0 --json
  recorder search --kind bypass --namespace shop        what went round the gateway from pods of shop")]
    Search(Box<SearchArgs>),
    /// Check hash chain and signatures of a store, a bundle, a segment, or one session, exchange or record.
    #[command(after_help = "\
Detects records that were changed, dropped, reordered or cut, and segments that are missing or spliced in.
Works offline and on a store that is being written. Exit code 1 names the first bad file and offset.
Signatures are checked with the public keys beside the store (STORE.keys/signing/*.pub), or with those that you
name: then whoever can write to the store's machine cannot pass another record off as this one. Newer keys
are accepted when an older one that you trust has endorsed them.

A store that was replaced by an older copy of itself is found by its head: how far it came, which the gateway notes
beside its keys, and which you may keep elsewhere (`recorder head`) and name with --head.

Examples:
  recorder verify
  recorder verify 3f9a                                              a session or an exchange
  recorder verify 01a0c4506c007f0e8a3c5b1d9e2f4a60:4711             the record that begins there
  recorder verify /mnt/copy/decklog --key decklog.pub --head head.json
  recorder verify ./bundle --key decklog.pub
  recorder verify --archive s3://audit/decklog --key decklog.pub    every segment of every gateway there
  recorder verify segments/01a0c4506c007f0e8a3c5b1d9e2f4a60.seg     one segment, without its neighbours")]
    Verify {
        /// A session, an exchange, SEGMENT:OFFSET, or the path of a store, bundle or segment; all of --store by default.
        #[arg(conflicts_with = "archive")]
        target: Option<String>,
        /// Trust this public key (PEM) instead of those beside the store; may be given again.
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// Expect the store to come at least this far, instead of what is noted beside its keys.
        #[arg(long, value_name = "FILE", conflicts_with = "archive")]
        head: Option<PathBuf>,
        /// What else is checked.
        #[command(flatten)]
        archive: ArchiveArgs,
    },
    /// Print how far the store came, signed: keep it elsewhere to find out if the store is rolled back.
    #[command(after_help = "\
The gateway notes the newest signed state of its store in STORE.keys/head, after it became durable. An older
copy of the store verifies like the newest; with this it does not.

Examples:
  recorder head > /mnt/elsewhere/head.json
  recorder verify --head /mnt/elsewhere/head.json")]
    Head,
    /// List the keys that sign the store, exchange them, or print a public key.
    #[command(after_help = "\
The gateway makes its signing key (Ed25519) at its first start, in STORE.keys/signing, readable by its owner
alone. `rotate` makes a new one that the old one endorses; a running gateway takes it up with its next
segment. Give auditors a public key once: newer keys follow from it. Keep a copy outside the machine.

Examples:
  recorder keys
  recorder keys export > decklog.pub
  recorder keys rotate")]
    Keys {
        /// What to do; lists by default.
        #[command(subcommand)]
        verb: Option<KeysVerb>,
    },
    /// List who read recordings, oldest first, as far as the gateway knew.
    #[command(after_help = "\
A running gateway records each run of this command, before it gives any row. Whoever reads the files while no
gateway runs, or without asking it, is not on record: file permissions alone decide that.

Examples:
  recorder accesses --since 1d
  recorder accesses --json | jq 'select(.by.user == \"root\")'")]
    Accesses(AccessesArgs),
    /// Make one session of an encrypted store unreadable for good. The gateway must not be running.
    #[command(after_help = "\
Destroys the session's key in STORE.keys/sessions: what was recorded of it cannot be read again, in no copy of the
segments, and the chain still verifies. Who erased it is on record before (recorder accesses). The index is built
anew without it. Copies of STORE.keys elsewhere must be destroyed too. Run it as the gateway's user.

Examples:
  recorder erase 3f9a
  recorder verify                       says how many records are of erased sessions")]
    Erase {
        /// The session.
        session: String,
    },
    /// Delete what need not be kept any more: by age, by size, or by what it is.
    #[command(after_help = "\
Deletes whole finished segments, oldest first, and single records where the rest of a segment is to stay. A signed
tombstone takes the place of what goes, so that the store verifies, and verify says what is gone. Legal holds keep
what they are on. Where there is an archive only what is in it goes. A running gateway is asked to do it.

Examples:
  recorder prune --older-than 90d --dry-run
  recorder prune --max-size 200GiB
  recorder prune --older-than 7d --scope read-bodies")]
    Prune(PruneArgs),
    /// Keep what a session, task or principal did from being deleted; list and release such holds.
    #[command(after_help = "\
Holds are records of the store: who added and who released them is evidence too. A hold beats every rule of
retention, and keeps a session from being erased.

Examples:
  recorder hold add --session 3f9a --reason 'case 17'
  recorder hold add --principal alice --reason 'case 17'
  recorder hold ls
  recorder hold release 9b1c")]
    Hold {
        /// What to do.
        #[command(subcommand)]
        verb: HoldVerb,
    },
    /// Delete the index and build it again from the segments. The gateway must not be running.
    #[command(
        after_help = "The segments are the truth; the index only makes reading fast. No record is touched."
    )]
    Reindex,
    /// Copy finished segments to an object store, and check the copies: `recorder archive --help`.
    #[command(disable_help_flag = true)]
    Archive {
        /// What `recorder-archive` takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Ask in SQL what is in a store and an archive: `recorder query --help`.
    #[command(disable_help_flag = true)]
    Query {
        /// What `recorder-query` takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show what the kernel witness could see in the latest run of the gateway, or can see here.
    #[command(after_help = "\
T1 counts bytes by socket in eBPF; T4 sees with eBPF who connects, and asks the kernel by file descriptor
for bytes (TCP_INFO); T5 only asks; Off is no witness. Hooks that did not attach are listed with the kernel's
error. --here and --cost load the programs into this kernel for a moment: they need no store, but rights.")]
    Witness(WitnessArgs),
    /// Run the witness's eBPF programs for a gateway that has no rights.
    #[command(after_help = "\
It loads and attaches the programs, gives all its capabilities up, and passes what they count to one gateway
at a time (witness.probe in the gateway's configuration). It needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN at
its start, and no network. Logs are JSON lines on standard error; RUST_LOG sets the level.

Examples:
  recorder probe --user 65532           for a gateway that runs as user 65532")]
    Probe(ProbeArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_verb() {
        let cli =
            Cli::try_parse_from(["recorder", "ls", "--json", "--store", "d"]).expect("parses");
        assert!(cli.json && cli.store == ["d"].map(PathBuf::from));
    }

    #[test]
    fn speed_and_at_once_exclude_each_other() {
        let parsed = Cli::try_parse_from(["recorder", "replay", "x", "--speed", "2", "--at-once"]);
        assert!(parsed.is_err());
    }
}
