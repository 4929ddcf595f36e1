//! What an answer says: resources, problems and headers.

pub(super) mod cors;
pub(super) mod field_error;
pub(super) mod headers;
pub(super) mod problem;
pub(super) mod resource;
