//! Every setting and limit, one struct a concern. The one place that reads the environment and the file.
//!
//! A setting is an argument with an `ORGD_` variable; flags, variables, file, `orgd config` and
//! `docs/CONFIG.md` are made from it.

mod cors;
mod file;
mod filter;
mod limits;
mod misspelt;
mod show;
mod values;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::{ArgAction::Set, Args, ValueEnum, builder::RangedU64ValueParser};
pub use cors::CorsArgs;
pub use file::{Settings, read};
use http::Uri;
pub use limits::Limits;
pub use misspelt::misspelt;
use orgd_listener::Networks;
use secrecy::{ExposeSecret, SecretString};
pub use show::{effective, page};
pub use values::{TimeSpan, secret_in_file};
use values::{listen_addr, number, receiver, secret, share, time_span_or_none, token, upstream};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Settings file")]
pub struct FileArgs {
    /// A TOML file with settings; a flag or a variable comes before it
    #[arg(long, env = "ORGD_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listeners")]
pub struct HttpListenArgs {
    /// Address of the REST listener, such as `127.0.0.1:8080`, `localhost:8080`, or `:8080` for every IPv4 address
    #[arg(
        long,
        env = "ORGD_HTTP_ADDR",
        default_value = "127.0.0.1:8080",
        value_name = "ADDR",
        value_parser = listen_addr
    )]
    pub http_addr: SocketAddr,
    #[command(flatten)]
    pub ops: OpsAddrArgs,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listeners")]
pub struct OpsAddrArgs {
    /// Address of the operations listener (/livez, /readyz, /metrics), such as `127.0.0.1:9090`, `localhost:9090`, or `:9090` for every IPv4 address
    #[arg(
        long,
        env = "ORGD_OPS_ADDR",
        default_value = "127.0.0.1:9090",
        value_name = "ADDR",
        value_parser = listen_addr
    )]
    pub ops_addr: SocketAddr,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listeners")]
pub struct ListenArgs {
    /// Address of the gRPC listener, such as `127.0.0.1:50051`, `[::1]:50051`, `localhost:50051` (this machine alone), or `:50051` (every IPv4 address)
    #[arg(
        long,
        env = "ORGD_GRPC_ADDR",
        default_value = "127.0.0.1:50051",
        value_name = "ADDR",
        value_parser = listen_addr
    )]
    pub grpc_addr: SocketAddr,
    #[command(flatten)]
    pub http: HttpListenArgs,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// PEM file with the certificate chain of the gRPC and REST listeners; without it they speak plain text
    #[arg(long, env = "ORGD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key. Both files are read again when they change
    #[arg(long, env = "ORGD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// The database: `sqlite://FILE?mode=rwc` or `postgres://USER:PASSWORD@HOST/NAME`
    #[arg(
        long,
        env = "ORGD_DATABASE_URL",
        default_value = "sqlite://orgd.db?mode=rwc",
        value_name = "URL",
        value_parser = secret
    )]
    pub database_url: SecretString,
    /// File that holds the database's URL instead; white space around it does not count
    #[arg(
        long,
        env = "ORGD_DATABASE_URL_FILE",
        value_name = "FILE",
        conflicts_with = "database_url"
    )]
    pub database_url_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The URL, from the file where one is named.
    pub fn url(&self) -> anyhow::Result<SecretString> {
        const FLAG: &str = "--database-url-file";
        let Some(path) = &self.database_url_file else { return Ok(self.database_url.clone()) };
        let url = secret_in_file(FLAG, path)?;
        ensure!(!url.expose_secret().is_empty(), "{FLAG} {} is empty", path.display());
        Ok(url)
    }
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Database")]
pub struct PoolArgs {
    /// PostgreSQL connections at most, of which 6 are kept for batches and lookups, one for administrators, and one for the probe and metrics
    #[arg(
        long,
        env = "ORGD_DATABASE_CONNECTIONS",
        default_value = "11",
        value_name = "NUMBER",
        value_parser = RangedU64ValueParser::<u32>::new().range(9..=1000)
    )]
    pub database_connections: u32,
    /// How long a call waits for a connection
    #[arg(long, env = "ORGD_DATABASE_ACQUIRE_TIMEOUT", default_value = "1s", value_name = "TIME")]
    pub database_acquire_timeout: TimeSpan,
    /// How long PostgreSQL lets a statement wait for a lock, and SQLite waits for another process
    #[arg(long, env = "ORGD_DATABASE_LOCK_TIMEOUT", default_value = "1s", value_name = "TIME")]
    pub database_lock_timeout: TimeSpan,
    /// How long PostgreSQL lets a statement run, 1s at most, as a revocation waits for it; shorter than the request deadline, so that none is applied long after its caller was told that its time is over
    #[arg(
        long,
        env = "ORGD_DATABASE_STATEMENT_TIMEOUT",
        default_value = "1s",
        value_name = "TIME"
    )]
    pub database_statement_timeout: TimeSpan,
    /// Updates, or creations, that share one commit at most; 1: each has its own
    #[arg(
        long,
        env = "ORGD_WRITE_BATCH_MAX",
        default_value = "64",
        value_name = "NUMBER",
        value_parser = number(10_000)
    )]
    pub write_batch_max: NonZeroUsize,
    /// Updates, creations, or lookups that wait for the database at most; more are refused
    #[arg(
        long,
        env = "ORGD_WRITE_QUEUE_MAX",
        default_value = "1024",
        value_name = "NUMBER",
        value_parser = number(1_000_000)
    )]
    pub write_queue_max: NonZeroUsize,
}

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Authentication")]
pub struct AuthArgs {
    /// How long the service remembers that a credential is valid. For so long a revoked one can still read; it can never write. 0s: the database is asked for each call
    #[arg(
        long,
        env = "ORGD_AUTH_CACHE_TTL",
        default_value = "5s",
        value_name = "TIME",
        value_parser = time_span_or_none
    )]
    pub auth_cache_ttl: Duration,
}

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Rate limits")]
pub struct RateLimitArgs {
    /// Calls a second of one principal with the role user; twice as many may come at once. 0: no limit
    #[arg(long, env = "ORGD_RATE_LIMIT_USER", default_value = "200", value_name = "NUMBER")]
    pub rate_limit_user: u32,
    /// Calls a second of one principal with the role support; twice as many may come at once. 0: no limit
    #[arg(long, env = "ORGD_RATE_LIMIT_SUPPORT", default_value = "0", value_name = "NUMBER")]
    pub rate_limit_support: u32,
    /// Calls a second of one principal with the role administrator; twice as many may come at once. 0: no limit
    #[arg(long, env = "ORGD_RATE_LIMIT_ADMINISTRATOR", default_value = "0", value_name = "NUMBER")]
    pub rate_limit_administrator: u32,
    /// Requests a second from one source address (an IPv6 network of 64 bits is one); twice as many may come at once. 0: no limit. Behind a proxy that is not trusted all clients have the proxy's address
    #[arg(long, env = "ORGD_RATE_LIMIT_SOURCE", default_value = "0", value_name = "NUMBER")]
    pub rate_limit_source: u32,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxies")]
pub struct ProxyArgs {
    /// Networks or addresses of proxies in front, comma-separated, such as `10.0.0.0/8,fd00::1`: what they ask counts for the address in their X-Forwarded-For or Forwarded. No other network may be able to connect with their addresses
    #[arg(
        long,
        env = "ORGD_TRUSTED_PROXIES",
        default_value = "",
        value_name = "NETWORKS",
        value_parser = Networks::parse
    )]
    pub trusted_proxies: Networks,
    /// Whether each connection to the gRPC and REST listeners begins with the PROXY protocol, version 1 or 2, which says for whom it is: only trusted proxies can connect then
    #[arg(
        long,
        env = "ORGD_PROXY_PROTOCOL",
        default_value = "false",
        value_name = "BOOL",
        action = Set
    )]
    pub proxy_protocol: bool,
}

