//! Every setting and limit, each with a default that runs. The one place that reads the
//! environment (through clap).

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use clap::Args;
use http::Uri;
use secrecy::SecretString;

/// Where the listeners are.
#[derive(Args, Clone, Debug)]
pub struct HttpListenArgs {
    /// Address of the REST listener
    #[arg(long, env = "ORGD_HTTP_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub http_addr: SocketAddr,
    #[command(flatten)]
    /// Where liveness and readiness are.
    pub ops: OpsAddrArgs,
}

/// Where liveness and readiness are asked.
#[derive(Args, Clone, Debug)]
pub struct OpsAddrArgs {
    /// Address of the operations listener (/livez, /readyz)
    #[arg(long, env = "ORGD_OPS_ADDR", default_value = "127.0.0.1:9090", value_name = "ADDR")]
    pub ops_addr: SocketAddr,
}

/// Where the listeners of a whole service are.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Address of the gRPC listener
    #[arg(long, env = "ORGD_GRPC_ADDR", default_value = "127.0.0.1:50051", value_name = "ADDR")]
    pub grpc_addr: SocketAddr,
    /// Where the other listeners are.
    #[command(flatten)]
    pub http: HttpListenArgs,
}

/// Which database.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// The database: `sqlite://FILE?mode=rwc` or `postgres://USER:PASSWORD@HOST/NAME`
    #[arg(
        long,
        env = "ORGD_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://orgd.db?mode=rwc",
        value_name = "URL",
        value_parser = secret
    )]
    pub database_url: SecretString,
}

/// How callers are authenticated.
#[derive(Args, Clone, Copy, Debug)]
pub struct AuthArgs {
    /// How long a credential is remembered: until then a revoked one can still read, never write; 0s: not at all
    #[arg(
        long,
        env = "ORGD_AUTH_CACHE_TTL",
        default_value = "5s",
        value_name = "TIME",
        value_parser = humantime::parse_duration
    )]
    pub auth_cache_ttl: Duration,
}

impl Default for AuthArgs {
    fn default() -> Self {
        Self { auth_cache_ttl: Duration::from_secs(5) }
    }
}

/// How updates are put together.
#[derive(Args, Clone, Copy, Debug)]
pub struct WriteArgs {
    /// Updates that share one commit at most; 1: each has its own
    #[arg(long, env = "ORGD_WRITE_BATCH_MAX", default_value = "64", value_name = "NUMBER")]
    pub write_batch_max: NonZeroUsize,
    /// For tests: updates that must wait before the first is done
    #[arg(
        long,
        env = "ORGD_WRITE_BATCH_HOLD",
        default_value = "1",
        value_name = "NUMBER",
        hide = true
    )]
    pub write_batch_hold: NonZeroUsize,
}

/// Which service a gateway stands in front of.
#[derive(Args, Clone, Debug)]
pub struct UpstreamArgs {
    /// The service's gRPC listener, such as `http://127.0.0.1:50051`
    #[arg(long, env = "ORGD_UPSTREAM", value_name = "URL", value_parser = upstream)]
    pub upstream: Uri,
}

fn upstream(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().ok();
    let is_http = |uri: &Uri| uri.scheme_str() == Some("http") && uri.authority().is_some();
    uri.filter(is_http).ok_or_else(|| "an upstream is http://HOST:PORT".to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "the signature is clap's")]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.into())
}

/// What a client may take of the service. Every wait, size and number has an end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of one listener; more wait until one ends.
    pub connections_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Streams that one connection may make us reset (CVE-2025-8671, "MadeYouReset").
    pub local_resets_max: usize,
    /// Bytes of a request's headers, counted as HTTP/2 counts them.
    pub header_bytes_max: u32,
    /// Bytes of a REST body and of a gRPC message.
    pub body_bytes_max: usize,
    /// From the first byte of a request, or from the begin of the connection for the first one, to the
    /// end of its headers.
    pub header_read_timeout: Duration,
    /// How long a connection may be without a request after its first one.
    pub idle_timeout: Duration,
    /// How long a client with a request under way may neither send nor take a byte.
    pub stall_timeout: Duration,
    /// The time of one request.
    pub request_deadline: Duration,
    /// How long a stop waits for requests under way.
    pub drain_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            streams_max: 100,
            local_resets_max: 1024,
            header_bytes_max: 16 * 1024,
            body_bytes_max: 64 * 1024,
            header_read_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(10),
            request_deadline: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(20),
        }
    }
}
