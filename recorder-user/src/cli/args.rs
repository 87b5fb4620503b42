//! What may be typed. What it means is in the module of each verb.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::units::{When, parse_duration, parse_size, parse_speed, parse_when};
use crate::model::SessionKind;

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
    /// The store's directory (`store.directory` of the gateway's configuration).
    #[arg(long, global = true, env = "DECKLOG_STORE", value_name = "DIR")]
    pub store: Option<PathBuf>,
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
  recorder ls --kind bypass
  recorder ls --json | jq 'select(.denied > 0) | .principal.username'")]
    Ls {
        /// Only what came through the gateway (api), or went round it (bypass).
        #[arg(long, value_enum)]
        kind: Option<KindWord>,
    },
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
  recorder verify segments/01a0c4506c007f0e8a3c5b1d9e2f4a60.seg     one segment, without its neighbours")]
    Verify {
        /// A session, an exchange, SEGMENT:OFFSET, or the path of a store, bundle or segment; all of --store by default.
        target: Option<String>,
        /// Trust this public key (PEM) instead of those beside the store; may be given again.
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// Expect the store to come at least this far, instead of what is noted beside its keys.
        #[arg(long, value_name = "FILE")]
        head: Option<PathBuf>,
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
}

/// What `witness` takes.
#[derive(Args, Debug)]
pub struct WitnessArgs {
    /// Try now what the kernel of this machine allows.
    #[arg(long, conflicts_with = "cost")]
    pub here: bool,
    /// Measure what each program costs here: instructions that the verifier proved, and time per run.
    #[arg(long)]
    pub cost: bool,
    /// An eBPF object to use instead of the embedded one.
    #[arg(long, value_name = "FILE")]
    pub object: Option<PathBuf>,
}

/// What `prune` takes.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("rule").required(true).multiple(true).args(["older_than", "max_size"])))]
pub struct PruneArgs {
    /// What is older goes.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub older_than: Option<Duration>,
    /// The oldest segments go until the store takes no more than this of the disk.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// Of what is older only this goes.
    #[arg(long, value_enum, requires = "older_than")]
    pub scope: Option<ScopeWord>,
    /// Only say what would go.
    #[arg(long)]
    pub dry_run: bool,
}

/// The scope's word, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeWord {
    /// Exchanges that only read.
    Reads,
    /// Bodies of exchanges that only read.
    ReadBodies,
}

/// What is done with legal holds.
#[derive(Clone, Debug, Subcommand)]
pub enum HoldVerb {
    /// List the holds, released ones too.
    Ls,
    /// Add a hold.
    #[command(group(clap::ArgGroup::new("on").required(true).args(["session", "task", "principal"])))]
    Add {
        /// On this session.
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// On all that is done for this task.
        #[arg(long)]
        task: Option<String>,
        /// On all that this username or subject does.
        #[arg(long, value_name = "NAME")]
        principal: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Release a hold.
    Release {
        /// The hold.
        hold: String,
    },
}

/// What is done with keys.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum KeysVerb {
    /// Print the public half of the current key as PEM.
    Export,
    /// Make a new key, endorsed by the current one.
    Rotate,
}

/// What `replay` takes.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A session, or an exchange that was a stream, a log or a watch.
    pub id: String,
    /// How fast: 2 is twice as fast as it was, 0.5 half as fast.
    #[arg(long, value_name = "N", value_parser = parse_speed, conflicts_with = "at_once")]
    pub speed: Option<f64>,
    /// No delays.
    #[arg(long)]
    pub at_once: bool,
    /// Cut longer pauses to this, after scaling.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub max_wait: Duration,
    /// Of a stream: begin so long after its request.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub seek: Option<Duration>,
    /// Of a stream: show what was typed, too.
    #[arg(long)]
    pub stdin: bool,
}

/// What `follow` takes.
#[derive(Args, Debug)]
pub struct FollowArgs {
    /// A session, or an exchange that is a stream, a log or a watch.
    pub id: String,
    /// Of a stream: show what is typed, too.
    #[arg(long)]
    pub stdin: bool,
}

/// What `accesses` takes.
#[derive(Args, Debug)]
pub struct AccessesArgs {
    /// At or after this.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub since: Option<When>,
}

