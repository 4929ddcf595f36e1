//! A gateway within the test's own process, in front of whatever a test gives it.

use std::{net::SocketAddr, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use orgd::gateway::{self, Cors, RequestLimits, Transport};
use tokio::net::TcpListener;

/// Does some work with such a gateway.
pub async fn gateway_before(transport: Transport, work: impl AsyncFn(SocketAddr)) {
    let limits = RequestLimits {
        deadline: Duration::from_secs(30),
        body_bytes_max: 65_536,
        sources: None,
        heartbeat: Duration::from_secs(5),
    };
    let router = gateway::router(gateway::remote(transport), limits, Cors::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(router.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.unwrap();
        }
    };
    tokio::select! {
        () = serving => {}
        () = work(addr) => {}
    }
}
