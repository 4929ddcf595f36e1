//! What an operator can do with credentials.

use std::time::Duration;

use data_encoding::HEXLOWER;

use super::audit;
use crate::{
    auth::Secret,
    domain::{
        Credential, Error, OrganizationId, Result, Role, StoredCredential, TEXT_CODE_POINTS_MAX,
        reason,
    },
    store::{Store, now},
};

const ID_DIGITS_MIN: usize = 8;
const ID_DIGITS_MAX: usize = 64;

#[derive(Clone, Debug)]
pub struct Grant {
    pub role: Role,
    /// The organization that a user belongs to; none for the other roles.
    pub organization: Option<OrganizationId>,
    /// The holder's own name; none: one made of the role and the credential's id.
    pub subject: Option<String>,
    pub description: Option<String>,
    /// How long it is valid, rounded up to whole seconds; none: until it is revoked.
    pub expires_in: Option<Duration>,
}

pub async fn issue(store: &Store, secret: &Secret, grant: Grant) -> Result<Credential> {
    let Grant { role, organization, subject, description, expires_in } = grant;
    if (role == Role::User) != organization.is_some() {
        let description = "A user belongs to one organization, and the other roles to none.";
        return Err(Error::invalid("organization", reason::FIELD_REQUIRED, description));
    }
    for (path, text) in [("subject", &subject), ("description", &description)] {
        let is_line = |text: &String| {
            let length = text.chars().count();
            !text.trim().is_empty()
                && length <= TEXT_CODE_POINTS_MAX
                && !text.contains(char::is_control)
        };
        if !text.as_ref().is_none_or(is_line) {
            let description = format!(
                "A subject and a description are a line of 1 to {TEXT_CODE_POINTS_MAX} characters."
            );
            return Err(Error::invalid(path, reason::FIELD_OUT_OF_RANGE, description));
        }
    }
    let digest = secret.digest();
    let subject = subject.unwrap_or_else(|| format!("{}-{}", role.as_str(), digest.short_id()));
    let expires_at = expires_in.map(|time| {
        let end = now().checked_add(time.try_into().ok()?)?;
        // Rounded up, so that it holds at least as long as was asked.
        end.replace_nanosecond(0).ok()?.checked_add(time::Duration::SECOND)
    });
    if expires_at == Some(None) {
        let description = "The time to the end is too long; leave it out for no end.";
        return Err(Error::invalid("expires_in", reason::FIELD_OUT_OF_RANGE, description));
    }
    let credential = Credential {
        digest,
        kind: secret.kind(),
        subject,
        role,
        organization,
        expires_at: expires_at.flatten(),
        description,
    };
    store.issue_credential(&credential).await.map_err(Error::of_change)?;
    audit::credential_event("credential.issue", &credential);
    Ok(credential)
}

/// Ends the credential whose id begins with `id`. After the answer nothing is written by it, on any instance.
/// Revoking twice is answered as the first time: the first answer may not have come.
pub async fn revoke(store: &Store, id: &str) -> Result<StoredCredential> {
    let range = digest_range(id)?;
    let mut found = store.find_credentials(range).await?;
    match (found.pop(), found.is_empty()) {
        (Some(credential), true) => {
            let digest = credential.credential.digest;
            let revoked = store.revoke_credential(digest).await;
            if revoked.map_err(Error::of_change)? {
                audit::credential_event("credential.revoke", &credential.credential);
            }
            store.outlast_older_writes(digest).await.map_err(Error::of_change)?;
            Ok(credential)
        }
        (None, _) => {
            let description = format!("No credential has an id that begins with \"{id}\".");
            Err(Error::invalid("id", reason::CREDENTIAL_NOT_FOUND, description))
        }
        (Some(_), false) => {
            let description = format!(
                "Several credentials have an id that begins with \"{id}\": give more digits."
            );
            Err(Error::invalid("id", reason::CREDENTIAL_NOT_FOUND, description))
        }
    }
}

fn digest_range(id: &str) -> Result<std::ops::RangeInclusive<[u8; 32]>> {
    let bound = |padding: char| {
        let digits: String =
            id.chars().chain(std::iter::repeat(padding)).take(ID_DIGITS_MAX).collect();
        HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()
    };
    let length_fits = (ID_DIGITS_MIN..=ID_DIGITS_MAX).contains(&id.len());
    match (bound('0'), bound('f')) {
        (Some(first), Some(last)) if length_fits => Ok(first..=last),
        _ => {
            let description = "An id is 8 to 64 digits of 0 to 9 and a to f.";
            Err(Error::invalid("id", reason::FIELD_OUT_OF_RANGE, description))
        }
    }
}
