//! The `gateway` command.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use gateway::{
    admin::client,
    config::Config,
    kubeconfig,
    policy::{StreamDescription, command},
    run,
};
use recorder_user::model::SessionId;

/// The recorded path between kubectl and the Kubernetes API server.
///
/// The gateway knows who asks (OIDC), decides what may pass (Cedar policies), forwards with a credential
/// that the client never sees, and records every request and response. Look at what it recorded with the
/// `recorder` command.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 fine, 1 refused or failed, 2 usage.")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve until SIGTERM. Logs are JSON lines on standard error; RUST_LOG sets the level.
    Serve {
        /// The configuration file (docs/configuration.md).
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration and its policies, and print what is in force, secrets masked.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Give a store to the user that the gateway will run as; for root, before a gateway that is not.
    ///
    /// It makes the directories of the store and of its keys where they are missing. It needs CAP_CHOWN.
    Prepare {
        /// The store's directory (`store.directory`).
        #[arg(long)]
        store: PathBuf,
        /// The gateway's user.
        #[arg(long)]
        user: u32,
        /// The gateway's group.
        #[arg(long)]
        group: u32,
    },
    /// Print a kubeconfig for clients of this gateway.
    ///
    /// It holds no token. Add one with `kubectl config set-credentials decklog --token=…`, or an exec
    /// plugin that logs in.
    Kubeconfig {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// The cluster; the default one if not given.
        #[arg(long)]
        cluster: Option<String>,
        /// A label for what the client does (a ticket, a run). Parallel agents of one principal share a
        /// session unless each has a task of its own.
        #[arg(long)]
        task: Option<String>,
        /// The gateway's URL as clients reach it, e.g. https://gateway.example:8443.
        #[arg(long)]
        server: Option<String>,
        /// PEM file that clients verify the gateway's certificate with.
        #[arg(long)]
        certificate_authority: Option<PathBuf>,
    },
    /// List the open sessions of the running gateway, and their live streams.
    Sessions {
        /// The gateway's configuration file: its admin socket is asked, as root or as the gateway's user.
        #[arg(long)]
        config: PathBuf,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// End a session of the running gateway, and its live streams within seconds.
    ///
    /// It does not keep anybody out: the next request of the same principal opens another session. Change the
    /// policy, or revoke the token at its issuer, for that.
    Kill {
        /// The gateway's configuration file: its admin socket is asked, as root or as the gateway's user.
        #[arg(long)]
        config: PathBuf,
        /// The session's id, as `gateway sessions` and `recorder ls` show it.
        session: SessionId,
        /// Why, for the record.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Check, test and explain policies.
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
}

#[derive(Subcommand)]
enum PolicyVerb {
    /// Parse the policies and check them against the schema.
    Check {
        /// The directory that holds `access/` and `recording/`.
        directory: PathBuf,
    },
    /// Run the operator's own tests (`tests.yaml` in the directory).
    Test {
        /// The directory that holds `access/` and `recording/`.
        directory: PathBuf,
    },
    /// Say what the policies decide for one request, and which policies decide it.
    ///
    /// Examples: gateway policy explain policy --user alice --group agents "DELETE
    /// /api/v1/namespaces/production/configmaps/x", and gateway policy explain policy --user alice --tty "POST
    /// /api/v1/namespaces/shop/pods/web/exec" -- ls -l
    Explain {
        /// The directory that holds `access/` and `recording/`.
        directory: PathBuf,
        /// Method and path, as the API server would get them.
        request: String,
        /// The username.
        #[arg(long)]
        user: String,
        /// A group; may be repeated.
        #[arg(long = "group")]
        groups: Vec<String>,
        /// The cluster's name.
        #[arg(long, default_value = "")]
        cluster: String,
        /// The task label.
        #[arg(long)]
        task: Option<String>,
        /// The client asks for an upgraded connection (exec, attach, port-forward).
        #[arg(long)]
        upgraded: bool,
        /// The container of an exec or an attach.
        #[arg(long)]
        container: Option<String>,
        /// The client sends stdin.
        #[arg(long)]
        stdin: bool,
        /// The client asks for a terminal.
        #[arg(long)]
        tty: bool,
        /// A port of a port-forward, as its query would name it; may be repeated.
        #[arg(long = "port")]
        ports: Vec<u16>,
        /// The command of an exec, behind `--`.
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run_verb(arguments.verb) {
        Ok(code) => code,
        Err(error) => {
            let mut stderr = std::io::stderr().lock();
            // Standard error may be closed; there is nobody left to tell.
            let _told = writeln!(stderr, "gateway: {error:#}").is_ok();
            ExitCode::FAILURE
        }
    }
}

fn run_verb(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Serve { config } => serve(&config),
        Verb::Check { config } => check(&config),
        Verb::Prepare { store, user, group } => {
            gateway::prepare::prepare(&store, user, group)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Kubeconfig { config, cluster, task, server, certificate_authority } => {
            let config = Config::load(&config)?;
            let request = kubeconfig::Request {
                server: server.as_deref(),
                cluster: cluster.as_deref(),
                task: task.as_deref(),
                certificate_authority: certificate_authority.as_deref(),
            };
            print(&kubeconfig::kubeconfig(&config, &request)?)
        }
        Verb::Sessions { config, json } => print(&client::sessions(&Config::load(&config)?, json)?),
        Verb::Kill { config, session, reason } => {
            let (text, found) = client::kill(&Config::load(&config)?, session, reason.as_deref())?;
            print(&text)?;
            Ok(ExitCode::from(u8::from(!found)))
        }
        Verb::Policy { verb } => {
            let outcome = policy(verb);
            print(&outcome.text)?;
            Ok(ExitCode::from(outcome.code))
        }
    }
}

fn serve(path: &Path) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    // One provider for all of the process; a second install means that someone else chose.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if provider.install_default().is_err() {
        anyhow::bail!("another TLS provider is installed already");
    }
    let config = Config::load(path)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(config.threads).enable_all().build()?;
    runtime.block_on(run::serve(&config))?;
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let source = gateway::policy::PolicySource {
        access: config.policy.access.clone(),
        recording: config.policy.recording.clone(),
    };
    let policies = gateway::policy::PolicyStore::open(source)?;
    gateway::accept::Certificate::load(&config.tls)?;
    for cluster in &config.clusters {
        gateway::config::ClusterAccess::load(cluster)?;
    }
    let hash = policies.current().hash().to_owned();
    print(&format!("{config}# policy set {hash}: fine\n"))
}

fn policy(verb: PolicyVerb) -> command::Outcome {
    match verb {
        PolicyVerb::Check { directory } => command::check(&directory),
        PolicyVerb::Test { directory } => command::test(&directory),
        PolicyVerb::Explain {
            directory,
            request,
            user,
            groups,
            cluster,
            task,
            upgraded,
            container,
            stdin,
            tty,
            ports,
            command: words,
        } => {
            let stream = StreamDescription { command: words, container, stdin, tty, ports };
            let asked =
                command::ExplainRequest { user, groups, cluster, task, upgraded, request, stream };
            command::explain(&directory, &asked)
        }
    }
}

/// A closed pipe is no failure: the reader has seen enough.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
