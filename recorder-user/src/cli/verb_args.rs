//! What single verbs take.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::units::{When, parse_duration, parse_ring_size, parse_size, parse_speed, parse_when};
use crate::model::SessionKind;

/// An archive that is read too.
#[derive(Args, Clone, Debug, Default)]
pub struct ArchiveArgs {
    /// Read what this archive has of all its gateways, too: s3://BUCKET/PREFIX. How to reach it is told by the variables
    /// that `recorder archive --help` lists.
    #[arg(long, value_name = "URL")]
    pub archive: Option<String>,
    /// Keep what was fetched here, and fetch only what is new; a directory for one archive.
    #[arg(long, value_name = "DIR", requires = "archive")]
    pub archive_cache: Option<PathBuf>,
}

/// What `ls` takes.
#[derive(Args, Clone, Debug)]
pub struct LsArgs {
    /// Only what came through the gateway (api), or went round it (bypass).
    #[arg(long, value_enum)]
    pub kind: Option<KindWord>,
    /// What else is listed.
    #[command(flatten)]
    pub archive: ArchiveArgs,
}

/// What `probe` takes.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// The Unix socket for the gateway; mode 0660.
    #[arg(long, value_name = "PATH", default_value = crate::witness::split::SOCKET)]
    pub listen: PathBuf,
    /// A user that a gateway runs as; may be given more than once.
    #[arg(long = "user", value_name = "UID", default_value = "0")]
    pub users: Vec<u32>,
    /// The group that may connect; that of the socket's directory or of this process by default.
    #[arg(long, value_name = "GID")]
    pub group: Option<u32>,
    /// An eBPF object to use instead of the embedded one.
    #[arg(long, value_name = "FILE")]
    pub object: Option<PathBuf>,
    /// The size of the kernel's ring of notices, a power of two: 64 bytes for each. When it is full, notices are
    /// lost and counted; byte counts stay exact.
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = parse_ring_size)]
    pub ring_size: u32,
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
    /// What else is read.
    #[command(flatten)]
    pub archive: ArchiveArgs,
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
    /// What else is searched.
    #[command(flatten)]
    pub archive: ArchiveArgs,
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
