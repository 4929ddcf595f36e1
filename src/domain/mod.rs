//! The meaning of an organization and of a change to it: values, patch, principal, rights, errors.
//!
//! Architecture invariant: no I/O, no async, no framework's name; nothing here knows of HTTP, gRPC
//! or SQL.

mod credential;
mod error;
mod organization;
mod patch;
pub mod policy;
mod principal;

pub use credential::{Credential, CredentialDigest, CredentialKind, StoredCredential};
pub use error::{Error, Result, Violation, reason};
pub use organization::{Etag, Field, Organization, OrganizationId, TEXT_CODE_POINTS_MAX, Text};
pub use patch::{Change, Patch, Update};
pub use principal::{Principal, Role};
