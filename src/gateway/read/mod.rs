//! What a request says: its path, query, headers and body, as messages of the service.

pub(super) mod body;
pub(super) mod json;
pub(super) mod path;
pub(super) mod preconditions;
pub(super) mod prefer;
pub(super) mod query;
pub(super) mod request;
