//! Clients at other addresses of the loopback network: all of 127.0.0.0/8 is this machine.

use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

/// A connection to a listener from an address such as `127.0.0.2`.
pub async fn connect_from(source: &str, listener: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(listener).await.unwrap()
}
