//! `orgd healthcheck`: asks a running service whether it is ready, for images without a shell.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use axum::body::Body;
use http::{Request, StatusCode, header::HOST};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::server;

const TIMEOUT: Duration = Duration::from_secs(2);

/// An error: the service is not ready, or does not answer.
pub(super) async fn run(ops_addr: SocketAddr) -> Result<()> {
    let status = timeout(TIMEOUT, ask(reachable(ops_addr)))
        .await
        .with_context(|| format!("{ops_addr} did not answer in {} s", TIMEOUT.as_secs()))??;
    ensure!(status == StatusCode::OK, "the service is not ready");
    Ok(())
}

/// A listener on every address is asked on the loopback.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        let is_ipv4 = addr.is_ipv4();
        addr.set_ip(if is_ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    addr
}

async fn ask(addr: SocketAddr) -> Result<StatusCode> {
    let stream = TcpStream::connect(addr).await.map_err(|error| {
        let known = server::not_connected(&error, "--ops-addr (ORGD_OPS_ADDR)");
        anyhow!("cannot reach {addr}: {}", known.unwrap_or_else(|| error.to_string()))
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header(HOST, addr.to_string()).body(Body::empty())?;
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status()),
        _ = connection => bail!("{addr} closed the connection"),
    }
}
