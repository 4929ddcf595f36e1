//! Which proxies are believed when they say for whom they ask.

use std::{net::IpAddr, sync::Arc};

use clap::Args;
use ipnet::IpNet;

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
        value_parser = networks
    )]
    pub trusted_proxies: Networks,
}

/// Networks, none by default.
#[derive(Clone, Debug, Default)]
pub struct Networks(Arc<[IpNet]>);

impl Networks {
    /// Whether an address is in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Reads networks, each an address with or without a length.
pub fn networks(text: &str) -> Result<Networks, String> {
    let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let parts = text.split(',').map(str::trim).filter(|_| !text.is_empty());
    let networks = parts.map(network).collect::<Result<_, _>>();
    networks.map(Networks).map_err(|_| "must be networks such as 10.0.0.0/8, or addresses".into())
}
