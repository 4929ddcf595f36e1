//! The commands: each parses its words, calls one function, and prints what it answers.

mod contradictions;
mod credential;
mod database;
mod demo;
mod fields;
mod follow;
mod healthcheck;
mod migrate;
mod nudges;
mod organization;
mod output;
mod remote;
mod service;
mod start;
mod stored;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use clap_complete::Shell;

use self::{database::open_for_many, nudges::Nudges};
use crate::{
    config::{
        self, AuthArgs, DatabaseArgs, FileArgs, HttpListenArgs, ListenArgs, LogArgs, OpsAddrArgs,
        PoolArgs, ServerArgs, ServingArgs, Settings, TraceArgs, UpstreamArgs,
    },
    server::{self, HttpListeners, Listeners},
    telemetry::Telemetry,
};

/// How long the end of the process waits for a file, as on a network file system that does not answer.
const SLOW_FILE_TIMEOUT: Duration = Duration::from_millis(500);

/// The organization service: one safe place to change the details of an organization.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve gRPC and REST over a database
    Serve(Box<ServeArgs>),
    /// Serve REST alone, in front of a remote service
    Gateway(Box<GatewayArgs>),
    /// Show every setting in force, and where it came from
    Config(Box<ConfigArgs>),
    /// Bring the database's schema up to date, or show its state
    Migrate(migrate::MigrateArgs),
    /// Create, show, change and follow organizations, by a running service
    #[command(subcommand, after_help = service::EXIT_CODES)]
    Organization(organization::OrganizationCommand),
    /// Create and show organizations, straight in the database
    #[command(subcommand)]
    Database(stored::DatabaseCommand),
    /// Ask a running service who the holder of the token is, and what they may change
    #[command(after_help = service::EXIT_CODES)]
    Whoami(remote::ServiceArgs),
    /// Issue, list and revoke credentials, straight in the database
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Ask a running service whether it is ready; exit code 0 means yes
    Healthcheck(OpsAddrArgs),
    /// Serve the two documented examples from a temporary database
    Demo(Box<DemoArgs>),
    /// Print a shell's completions, such as for `source <(orgd completions bash)`
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Write the manual: a page for each command
    Man {
        /// The folder for the pages, which must exist
        folder: PathBuf,
    },
}

#[derive(Args, Debug)]
struct ServeArgs {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    serving: ServingArgs,
}

#[derive(Args, Debug)]
struct GatewayArgs {
    #[command(flatten)]
    listen: HttpListenArgs,
    #[command(flatten)]
    upstream: UpstreamArgs,
    #[command(flatten)]
    serving: ServingArgs,
}

#[derive(Args, Debug)]
struct DemoArgs {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    serving: ServingArgs,
}

/// Every setting that there is.
#[derive(Args, Debug)]
struct ConfigArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// A gateway's; no other command needs it.
    #[command(flatten)]
    upstream: Option<UpstreamArgs>,
    /// Of the commands that ask a running service.
    #[command(flatten)]
    server: ServerArgs,
    /// Print the page that lists every setting
    #[arg(long, hide = true)]
    page: bool,
}

/// Runs a command. Why it failed is said on standard error, whatever is logged.
#[must_use]
pub fn run(words: &[OsString]) -> ExitCode {
    run_command(words).map_or_else(|error| output::failure(&error), |()| ExitCode::SUCCESS)
}

fn run_command(words: &[OsString]) -> Result<()> {
    let settings = config::read(Cli::command(), words)?;
    let Cli { command, .. } = Cli::from_arg_matches(&settings.matches)?;
    let log = log_of(&settings)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let done = {
        let _within = runtime.enter();
        // Before anything that takes time. Only who serves has traces.
        let nudges = command.traces().map(|_| Nudges::listen()).transpose();
        let nudges = nudges.context("cannot listen for signals")?;
        let telemetry = Telemetry::start(&log, command.traces())?;
        warn_of_misspelt(&command);
        runtime.block_on(async {
            let Some(nudges) = nudges else { return command.run(&settings).await };
            tokio::select! {
                done = command.run(&settings) => done,
                never = nudges.heed(words, read_log, &telemetry) => match never {},
            }
        })
    };
    runtime.shutdown_timeout(SLOW_FILE_TIMEOUT);
    done
}

