//! TLS on the listeners: the certificate, which is read again when its files change.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use crate::config::TlsArgs;

/// How often the files are looked at. They are compared as a whole, because those who renew
/// certificates replace files, links or whole folders.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The certificate of the listeners.
#[derive(Debug)]
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
}

/// The certificate that the next connection gets.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[derive(PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// The certificate that the settings name; none where they name none.
    pub(super) fn load(args: &TlsArgs) -> Result<Option<Arc<Self>>> {
        let (Some(cert), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) else {
            return Ok(None);
        };
        let provider = Arc::new(ring::default_provider());
        let first = certified(&read(&cert, &key)?, &provider)?;
        let current = Arc::new(Current(RwLock::new(first.into())));
        Ok(Some(Arc::new(Self { cert, key, provider, current })))
    }

    /// Speaks TLS on connections, over which one of `protocols` is spoken.
    pub(super) fn acceptor(&self, protocols: &[&str]) -> Result<TlsAcceptor> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.current.clone());
        config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config).into())
    }

    /// Takes a new certificate for new connections whenever the files have one. What cannot be used
    /// is reported, and the last good one stays.
    pub(super) async fn keep_fresh(self: Arc<Self>) -> Result<()> {
        let mut last = read(&self.cert, &self.key).ok();
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Half of a renewal may be there only: the next look finds the rest.
            let Ok(files) = read(&self.cert, &self.key) else { continue };
            if last.as_ref() == Some(&files) {
                continue;
            }
            match certified(&files, &self.provider) {
                Ok(certified) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) =
                        certified.into();
                    tracing::info!("the certificate was replaced");
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "a new certificate cannot be used; the old one stays");
                }
            }
            last = Some(files);
        }
    }
}

fn read(cert: &PathBuf, key: &PathBuf) -> Result<Files> {
    let file =
        |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(Files { cert: file(cert)?, key: file(key)? })
}

fn certified(files: &Files, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&files.cert)
        .collect::<Result<_, _>>()
        .context("--tls-cert is not a PEM file")?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).context("--tls-key has no private key")?;
    CertifiedKey::from_der(chain, key, provider)
        .context("the certificate and the private key do not belong together")
}
