//! The meaning of an organization and of a change to it: values, patch, principal, rights, errors.
//!
//! Architecture invariant: no I/O, no framework, no HTTP, gRPC or SQL. Cargo holds that: this crate depends on
//! `thiserror` and `time` alone. Of the wire it has what callers read: the names of fields (`fields`), and
//! sentences with their reasons (`error`).

mod change;
mod condition;
mod credential;
mod error;
pub mod fields;
mod organization;
mod page;
mod patch;
pub mod policy;
mod principal;
mod role;
mod text;

pub use change::{ChangeEntry, FieldChange, Values};
pub use condition::EtagCondition;
pub use credential::{
    Credential, CredentialDigest, CredentialKind, CredentialState, SHORT_ID_LETTERS,
    StoredCredential,
};
pub use error::{Cause, Error, Result, Violation, reason};
pub use fields::{Change, Field, Fields, TEXT_CODE_POINTS_MAX};
pub use organization::{Etag, Organization, OrganizationId};
pub use page::{Page, PageSize};
pub use patch::{Creation, Patch, Update};
pub use principal::{Call, IdempotencyKey, Principal};
pub use role::Role;
pub use text::Text;
