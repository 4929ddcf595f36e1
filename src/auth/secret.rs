//! The secret of a credential: its two forms, how one is made, and its digest.

use data_encoding::HEXLOWER;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::{Uuid, Variant, Version};

use crate::domain::{CredentialDigest, CredentialKind};

/// What API keys begin with, for secret scanners.
const API_KEY_PREFIX: &str = "orgd_";
const API_KEY_RANDOM_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;

/// A secret of either form. Never printed by accident; its text is wiped when it is dropped.
#[derive(Debug)]
pub struct Secret {
    kind: CredentialKind,
    text: SecretString,
}

impl Secret {
    /// A lower-case UUID version 4, or an API key with its checksum; else none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let kind = if is_bearer_token(text) {
            CredentialKind::Bearer
        } else if is_api_key(text) {
            CredentialKind::ApiKey
        } else {
            return None;
        };
        Some(Self { kind, text: text.into() })
    }

    /// Whether a text has the form of an API key, but not its checksum.
    #[must_use]
    pub fn is_mistyped_key(text: &str) -> bool {
        api_key_parts(text).is_some_and(|(random, sum)| sum != checksum(&random))
    }

    pub fn generate(kind: CredentialKind) -> Result<Self, getrandom::Error> {
        let text = match kind {
            CredentialKind::Bearer => {
                let mut random = [0; 16];
                getrandom::fill(&mut random)?;
                uuid::Builder::from_random_bytes(random).into_uuid().to_string()
            }
            CredentialKind::ApiKey => {
                let mut random = [0; API_KEY_RANDOM_BYTES];
                getrandom::fill(&mut random)?;
                let checked = [&random[..], &checksum(&random)].concat();
                format!("{API_KEY_PREFIX}{}", HEXLOWER.encode(&checked))
            }
        };
        Ok(Self { kind, text: text.into() })
    }

    #[must_use]
    pub fn kind(&self) -> CredentialKind {
        self.kind
    }

    /// The secret's text, for the one time that it is shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    #[must_use]
    pub fn digest(&self) -> CredentialDigest {
        CredentialDigest(Sha256::digest(self.expose()).into())
    }
}

fn is_bearer_token(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|uuid| {
        uuid.get_version() == Some(Version::Random)
            && uuid.get_variant() == Variant::RFC4122
            // `try_parse` takes upper case, braces and no hyphens too; a token has one spelling.
            && uuid.to_string() == text
    })
}

fn is_api_key(text: &str) -> bool {
    api_key_parts(text).is_some_and(|(random, sum)| sum == checksum(&random))
}

fn api_key_parts(text: &str) -> Option<([u8; API_KEY_RANDOM_BYTES], [u8; CHECKSUM_BYTES])> {
    let decoded = HEXLOWER.decode(text.strip_prefix(API_KEY_PREFIX)?.as_bytes()).ok()?;
    let (random, sum) = decoded.split_last_chunk()?;
    Some((random.try_into().ok()?, *sum))
}

/// Not against forgery: it tells a mistyped or cut key, and a scanner's false find, from a real one.
fn checksum(random: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32fast::hash(random).to_be_bytes()
}