/// What `export` takes.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// An exchange that was an exec, an attach or a log; of a bundle a session.
    pub id: String,
    /// As what.
    #[arg(long, value_enum)]
    pub format: FormatWord,
    /// Write to this file instead of standard output; of a bundle the new directory.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only this channel.
    #[arg(long, value_enum)]
    pub channel: Option<ChannelWord>,
    /// Of an asciicast: what was typed, too, as input events.
    #[arg(long)]
    pub stdin: bool,
}

/// The format's word, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatWord {
    /// asciinema's format of 2017, which every player reads.
    AsciicastV2,
    /// asciinema's format of 2025, with the exit code.
    AsciicastV3,
    /// Lines of UTF-8.
    Text,
    /// Bytes.
    Raw,
    /// A directory that can be checked by itself.
    Bundle,
}

/// The channel's word, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChannelWord {
    /// What was typed.
    Stdin,
    /// What was printed.
    Stdout,
    /// What was printed as errors.
    Stderr,
}

/// What `search` takes.
#[derive(Args, Debug)]
pub struct SearchArgs {
    /// Exchanges (api), or connections that went round the gateway (bypass). Of those only --session, --cluster,
    /// --namespace and --name (of the pod), --command (part of the process's name), times and limits can be asked.
    #[arg(long, value_enum, default_value = "api")]
    pub kind: KindWord,
    /// In this session.
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// By this username or subject.
    #[arg(long, value_name = "NAME")]
    pub principal: Option<String>,
    /// For this task.
    #[arg(long)]
    pub task: Option<String>,
    /// get, list, watch, create, update, patch, delete, deletecollection, …
    #[arg(long)]
    pub verb: Option<String>,
    /// Plural name, group and subresource if wanted: pods, deployments.apps, pods/exec.
    #[arg(long)]
    pub resource: Option<String>,
    /// Of this API group; '' is the core group.
    #[arg(long, value_name = "GROUP")]
    pub api_group: Option<String>,
    /// On this cluster, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// In this namespace.
    #[arg(long, short = 'n')]
    pub namespace: Option<String>,
    /// The object's name; also of one that was changed without being named.
    #[arg(long)]
    pub name: Option<String>,
    /// The uid of an object that was changed.
    #[arg(long)]
    pub uid: Option<String>,
    /// The user agent contains this.
    #[arg(long, value_name = "TEXT")]
    pub user_agent: Option<String>,
    /// What the policy answered.
    #[arg(long, value_enum)]
    pub verdict: Option<VerdictWord>,
    /// The HTTP status that the client saw, or a class of them (4xx).
    #[arg(long, value_name = "CODE")]
    pub status: Option<String>,
    /// What it did to the cluster.
    #[arg(long, value_enum)]
    pub effect: Option<EffectWord>,
    /// By this command: part of its name (apply), its id, or part of what an exec ran ('rm -rf').
    #[arg(long, value_name = "TEXT")]
    pub command: Option<String>,
    /// Received at or after this.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub since: Option<When>,
    /// Received before this.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    pub until: Option<When>,
    /// At most so many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
    /// Go on after this exchange (the cursor of the last search).
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
}

/// The word of a session's kind, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindWord {
    /// Through the gateway.
    Api,
    /// Round the gateway.
    Bypass,
}

impl KindWord {
    pub(super) const fn session_kind(self) -> SessionKind {
        match self {
            Self::Api => SessionKind::Api,
            Self::Bypass => SessionKind::Bypass,
        }
    }
}

/// The verdict's word, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VerdictWord {
    /// Forwarded.
    Allow,
    /// Refused.
    Deny,
    /// Held for approval.
    Hold,
}

/// The effect's word, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EffectWord {
    /// Objects were made.
    Created,
    /// Objects were changed.
    Modified,
    /// Objects were removed.
    Deleted,
    /// Something ran.
    Executed,
    /// State was read.
    Read,
    /// Refused, failed, or a dry run.
    Nothing,
    /// No outcome was recorded.
    Unknown,
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
        assert!(cli.json && cli.store.is_some_and(|dir| dir.as_os_str() == "d"));
    }

    #[test]
    fn speed_and_at_once_exclude_each_other() {
        let parsed = Cli::try_parse_from(["recorder", "replay", "x", "--speed", "2", "--at-once"]);
        assert!(parsed.is_err());
    }
}
