//! Why a call is refused, in the words that its caller reads, and the stable reasons.
//!
//! Which code a refusal has on a wire is not decided here.

use std::{borrow::Cow, ops::Deref, sync::Arc};

use super::{Etag, Field, OrganizationId, Role};

/// The result of what can be refused.
pub type Result<T> = std::result::Result<T, Error>;

/// Stable reasons of refusals, in UPPER_SNAKE_CASE (AIP-193): a program may compare with them.
pub mod reason {
    /// No credential was presented.
    pub const CREDENTIAL_MISSING: &str = "CREDENTIAL_MISSING";
    /// The credential is malformed, unknown, expired or revoked.
    pub const CREDENTIAL_INVALID: &str = "CREDENTIAL_INVALID";
    /// The secret of a credential to be stored belongs to another one.
    pub const CREDENTIAL_ALREADY_EXISTS: &str = "CREDENTIAL_ALREADY_EXISTS";
    /// No credential, or more than one, has the id that was given.
    pub const CREDENTIAL_NOT_FOUND: &str = "CREDENTIAL_NOT_FOUND";
    /// The caller has no right to the organization.
    pub const ORGANIZATION_FORBIDDEN: &str = "ORGANIZATION_FORBIDDEN";
    /// The caller may not change a field that the update names.
    pub const FIELD_FORBIDDEN: &str = "FIELD_FORBIDDEN";
    /// The caller may not store a new organization.
    pub const CREATION_FORBIDDEN: &str = "CREATION_FORBIDDEN";
    /// Another request was sent under the same key.
    pub const IDEMPOTENCY_KEY_REUSED: &str = "IDEMPOTENCY_KEY_REUSED";
    /// A key for a request is not a UUID.
    pub const IDEMPOTENCY_KEY_MALFORMED: &str = "IDEMPOTENCY_KEY_MALFORMED";
    /// A page token is not one that the service gave for this list.
    pub const PAGE_TOKEN_INVALID: &str = "PAGE_TOKEN_INVALID";
    /// The request breaks rules; each is listed.
    pub const INVALID_INPUT: &str = "INVALID_INPUT";
    /// A header line that may come once came several times.
    pub const HEADER_REPEATED: &str = "HEADER_REPEATED";
    /// A required field is missing or would be cleared.
    pub const FIELD_REQUIRED: &str = "FIELD_REQUIRED";
    /// A text is empty or has nothing but white space.
    pub const FIELD_BLANK: &str = "FIELD_BLANK";
    /// A text has a control character.
    pub const FIELD_CONTROL_CHARACTER: &str = "FIELD_CONTROL_CHARACTER";
    /// A text is too long.
    pub const FIELD_TOO_LONG: &str = "FIELD_TOO_LONG";
    /// A number is out of its range.
    pub const FIELD_OUT_OF_RANGE: &str = "FIELD_OUT_OF_RANGE";
    /// A mask names what is not a field.
    pub const MASK_PATH_UNKNOWN: &str = "MASK_PATH_UNKNOWN";
    /// A mask has `*` beside other paths.
    pub const MASK_WILDCARD_NOT_ALONE: &str = "MASK_WILDCARD_NOT_ALONE";
    /// No organization has this id.
    pub const ORGANIZATION_NOT_FOUND: &str = "ORGANIZATION_NOT_FOUND";
    /// An organization with this id exists already.
    pub const ORGANIZATION_ALREADY_EXISTS: &str = "ORGANIZATION_ALREADY_EXISTS";
    /// The organization was changed since the caller read it.
    pub const ETAG_MISMATCH: &str = "ETAG_MISMATCH";
    /// An etag is weak, and weak ones match nothing that is to be changed.
    pub const ETAG_WEAK: &str = "ETAG_WEAK";
    /// What was sent is no etag.
    pub const ETAG_MALFORMED: &str = "ETAG_MALFORMED";
    /// The time that the caller gives a call breaks the grammar.
    pub const DEADLINE_MALFORMED: &str = "DEADLINE_MALFORMED";
    /// The deadline has passed.
    pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
    /// A request message is too large.
    pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
    /// A request message cannot be decoded.
    pub const MESSAGE_MALFORMED: &str = "MESSAGE_MALFORMED";
    /// There is no such method.
    pub const NOT_IMPLEMENTED: &str = "NOT_IMPLEMENTED";
    /// More work waits than can be done in time.
    pub const STORE_OVERLOADED: &str = "STORE_OVERLOADED";
    /// The caller has as much under way as one caller may have.
    pub const SHARE_EXHAUSTED: &str = "SHARE_EXHAUSTED";
    /// As many watch as may.
    pub const WATCHES_EXHAUSTED: &str = "WATCHES_EXHAUSTED";
    /// The service stops, and with it what has no end of its own.
    pub const SERVICE_STOPPING: &str = "SERVICE_STOPPING";
    /// The connection is old, and with it ends what has no end of its own.
    pub const CONNECTION_AGED: &str = "CONNECTION_AGED";
    /// The credential was changed since a watch began.
    pub const CREDENTIAL_CHANGED: &str = "CREDENTIAL_CHANGED";
    /// The caller, or its source address, calls too often.
    pub const RATE_LIMITED: &str = "RATE_LIMITED";
    /// The database cannot be reached or is too slow.
    pub const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
    /// A fault of the service.
    pub const INTERNAL: &str = "INTERNAL";
}

