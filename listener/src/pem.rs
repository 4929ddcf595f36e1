//! Reads certificates and keys from the files that operators name, and says why a file cannot be used.
//!
//! Architecture invariant: no message has any part of a key, and no file can block a start or a stop.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};

/// Bytes of a file at most: a chain of certificates has some thousand.
const BYTES_MAX: u64 = 1024 * 1024;
/// The first byte of a certificate or key in DER, and of a PKCS#12 file.
const DER_SEQUENCE: u8 = 0x30;

type Section = (SectionKind, Vec<u8>);

/// The file's bytes. A FIFO, whose opening may wait for ever, is refused unopened.
pub fn read(flag: &str, path: &Path) -> Result<Vec<u8>> {
    let cannot_read = || format!("cannot read {flag} {}", path.display());
    let about = fs::metadata(path).with_context(cannot_read)?;
    ensure!(about.is_file(), "{flag} {} is not a regular file", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(cannot_read)?;
    let count = file.take(BYTES_MAX + 1).read_to_end(&mut bytes).with_context(cannot_read)?;
    let is_small = u64::try_from(count).is_ok_and(|count| count <= BYTES_MAX);
    ensure!(is_small, "{flag} {} is larger than 1 MiB, so it is no certificate", path.display());
    Ok(bytes)
}

/// The certificates in a file, of which there is one at least.
pub fn certificates(flag: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let sections = sections(flag, bytes)?;
    let has_key = is_encrypted(bytes) || sections.iter().any(|section| key(section).is_some());
    let chain = sections.into_iter().filter(|(kind, _)| *kind == SectionKind::Certificate);
    let chain: Vec<_> = chain.map(|(_, der)| CertificateDer::from(der)).collect();
    ensure!(!chain.is_empty() || !has_key, "{flag} has a private key and no certificate");
    ensure!(!chain.is_empty(), "{flag} has no certificate");
    Ok(chain)
}

/// The first private key in a file.
pub(crate) fn private_key(flag: &str, bytes: &[u8]) -> Result<PrivateKeyDer<'static>> {
    if is_encrypted(bytes) {
        bail!(
            "the private key of {flag} is encrypted, and there is no passphrase to be given: \
             decrypt it by `openssl pkey -in FILE -out NEW_FILE`"
        );
    }
    let sections = sections(flag, bytes)?;
    let certificate = sections.iter().any(|(kind, _)| *kind == SectionKind::Certificate);
    sections.iter().find_map(key).ok_or_else(|| {
        let instead = if certificate { ": it has a certificate" } else { "" };
        anyhow!("{flag} has no private key{instead}")
    })
}

fn key((kind, der): &Section) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem(*kind, der.clone())
}

fn is_encrypted(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"].iter().any(|mark| text.contains(mark))
}

fn sections(flag: &str, bytes: &[u8]) -> Result<Vec<Section>> {
    ensure!(!bytes.trim_ascii().is_empty(), "{flag} is empty");
    ensure!(
        bytes.first() != Some(&DER_SEQUENCE),
        "{flag} is binary (DER or PKCS#12), and must be PEM: `openssl x509` and `openssl pkey` \
         print it so with `-inform der -in FILE`"
    );
    // The library's own error is dropped, as it repeats lines of the file.
    let sections: Result<Vec<Section>, _> = PemObject::pem_slice_iter(bytes).collect();
    sections.map_err(|_| anyhow!("{flag} is not a whole PEM file"))
}
