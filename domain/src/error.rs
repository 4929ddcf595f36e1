//! Why a call is refused, in the words that its caller reads, and the stable reasons.
//!
//! Which code a refusal has on a wire is not decided here.

use std::{borrow::Cow, ops::Deref, sync::Arc};

use super::{Etag, Field, OrganizationId, Role};

pub type Result<T> = std::result::Result<T, Error>;

/// Stable reasons of refusals, in UPPER_SNAKE_CASE (AIP-193): a program may compare with them.
pub mod reason {
    pub const CREDENTIAL_MISSING: &str = "CREDENTIAL_MISSING";
    pub const CREDENTIAL_INVALID: &str = "CREDENTIAL_INVALID";
    /// The secret of a credential to be stored belongs to another one.
    pub const CREDENTIAL_ALREADY_EXISTS: &str = "CREDENTIAL_ALREADY_EXISTS";
    /// No credential, or more than one, has the id that was given.
    pub const CREDENTIAL_NOT_FOUND: &str = "CREDENTIAL_NOT_FOUND";
    pub const ORGANIZATION_FORBIDDEN: &str = "ORGANIZATION_FORBIDDEN";
    pub const FIELD_FORBIDDEN: &str = "FIELD_FORBIDDEN";
    pub const CREATION_FORBIDDEN: &str = "CREATION_FORBIDDEN";
    pub const IDEMPOTENCY_KEY_REUSED: &str = "IDEMPOTENCY_KEY_REUSED";
    pub const IDEMPOTENCY_KEY_MALFORMED: &str = "IDEMPOTENCY_KEY_MALFORMED";
    /// A page token is not one that the service gave for this list.
    pub const PAGE_TOKEN_INVALID: &str = "PAGE_TOKEN_INVALID";
    /// The request breaks rules; each is listed.
    pub const INVALID_INPUT: &str = "INVALID_INPUT";
    pub const HEADER_REPEATED: &str = "HEADER_REPEATED";
    /// A required field is missing or would be cleared.
    pub const FIELD_REQUIRED: &str = "FIELD_REQUIRED";
    /// A text is empty or has nothing but white space.
    pub const FIELD_BLANK: &str = "FIELD_BLANK";
    pub const FIELD_CONTROL_CHARACTER: &str = "FIELD_CONTROL_CHARACTER";
    pub const FIELD_TOO_LONG: &str = "FIELD_TOO_LONG";
    pub const FIELD_OUT_OF_RANGE: &str = "FIELD_OUT_OF_RANGE";
    pub const MASK_PATH_UNKNOWN: &str = "MASK_PATH_UNKNOWN";
    pub const MASK_WILDCARD_NOT_ALONE: &str = "MASK_WILDCARD_NOT_ALONE";
    pub const ORGANIZATION_NOT_FOUND: &str = "ORGANIZATION_NOT_FOUND";
    pub const ORGANIZATION_ALREADY_EXISTS: &str = "ORGANIZATION_ALREADY_EXISTS";
    pub const ETAG_MISMATCH: &str = "ETAG_MISMATCH";
    pub const ETAG_WEAK: &str = "ETAG_WEAK";
    pub const ETAG_MALFORMED: &str = "ETAG_MALFORMED";
    pub const DEADLINE_MALFORMED: &str = "DEADLINE_MALFORMED";
    pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
    pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
    pub const MESSAGE_MALFORMED: &str = "MESSAGE_MALFORMED";
    pub const NOT_IMPLEMENTED: &str = "NOT_IMPLEMENTED";
    pub const STORE_OVERLOADED: &str = "STORE_OVERLOADED";
    pub const SHARE_EXHAUSTED: &str = "SHARE_EXHAUSTED";
    pub const WATCHES_EXHAUSTED: &str = "WATCHES_EXHAUSTED";
    /// The service stops, and with it what has no end of its own.
    pub const SERVICE_STOPPING: &str = "SERVICE_STOPPING";
    /// The connection is old, and with it ends what has no end of its own.
    pub const CONNECTION_AGED: &str = "CONNECTION_AGED";
    pub const CREDENTIAL_CHANGED: &str = "CREDENTIAL_CHANGED";
    pub const RATE_LIMITED: &str = "RATE_LIMITED";
    pub const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
    pub const INTERNAL: &str = "INTERNAL";
}

