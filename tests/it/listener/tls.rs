//! TLS on the listeners, and its certificate, which is replaced while the service runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use orgd::proto::v1::{
    GetOrganizationRequest, organization_service_client::OrganizationServiceClient,
};
use rcgen::CertifiedKey;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::harness::{
    Database, OWN, PATIENCE, SERVE, Service, USER, assert_examples, authorized,
    on_both_databases_with,
};

/// A certificate that has signed itself, in files.
struct Signed {
    certificate: CertificateDer<'static>,
    pem: String,
    key_pem: String,
}

impl Signed {
    fn new() -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        Self::of(rcgen::generate_simple_self_signed(names).unwrap())
    }

    /// One that ends with a year.
    fn until_end_of(year: i32) -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let signing_key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        Self::of(CertifiedKey { cert, signing_key })
    }

    fn of(CertifiedKey { cert, signing_key }: CertifiedKey<rcgen::KeyPair>) -> Self {
        Self {
            certificate: cert.der().clone(),
            pem: cert.pem(),
            key_pem: signing_key.serialize_pem(),
        }
    }

    fn write(&self, folder: &Path) -> [PathBuf; 2] {
        let paths = ["cert.pem", "key.pem"].map(|name| folder.join(name));
        fs::write(&paths[0], &self.pem).unwrap();
        fs::write(&paths[1], &self.key_pem).unwrap();
        paths
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config).into()
    }

    /// The answer to a documented request, or why there is no connection.
    async fn put(&self, service: &Service) -> std::io::Result<String> {
        let stream = TcpStream::connect(service.http_addr()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = self.connector().connect(name, stream).await?;
        let body = r#"{"name": "Over TLS"}"#;
        let request = format!(
            "PUT /v1/organizations/{OWN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {USER}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn client(
        &self,
        service: &Service,
    ) -> OrganizationServiceClient<tonic::transport::Channel> {
        let url = format!("https://localhost:{}", service.grpc_addr().port());
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.pem));
        let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
        OrganizationServiceClient::new(endpoint.connect().await.unwrap())
    }
}

