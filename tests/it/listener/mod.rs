//! The accept loop: its limits, its connections, TLS, and clients that are slow, greedy or hostile.

mod attacks;
mod connections;
mod keep_alive;
mod proxied;
mod requests;
mod slow_clients;
mod smuggling;
mod smuggling_http2;
mod sources;
mod tls;