fn read_log(words: &[OsString]) -> Result<(LogArgs, bool)> {
    let settings = config::read(Cli::command(), words)?;
    Ok((log_of(&settings)?, settings.file.is_some()))
}

/// The log's settings. Only who serves logs by default what was done: a command says it by its output, and
/// whoever sees the demo for the first time wants its examples, not a line a request.
fn log_of(settings: &Settings) -> Result<LogArgs> {
    let Cli { mut log, command, .. } = Cli::from_arg_matches(&settings.matches)?;
    if !command.serves() && !settings.is_set("log") {
        "warn".clone_into(&mut log.log);
    }
    Ok(log)
}

/// Says which variables have no effect: in the log of who serves, else to whoever runs the command.
fn warn_of_misspelt(command: &Command) {
    for (variable, nearest) in config::misspelt(&Cli::command()) {
        if command.serves() {
            tracing::warn!(variable, nearest, "a variable has no effect: there is no such setting");
        } else {
            let hint = nearest.map_or_else(
                || "`orgd config` lists all that there are.".to_owned(),
                |nearest| format!("The nearest is {nearest}."),
            );
            output::note(&format!(
                "warning: {variable} has no effect: there is no such setting. {hint}"
            ));
        }
    }
}

impl Command {
    /// Whether it runs until it is stopped, unlike the demo for people who operate it.
    fn serves(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Gateway(_))
    }

    fn traces(&self) -> Option<&TraceArgs> {
        match self {
            Self::Serve(args) => Some(&args.serving.traces),
            Self::Gateway(args) => Some(&args.serving.traces),
            Self::Demo(args) => Some(&args.serving.traces),
            _ => None,
        }
    }

    async fn run(self, settings: &Settings) -> Result<()> {
        match self {
            Self::Serve(args) => {
                let ServeArgs { listen, database, pool, auth, serving } = *args;
                contradictions::of_serving(&serving)?;
                contradictions::of_pool(&pool, &serving)?;
                start::version();
                start::database(&database.url()?);
                let listeners = Listeners::bind(&listen)?;
                let store = open_for_many(&database, &pool).await?;
                start::credentials(&store).await;
                server::serve(listeners, store, auth, serving).await?;
            }
            Self::Gateway(args) => {
                let GatewayArgs { listen, upstream, serving } = *args;
                contradictions::of_serving(&serving)?;
                start::version();
                start::upstream(&upstream.upstream);
                let listeners = HttpListeners::bind(&listen)?;
                server::serve_gateway(listeners, upstream, serving).await?;
            }
            Self::Config(args) if args.page => output::text(&config::page(&settings.command)?)?,
            Self::Config(_) => output::text(&config::effective(settings)?)?,
            Self::Migrate(args) => migrate::run(args).await?,
            Self::Organization(command) => organization::run(command).await?,
            Self::Database(command) => stored::run(command).await?,
            Self::Whoami(args) => remote::whoami(args).await?,
            Self::Completions { shell } => {
                let mut completions = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "orgd", &mut completions);
                output::text(&String::from_utf8(completions)?)?;
            }
            Self::Man { folder } => {
                clap_mangen::generate_to(Cli::command(), &folder)
                    .with_context(|| format!("cannot write to {}", folder.display()))?;
            }
            Self::Credential(command) => credential::run(command).await?,
            Self::Healthcheck(args) => healthcheck::run(args.ops_addr).await?,
            Self::Demo(args) => {
                let DemoArgs { listen, auth, serving } = *args;
                contradictions::of_serving(&serving)?;
                demo::run(listen, auth, serving).await?;
            }
        }
        Ok(())
    }
}