async fn until(what: &str, is_there: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_there().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn both_apis_speak_tls_and_nothing_else() {
    let (folder, signed) = (TempDir::new().unwrap(), Signed::new());
    let [cert, key] = signed.write(folder.path());
    let settings =
        [("ORGD_TLS_CERT", cert.to_str().unwrap()), ("ORGD_TLS_KEY", key.to_str().unwrap())];
    on_both_databases_with(&settings, async |service| {
        let answer = signed.put(&service).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("{\"id\": 90}"), "{answer}");
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        let got = signed.client(&service).await.get(authorized(USER, message)).await.unwrap();
        assert_eq!(got.get_ref().name.as_deref(), Some("Over TLS"));

        for addr in [service.http_addr(), service.grpc_addr()] {
            let mut plain = TcpStream::connect(addr).await.unwrap();
            plain.write_all(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("an end");
            assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
        }
        // One that does not begin its handshake is closed as any slow client is.
        let mut silent = TcpStream::connect(service.http_addr()).await.unwrap();
        let ended = timeout(PATIENCE, silent.read(&mut [0; 16])).await.expect("it is closed");
        assert!(matches!(ended, Ok(0) | Err(_)));
    })
    .await;
}

#[tokio::test]
async fn a_gateway_connects_over_tls_to_its_service_and_to_no_impostor() {
    let (folder, signed) = (TempDir::new().unwrap(), Signed::new());
    let [cert, key] = signed.write(folder.path());
    let ca = cert.to_str().unwrap();
    let settings = [("ORGD_TLS_CERT", ca), ("ORGD_TLS_KEY", key.to_str().unwrap())];
    let service = Service::over_sqlite(&settings).await;
    let gateway = Service::start_gateway_with(&service, "https", &[("ORGD_UPSTREAM_CA", ca)]).await;
    assert_examples(&gateway).await;

    let others = TempDir::new().unwrap();
    let [other, _] = Signed::new().write(others.path());
    let upstream = format!("https://{}", service.grpc_addr());
    let gateway = Service::spawn(
        &[
            "gateway",
            "--upstream",
            &upstream,
            "--http-addr",
            "127.0.0.1:0",
            "--ops-addr",
            "127.0.0.1:0",
        ],
        &[("ORGD_UPSTREAM_CA", other.to_str().unwrap())],
    );
    let answer = gateway.put(OWN, USER, "{}").send().await;
    assert_eq!((answer.status(), answer.reason().as_str()), (503, "SERVICE_UNREACHABLE"));
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let (folder, first, second) = (TempDir::new().unwrap(), Signed::new(), Signed::new());
    let [cert, key] = first.write(folder.path());
    let settings =
        [("ORGD_TLS_CERT", cert.to_str().unwrap()), ("ORGD_TLS_KEY", key.to_str().unwrap())];
    let service = Service::over_sqlite(&settings).await;
    let mut kept = first.client(&service).await;

    // What is no certificate, and then one whose key is another's.
    fs::write(&cert, "no certificate").unwrap();
    service.until_logged("a new certificate cannot be used").await;
    fs::write(&cert, &second.pem).unwrap();
    service.until_logged("do not belong together").await;
    assert!(first.put(&service).await.is_ok(), "the old one stays");

    second.write(folder.path());
    until("the new certificate is taken", async || second.put(&service).await.is_ok()).await;
    assert!(first.put(&service).await.is_err(), "nobody gets the old one any more");
    // Connections go on with the certificate that they began with.
    let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
    kept.get(authorized(USER, message)).await.unwrap();
}

#[tokio::test]
async fn a_metric_says_when_the_certificate_ends() {
    let folder = TempDir::new().unwrap();
    let [cert, key] = Signed::until_end_of(2031).write(folder.path());
    let settings =
        [("ORGD_TLS_CERT", cert.to_str().unwrap()), ("ORGD_TLS_KEY", key.to_str().unwrap())];
    let service = Service::over_sqlite(&settings).await;
    let tells = async |end: u64| {
        let metrics = service.get_ops("/metrics").await;
        ["grpc", "http"].into_iter().all(|listener| {
            let name = "orgd_tls_certificate_expiry_timestamp_seconds";
            let line = format!("{name}{{listener=\"{listener}\"}} {end}");
            metrics.text().lines().any(|told| told == line)
        })
    };
    assert!(tells(1_956_441_600).await, "2031-12-31");
    Signed::until_end_of(2032).write(folder.path());
    until("the new end is told", async || tells(1_988_064_000).await).await;
}

#[test]
fn unusable_certificates_and_keys_are_reported_with_the_reason() {
    let (folder, signed) = (TempDir::new().unwrap(), Signed::new());
    let [cert, key] = signed.write(folder.path());
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let empty = file("empty", b"\n");
    let other = file("other.pem", Signed::new().key_pem.as_bytes());
    let der = file("cert.der", &signed.certificate);
    let text = file("text", b"no certificate");
    let half = file("half.pem", signed.pem.split_at(signed.pem.len() / 2).0.as_bytes());
    let half_key = file("half-key.pem", signed.key_pem.split_at(100).0.as_bytes());
    let large = file("large.pem", &vec![b' '; 2 * 1024 * 1024]);
    let broken = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n";
    let broken = file("broken.pem", broken.as_bytes());
    let broken_key = "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n";
    let broken_key = file("broken-key.pem", broken_key.as_bytes());
    let [kind, old_kind] = ["ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY"].map(|kind| {
        let head = if kind.starts_with('R') { "Proc-Type: 4,ENCRYPTED\n\n" } else { "" };
        let pem = format!("-----BEGIN {kind}-----\n{head}MAAA\n-----END {kind}-----\n");
        file(kind, pem.as_bytes())
    });
    let both = file("both.pem", format!("{}{}", signed.pem, signed.key_pem).as_bytes());
    let unreadable = file("unreadable.pem", signed.pem.as_bytes());
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    let fifo = make_fifo(&folder.path().join("fifo"));
    let (none, dir) = (folder.path().join("none.pem"), folder.path().to_owned());
    let null = PathBuf::from("/dev/zero");
    let database = Database::sqlite();
    let serve = |cert: &Path, key: &Path| {
        let variables = [
            ("ORGD_DATABASE_URL", database.url()),
            ("ORGD_TLS_CERT", cert.to_str().unwrap()),
            ("ORGD_TLS_KEY", key.to_str().unwrap()),
        ];
        let words = "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0";
        crate::harness::orgd_with(&variables, words)
    };
    for (cert, key, sentence) in [
        (&cert, &other, "do not belong together"),
        (&cert, &empty, "--tls-key is empty"),
        (&cert, &cert, "--tls-key has no private key: it has a certificate"),
        (&cert, &text, "--tls-key has no private key"),
        (&cert, &der, "--tls-key is binary"),
        (&cert, &half_key, "--tls-key is not a whole PEM file"),
        (&cert, &broken_key, "the private key of --tls-key is broken"),
        (&cert, &kind, "the private key of --tls-key is encrypted"),
        (&cert, &old_kind, "the private key of --tls-key is encrypted"),
        (&cert, &none, "cannot read --tls-key"),
        (&cert, &dir, "is not a regular file"),
        (&cert, &fifo, "is not a regular file"),
        (&empty, &key, "--tls-cert is empty"),
        (&key, &key, "--tls-cert has a private key and no certificate"),
        (&kind, &key, "--tls-cert has a private key and no certificate"),
        (&text, &key, "--tls-cert has no certificate"),
        (&der, &key, "--tls-cert is binary"),
        (&half, &key, "--tls-cert is not a whole PEM file"),
        (&broken, &key, "the certificate of --tls-cert is broken"),
        (&large, &key, "is larger than 1 MiB"),
        (&none, &key, "cannot read --tls-cert"),
        (&dir, &key, "is not a regular file"),
        (&fifo, &key, "is not a regular file"),
        (&null, &key, "is not a regular file"),
    ] {
        let refused = serve(cert, key);
        assert_eq!(refused.code, 1, "{sentence}");
        assert!(refused.stderr.contains(sentence), "{sentence}: {}", refused.stderr);
        for secret in signed.key_pem.lines().filter(|line| !line.contains("-----")) {
            assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
        }
    }
    // The superuser reads everything.
    if fs::read(&unreadable).is_err() {
        let refused = serve(&unreadable, &key);
        assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    }
    // One file may have both.
    let variables = [
        ("ORGD_DATABASE_URL", database.url()),
        ("ORGD_TLS_CERT", both.to_str().unwrap()),
        ("ORGD_TLS_KEY", both.to_str().unwrap()),
    ];
    Service::spawn(&SERVE, &variables);
}

/// Clients of a service name CA certificates, too.
#[test]
fn unusable_ca_certificates_are_reported_with_the_reason() {
    let (folder, signed) = (TempDir::new().unwrap(), Signed::new());
    let [cert, key] = signed.write(folder.path());
    fs::write(&cert, &signed.certificate).unwrap();
    let [empty, fifo, none] = ["empty", "fifo", "none"].map(|name| folder.path().join(name));
    fs::write(&empty, "").unwrap();
    make_fifo(&fifo);
    for (ca, sentence) in [
        (&empty, "is empty"),
        (&key, "has a private key and no certificate"),
        (&cert, "is binary"),
        (&none, "cannot read"),
        (&fifo, "is not a regular file"),
    ] {
        for words in [
            "gateway --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0 --upstream https://127.0.0.1:1 \
             --upstream-ca",
            "organization list --server https://127.0.0.1:1 --server-ca",
        ] {
            let words = format!("{words} {}", ca.display());
            let refused = crate::harness::orgd_with(&[("ORGD_TOKEN", USER)], &words);
            assert_eq!(refused.code, 1, "{words}");
            assert!(refused.stderr.contains(sentence), "{words}: {}", refused.stderr);
        }
    }
}

fn make_fifo(path: &Path) -> PathBuf {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    path.to_owned()
}

#[tokio::test]
async fn a_certificate_file_that_blocks_does_not_delay_the_stop() {
    let (folder, signed) = (TempDir::new().unwrap(), Signed::new());
    let paths = signed.write(folder.path());
    let [cert, key] = paths.each_ref().map(|path| path.to_str().unwrap());
    for path in &paths {
        signed.write(folder.path());
        let database = Database::sqlite();
        database.seed().await;
        let settings = [("ORGD_TLS_CERT", cert), ("ORGD_TLS_KEY", key)];
        let service = Service::start_with(Arc::new(database), &settings).await;
        fs::remove_file(path).unwrap();
        make_fifo(path);
        service.until_logged("is not a regular file").await;
        assert!(signed.put(&service).await.is_ok(), "the old one stays");
        service.signal("TERM");
        assert!(service.ended().await.success());
        fs::remove_file(path).unwrap();
    }
}
