//! Audit events in the log: who changed what, and who was refused. They name fields, never values. The
//! lasting record is the change log in the database.

use crate::domain::{
    Call, Credential, CredentialDigest, Error, Field, Organization, OrganizationId, Principal,
    Result, reason,
};

/// Logs that an organization was changed or created, or already was as the change would make it.
pub(super) fn organization_event(
    action: &'static str,
    Call { principal, request_id, .. }: &Call,
    fields: &str,
    organization: &Organization,
) {
    tracing::info!(
        target: "orgd::audit",
        action,
        subject = &*principal.subject,
        credential = credential(principal),
        role = principal.role.as_str(),
        organization = organization.id.get(),
        etag = %organization.etag,
        fields,
        request_id,
        "done"
    );
}

/// Passes on the decision of a check of rights, and logs a refusal.
pub(super) fn checked<T>(
    principal: &Principal,
    organization: Option<OrganizationId>,
    decision: Result<T>,
) -> Result<T> {
    if let Err(error) = &decision
        && let Some(reason) = reason_of_refusal(error)
    {
        tracing::info!(
            target: "orgd::audit",
            subject = &*principal.subject,
            credential = credential(principal),
            role = principal.role.as_str(),
            organization = organization.map(OrganizationId::get),
            reason,
            detail = %error,
            "refused"
        );
    }
    decision
}

fn reason_of_refusal(error: &Error) -> Option<&'static str> {
    match error {
        Error::ForbiddenOrganization => Some(reason::ORGANIZATION_FORBIDDEN),
        Error::ForbiddenCreation => Some(reason::CREATION_FORBIDDEN),
        Error::ForbiddenFields { .. } => Some(reason::FIELD_FORBIDDEN),
        _ => None,
    }
}

/// The credential's id as `orgd credential list` shows it; none of an operator's own.
fn credential(principal: &Principal) -> Option<String> {
    principal.credential.as_ref().map(CredentialDigest::short_id)
}

pub(super) fn credential_event(action: &'static str, credential: &Credential) {
    tracing::info!(
        target: "orgd::audit",
        action,
        credential = credential.digest.short_id(),
        holder = credential.subject,
        role = credential.role.as_str(),
        organization = credential.organization.map(OrganizationId::get),
        "done"
    );
}

pub(super) fn names(fields: impl Iterator<Item = Field>) -> String {
    fields.map(Field::path).collect::<Vec<_>>().join(",")
}
