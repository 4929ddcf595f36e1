//! From a request's headers to a principal.

use http::HeaderMap;

use super::header::presented_secret;
use crate::{
    domain::{Error, Principal, Result},
    store::Store,
};

/// Who the caller is, by the Authorization header and nothing else.
pub async fn authenticate(store: &Store, headers: &HeaderMap) -> Result<Principal> {
    let secret = presented_secret(headers)?;
    store.find_principal(&secret.digest()).await?.ok_or(Error::CredentialInvalid)
}
