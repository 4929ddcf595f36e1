//! TLS to PostgreSQL: what the parameters of a URL say of it, and what to do where a server is not trusted.

use std::{error::Error, fs, io};

use sea_orm::{
    DbErr,
    sqlx::{
        ConnectOptions,
        postgres::{PgConnectOptions, PgSslMode},
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls;

use crate::certificate::Fault;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The file of CAs that the URL names, or PGSSLROOTCERT.
fn file_of_cas(options: &PgConnectOptions) -> Option<String> {
    let url = options.to_url_lossy();
    let (_, shown) = url.query_pairs().find(|(name, _)| name == "sslrootcert")?;
    Some(shown.strip_prefix("file: ").unwrap_or(&shown).to_owned())
}

/// Where a file of CAs is named, `require` means `verify-ca`, as with libpq: who names a CA expects no other to have
/// signed. sqlx would not read the file.
pub(super) fn as_with_libpq(options: PgConnectOptions) -> PgConnectOptions {
    let is_require = matches!(options.get_ssl_mode(), PgSslMode::Require);
    if is_require && file_of_cas(&options).is_some() {
        return options.ssl_mode(PgSslMode::VerifyCa);
    }
    options
}

/// The file by which a server is verified, if it is.
fn verifies_by(options: &PgConnectOptions) -> Option<String> {
    let verifies = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    file_of_cas(options).filter(|_| verifies)
}

/// Refuses a file of CAs that cannot be used. sqlx would say that there is no such file and not which, or that
/// nobody is trusted.
pub(super) fn check_cas(url: &SecretString) -> Result<(), DbErr> {
    let url = url.expose_secret();
    let postgres = if url.starts_with("sqlite:") { None } else { url.parse().ok() };
    let Some(file) = postgres.map(as_with_libpq).and_then(|postgres| verifies_by(&postgres)) else {
        return Ok(());
    };
    let why = match fs::read_to_string(&file) {
        // The variable may have the certificate itself.
        _ if file.contains(BEGIN) => return Ok(()),
        Ok(text) if text.contains(BEGIN) => return Ok(()),
        Ok(_) => "it has no certificate in PEM".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file".to_owned(),
        Err(error) => format!("it cannot be read: {}", error.kind()),
    };
    Err(DbErr::Custom(format!(
        "sslrootcert {file}: {why}; name the file with the certificate of the CA that signed the server's, or \
         leave sslrootcert out where a public CA did"
    )))
}

/// Why a server's certificate is not taken, and what to do.
pub(super) fn words(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(error) = error else {
        return Some(format!("TLS: {error}"));
    };
    Some(match Fault::of(error) {
        Fault::Untrusted => {
            "its certificate is not signed by a CA that is trusted; set sslrootcert in the URL to the file of \
             the CA that signed it"
                .to_owned()
        }
        Fault::OtherName => {
            "its certificate is for another host name; name the host in the URL as the certificate does, or \
             give the server one for this name"
                .to_owned()
        }
        Fault::Expired => "its certificate has expired; give the server a new one".to_owned(),
        Fault::NotYetValid => {
            "its certificate is not valid yet; compare the server's clock with this one's".to_owned()
        }
        Fault::OfCa => {
            "its certificate is a CA's own, which no client takes from a server; give the server one that the \
             CA has signed"
                .to_owned()
        }
        Fault::Other(said) => {
            format!("its certificate cannot be accepted ({said}); give the server another")
        }
    })
}

/// The same of an error that has no type of its own.
pub(super) fn words_of_refusal(error: &(dyn Error + Send + Sync)) -> String {
    if error.to_string() == "server does not support TLS" {
        return "it offers no TLS, which sslmode in the URL asks for; let the server offer it (ssl = on), or set \
                sslmode=disable where nobody can listen"
            .to_owned();
    }
    format!("TLS: {error}")
}
