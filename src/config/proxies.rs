//! Which proxies are believed when they say for whom they ask.

use clap::Args;
use orgd_listener::Networks;

/// Which proxies stand in front.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Proxies")]
pub struct ProxyArgs {
    /// Networks or addresses of proxies in front, comma-separated, such as `10.0.0.0/8,fd00::1`: what they ask counts for the address in their X-Forwarded-For. No other network may be able to connect with their addresses
    #[arg(
        long,
        env = "ORGD_TRUSTED_PROXIES",
        default_value = "",
        value_name = "NETWORKS",
        value_parser = Networks::parse
    )]
    pub trusted_proxies: Networks,
}
