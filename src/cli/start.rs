//! What a process that serves says of itself once, when it starts: a line each.

use std::path;

use http::Uri;
use secrecy::SecretString;

use crate::store::{Place, Store};

pub(super) fn version() {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "orgd starts");
}

/// Said before the connection is tried, so that it stands above the reason why there is none.
pub(super) fn database(url: &SecretString) {
    // What cannot be read is refused when it is connected to.
    let Some(Place { kind, file, host, port, database, .. }) = Place::of(url) else { return };
    // Whoever reads the log may be in another folder.
    let file =
        file.map(|file| path::absolute(&file).map_or(file, |path| path.display().to_string()));
    tracing::info!(kind, file, host, port, database, "database");
}

pub(super) fn upstream(uri: &Uri) {
    tracing::info!(%uri, "upstream");
}

/// Says how to let somebody in, where nobody can call.
pub(super) async fn credentials(store: &Store) {
    // A database that does not answer is the probe's to tell.
    if matches!(store.has_credentials().await, Ok(false)) {
        tracing::info!(
            "nobody has a credential; `orgd credential issue --role administrator --subject NAME` \
             makes one, over the same database"
        );
    }
}
