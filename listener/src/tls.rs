//! TLS on the listeners: the certificate, which is read again when its files change.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        Error, InconsistentKeys, ServerConfig,
        crypto::{CryptoProvider, ring},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use x509_parser::parse_x509_certificate;

use crate::{metrics, pem};

/// How often the files are looked at. They are compared as a whole, because those who renew
/// certificates replace files, links or whole folders.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The setting that names a file, for messages, and the file's path.
type Named = (&'static str, PathBuf);

/// The certificate of the listeners.
pub struct Tls {
    paths: Paths,
    first: Files,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    /// The listeners that have it, for their metrics.
    listeners: Mutex<Vec<&'static str>>,
}

/// The certificate that the next connection gets.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[derive(Clone)]
struct Paths {
    cert: Named,
    key: Named,
}

#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// The certificate and its key in PEM files, each with the setting that names it.
    pub async fn load(cert: Named, key: Named) -> Result<Arc<Self>> {
        let provider = Arc::new(ring::default_provider());
        let paths = Paths { cert, key };
        let first = read(&paths).await?;
        let current = certified(&paths, &first, &provider)?;
        let current = Arc::new(Current(RwLock::new(current.into())));
        Ok(Arc::new(Self { paths, first, provider, current, listeners: Mutex::default() }))
    }

    /// The acceptor of a listener that offers `protocols` to clients (ALPN).
    pub fn acceptor(&self, listener: &'static str, protocols: &[&str]) -> Result<TlsAcceptor> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        self.tell_expiry();
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config).into())
    }

    /// Sets the metric of when the certificate ends.
    fn tell_expiry(&self) {
        let current = self.current.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(expiry) = expiry(&current) else { return };
        for listener in &*self.listeners.lock().unwrap_or_else(PoisonError::into_inner) {
            metrics::certificate_expiry(listener, expiry);
        }
    }

    /// Takes a new certificate for new connections whenever the files have one. What cannot be used
    /// is reported, and the last good one stays.
    pub async fn keep_fresh(self: Arc<Self>) -> Result<()> {
        let look = async || {
            let files = read(&self.paths).await;
            files.map_err(|error| format!("{error:#}"))
        };
        let mut last = Ok(self.first.clone());
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let files = look().await;
            if last == files {
                continue;
            }
            let certified = match &files {
                Ok(files) => certified(&self.paths, files, &self.provider)
                    .map_err(|error| format!("{error:#}")),
                Err(error) => Err(error.clone()),
            };
            match certified {
                Ok(certified) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) =
                        certified.into();
                    self.tell_expiry();
                    tracing::info!("the certificate was replaced");
                }
                // Perhaps only one of the files was replaced yet. The next look finds the other.
                Err(error) => {
                    tracing::warn!(error, "a new certificate cannot be used; the old one stays");
                }
            }
            last = files;
        }
    }
}

/// When a certificate ends, since 1970. None where it cannot be told.
fn expiry(certified: &CertifiedKey) -> Option<Duration> {
    let (_, certificate) = parse_x509_certificate(certified.end_entity_cert().ok()?).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// Reads both files on a thread for blocking work, for which a stop does not wait.
async fn read(paths: &Paths) -> Result<Files> {
    let Paths { cert, key } = paths.clone();
    let read = |(flag, path): Named| pem::read(flag, &path);
    spawn_blocking(move || Ok(Files { cert: read(cert)?, key: read(key)? })).await?
}

fn certified(paths: &Paths, files: &Files, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let Paths { cert: (cert, _), key: (key_name, _) } = paths;
    let chain = pem::certificates(cert, &files.cert)?;
    let key = pem::private_key(key_name, &files.key)?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        anyhow!(
            "the private key of {key_name} is broken, or of a kind that cannot be used; RSA from 2048 bits, \
             ECDSA over P-256 or P-384, and Ed25519 can"
        )
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Not every kind of key can be compared.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => {
            bail!(
                "the certificate of {cert} and the private key of {key_name} do not belong together"
            )
        }
        Err(_) => bail!("the certificate of {cert} is broken"),
    }
}
