//! An accept loop for HTTP/1.1 and HTTP/2 in which everything that a client may take has a limit. `README.md`
//! says which, and why no library has them.

#![forbid(unsafe_code)]

mod accept;
mod answer;
mod arriving;
mod attention;
mod budget;
mod charge;
mod connection;
mod connection_state;
mod context;
mod flood;
mod forwarded;
mod framing;
mod limits;
mod linger;
mod metrics;
pub mod pem;
mod protocol;
mod proxied;
mod requests;
mod rfc7239;
mod slots;
mod tls;
mod under_way;
mod watched;

pub use accept::{Listener, accept_loop};
pub use budget::{AnswerBytes, Budget, CallerBudget, secret};
pub use context::{ListenerContext, Stages};
pub use forwarded::{Networks, Source, X_FORWARDED_FOR};
pub use limits::Limits;
pub use metrics::describe_metrics;
pub use protocol::Protocol;
pub use tls::Tls;
