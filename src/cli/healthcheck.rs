//! `orgd healthcheck`: asks a running service whether it is ready, for images without a shell.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use axum::body::Body;
use http::{Request, StatusCode, header::HOST};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Exit code 0 where the service answers that it is ready, 1 where it answers that it is not.
pub(super) async fn run(ops_addr: SocketAddr) -> Result<ExitCode> {
    let status = timeout(TIMEOUT, ask(reachable(ops_addr)))
        .await
        .with_context(|| format!("{ops_addr} did not answer in {} s", TIMEOUT.as_secs()))??;
    if status != StatusCode::OK {
        bail!("the service is not ready");
    }
    Ok(ExitCode::SUCCESS)
}

/// A listener on every address is asked on the loopback.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        let loopback = if addr.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        addr.set_ip(loopback);
    }
    addr
}

async fn ask(addr: SocketAddr) -> Result<StatusCode> {
    let stream = TcpStream::connect(addr).await.with_context(|| format!("cannot reach {addr}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header(HOST, addr.to_string()).body(Body::empty())?;
    tokio::select! {
        response = sender.send_request(request) => Ok(response?.status()),
        _ = connection => bail!("{addr} closed the connection"),
    }
}