/// One rule that a request breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field at fault in the request message, such as `organization.name`.
    pub path: Cow<'static, str>,
    pub reason: &'static str,
    pub description: Cow<'static, str>,
}

impl Violation {
    pub fn new(
        path: impl Into<Cow<'static, str>>,
        reason: &'static str,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { path: path.into(), reason, description: description.into() }
    }

    pub fn of_field(
        field: Field,
        reason: &'static str,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(format!("organization.{}", field.path()), reason, description)
    }
}

/// What a failure came from, for the log alone. Shared, because several callers may wait for one thing,
/// and each of them is to hear why it failed.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Cause {
    fn from(error: E) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl Deref for Cause {
    type Target = dyn std::error::Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// Why a call is refused. The text is for the caller; a source is for the log only.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "No credential was presented. Send an Authorization header with a bearer token or an API key."
    )]
    CredentialMissing,
    #[error(
        "The credential is malformed, unknown, expired or revoked. Ask an administrator for a new one."
    )]
    CredentialInvalid,
    /// The caller has no right to the organization, whether or not it exists.
    #[error("You have no right to this organization.")]
    ForbiddenOrganization,
    #[error("The role {} may not change {}. Leave it out, or ask someone who may.", role.as_str(), paths(fields))]
    ForbiddenFields {
        role: Role,
        /// All fields of the update that it may not change.
        fields: Vec<Field>,
    },
    #[error("Only administrators may create organizations.")]
    ForbiddenCreation,
    #[error("Another request was sent with this idempotency key. Use a new key for a new request.")]
    IdempotencyKeyReused,
    #[error("The request is not valid: {}", first_description(_0))]
    Invalid(Vec<Violation>),
    #[error("Organization {0} does not exist.")]
    NotFound(OrganizationId),
    #[error("Organization {0} exists already.")]
    AlreadyExists(OrganizationId),
    #[error(
        "The organization was changed since you read it; its etag is now {current}. Read it again and repeat the change on what you find."
    )]
    EtagMismatch { current: Etag },
    #[error(
        "A weak etag (W/) matches nothing that is to be changed; send the etag without W/, as an answer gives it. The organization's etag is {current}."
    )]
    EtagWeak { current: Etag },
    #[error(
        "What was sent is no etag; send one with its double quotes, as an answer gives it. The organization's etag is {current}."
    )]
    EtagMalformed { current: Etag },
    #[error(
        "The service has more to do than it can do in time; your request was not carried out. Try again after the time that the answer says."
    )]
    Overloaded,
    #[error(
        "You have as much under way as one caller may have, so your request was not carried out. Wait until some of it is done, and try again after the time that the answer says."
    )]
    ShareExhausted,
    #[error(
        "The service cannot reach its database at the moment. Try again after the time that the answer says."
    )]
    Unavailable(#[source] Cause),
    /// As `Unavailable`, while a change was under way: it may be stored.
    #[error(
        "The service cannot reach its database at the moment; whether a change was stored is not known. Try again with the same idempotency key, or read before you do."
    )]
    OutcomeUnknown(#[source] Cause),
    #[error(
        "Too many watches are open: as many as one caller may have, or as many as there may be. Close one, or try again after the time that the answer says, or list the changes."
    )]
    TooManyWatches,
    #[error("The service is stopping. Watch again, from the last version that you have seen.")]
    Stopping,
    #[error("The connection is old. Watch again, from the last version that you have seen.")]
    ConnectionAged,
    /// The credential of a watch proves another thing than when the watch began.
    #[error("Your credential was changed. Watch again, from the last version that you have seen.")]
    CredentialChanged,
    #[error("The service has failed. Try again; if it happens again, report the request id.")]
    Internal(#[source] Cause),
}

impl Error {
    #[must_use]
    pub fn invalid(
        path: &'static str,
        reason: &'static str,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Invalid(vec![Violation::new(path, reason, description)])
    }

    /// The error of a change that was begun: its caller must know that it may be stored.
    #[must_use]
    pub fn of_change(self) -> Self {
        match self {
            Self::Unavailable(cause) => Self::OutcomeUnknown(cause),
            other => other,
        }
    }
}

fn paths(fields: &[Field]) -> String {
    let paths: Vec<&str> = fields.iter().map(|field| field.path()).collect();
    paths.join(", ")
}

fn first_description(violations: &[Violation]) -> &str {
    violations.first().map_or("", |violation| &violation.description)
}