/// One rule that a request breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field at fault in the request message, such as `organization.name`.
    pub path: Cow<'static, str>,
    /// The stable reason.
    pub reason: &'static str,
    /// A sentence for the caller.
    pub description: Cow<'static, str>,
}

impl Violation {
    /// A broken rule of the field at `path`.
    pub fn new(
        path: impl Into<Cow<'static, str>>,
        reason: &'static str,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { path: path.into(), reason, description: description.into() }
    }

    /// A broken rule of a field of the organization.
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
    /// No credential was presented.
    #[error(
        "No credential was presented. Send an Authorization header with a bearer token or an API key."
    )]
    CredentialMissing,
    /// The credential proves nothing.
    #[error(
        "The credential is malformed, unknown, expired or revoked. Ask an administrator for a new one."
    )]
    CredentialInvalid,
    /// The caller has no right to the organization, whether or not it exists.
    #[error("You have no right to this organization.")]
    ForbiddenOrganization,
    /// The caller may not change some of the fields.
    #[error("The role {} may not change {}. Leave it out, or ask someone who may.", role.as_str(), paths(fields))]
    ForbiddenFields {
        /// The caller's role.
        role: Role,
        /// All fields of the update that it may not change.
        fields: Vec<Field>,
    },
    /// The caller may not store a new organization.
    #[error("Only administrators may create organizations.")]
    ForbiddenCreation,
    /// Another request was sent under the same key.
    #[error("Another request was sent with this idempotency key. Use a new key for a new request.")]
    IdempotencyKeyReused,
    /// The request breaks rules.
    #[error("The request is not valid: {}", first_description(_0))]
    Invalid(Vec<Violation>),
    /// No organization has this id.
    #[error("Organization {0} does not exist.")]
    NotFound(OrganizationId),
    /// An organization with this id exists.
    #[error("Organization {0} exists already.")]
    AlreadyExists(OrganizationId),
    /// The organization was changed since the caller read it.
    #[error(
        "The organization was changed since you read it; its etag is now {current}. Read it again and repeat the change on what you find."
    )]
    EtagMismatch {
        /// The etag that it has now.
        current: Etag,
    },
    /// The caller's etag cannot match, as it is weak.
    #[error(
        "A weak etag (W/) matches nothing that is to be changed; send the etag without W/, as an answer gives it. The organization's etag is {current}."
    )]
    EtagWeak {
        /// The etag that the organization has.
        current: Etag,
    },
    /// The caller's etag cannot match, as it is none.
    #[error(
        "What was sent is no etag; send one with its double quotes, as an answer gives it. The organization's etag is {current}."
    )]
    EtagMalformed {
        /// The etag that the organization has.
        current: Etag,
    },
    /// More work waits than can be done in time.
    #[error(
        "The service has more to do than it can do in time; your request was not carried out. Try again after the time that the answer says."
    )]
    Overloaded,
    /// The caller has its share of what the service has.
    #[error(
        "You have as much under way as one caller may have, so your request was not carried out. Wait until some of it is done, and try again after the time that the answer says."
    )]
    ShareExhausted,
    /// The database cannot be reached or is too slow.
    #[error(
        "The service cannot reach its database at the moment. Try again after the time that the answer says."
    )]
    Unavailable(#[source] Cause),
    /// The same while a change was under way, so that it may be stored.
    #[error(
        "The service cannot reach its database at the moment; whether a change was stored is not known. Try again with the same idempotency key, or read before you do."
    )]
    OutcomeUnknown(#[source] Cause),
    /// As many watch as may.
    #[error(
        "Too many watches are open: as many as one caller may have, or as many as there may be. Close one, or try again after the time that the answer says, or list the changes."
    )]
    TooManyWatches,
    /// The service stops.
    #[error("The service is stopping. Watch again, from the last version that you have seen.")]
    Stopping,
    /// The connection is old.
    #[error("The connection is old. Watch again, from the last version that you have seen.")]
    ConnectionAged,
    /// The credential of a watch proves another thing than when the watch began.
    #[error("Your credential was changed. Watch again, from the last version that you have seen.")]
    CredentialChanged,
    /// A fault of the service.
    #[error("The service has failed. Try again; if it happens again, report the request id.")]
    Internal(#[source] Cause),
}

impl Error {
    /// A request that breaks one rule.
    #[must_use]
    pub fn invalid(
        path: &'static str,
        reason: &'static str,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Invalid(vec![Violation::new(path, reason, description)])
    }

    /// The same of a change that was begun: its caller must know that it may be stored.
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