/// Which running service a command calls, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service")]
pub struct ServerArgs {
    /// The service's gRPC listener, such as `http://127.0.0.1:50051`, or `https://…` where that speaks TLS
    #[arg(
        long,
        env = "ORGD_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL",
        value_parser = upstream
    )]
    pub server: Uri,
    /// PEM file with the CA certificates to trust over `https`; without it, those of the system
    #[arg(long, env = "ORGD_SERVER_CA", value_name = "FILE")]
    pub server_ca: Option<PathBuf>,
    /// File that holds the bearer token or API key; without it, the variable `ORGD_TOKEN` does. White space around it does not count
    #[arg(long, env = "ORGD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The bearer token or API key. Set the variable, not a flag: everyone on the machine can see arguments
    #[arg(long, env = "ORGD_TOKEN", hide = true, value_name = "TOKEN", value_parser = token)]
    pub token: Option<SecretString>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Upstream")]
pub struct UpstreamArgs {
    /// The service's gRPC listener, such as `http://127.0.0.1:50051`, or `https://…` where that speaks TLS
    #[arg(long, env = "ORGD_UPSTREAM", value_name = "URL", value_parser = upstream)]
    pub upstream: Uri,
    /// PEM file with the CA certificates to trust over `https`; without it, those of the system
    #[arg(long, env = "ORGD_UPSTREAM_CA", value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,
}

/// The settings of every process that serves.
#[derive(Args, Debug)]
pub struct ServingArgs {
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub rates: RateLimitArgs,
    #[command(flatten)]
    pub proxies: ProxyArgs,
    #[command(flatten)]
    pub cors: CorsArgs,
    #[command(flatten)]
    pub traces: TraceArgs,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// What is logged: levels, and levels of targets; `orgd::request` has a line a request, `orgd::audit` who changed what. Commands other than `serve` and `gateway` log warnings and errors alone, unless this is set
    #[arg(
        long,
        env = "ORGD_LOG",
        default_value = "warn,orgd=info",
        value_name = "FILTER",
        value_parser = filter::log_filter,
        global = true
    )]
    pub log: String,
    /// The form of log lines
    #[arg(
        long,
        env = "ORGD_LOG_FORMAT",
        default_value = "auto",
        value_name = "FORMAT",
        global = true
    )]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere
    Auto,
    /// Text, for people
    Text,
    /// JSON, one object a line, for programs
    Json,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Where traces are sent by OTLP over gRPC, such as `http://127.0.0.1:4317`; without it, or empty, there are none
    #[arg(
        long,
        env = "ORGD_OTLP_ENDPOINT",
        default_value = "",
        value_name = "URL",
        value_parser = receiver
    )]
    pub otlp_endpoint: String,
    /// The share of requests that are traced, from 0 to 1; a trusted caller decides for its own requests
    #[arg(
        long,
        env = "ORGD_TRACE_SAMPLE_RATIO",
        default_value = "1",
        value_name = "SHARE",
        value_parser = share
    )]
    pub trace_sample_ratio: f64,
    /// Whether a caller's `traceparent` is believed; only where all callers are trusted
    #[arg(
        long,
        env = "ORGD_TRACE_REMOTE_PARENTS",
        default_value = "false",
        value_name = "BOOL",
        action = Set
    )]
    pub trace_remote_parents: bool,
}
