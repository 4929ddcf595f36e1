//! Why a command or a gateway does not reach its service: the address, the cause, and what to set.

use std::{fs, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ED25519};
use tempfile::TempDir;

use crate::harness::{ADMINISTRATOR, ANY_PORT, Command, Database, Service, orgd_with};

/// A certificate for a host name that has signed itself, and the paths of certificate and key.
fn certificate(folder: &TempDir, host: &str) -> [String; 2] {
    certificate_with(folder, host, IsCa::NoCa)
}

fn certificate_with(folder: &TempDir, host: &str, is_ca: IsCa) -> [String; 2] {
    certificate_of(folder, host, is_ca, &KeyPair::generate().unwrap())
}

fn certificate_of(folder: &TempDir, host: &str, is_ca: IsCa, signing_key: &KeyPair) -> [String; 2] {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.is_ca = is_ca;
    let cert = params.self_signed(signing_key).unwrap();
    let folder = tempfile::tempdir_in(folder).unwrap().keep();
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [file("cert.pem", cert.pem()), file("key.pem", signing_key.serialize_pem())]
}

async fn over_tls([cert, key]: &[String; 2]) -> Service {
    let database = Database::sqlite();
    database.seed().await;
    let settings = [("ORGD_TLS_CERT", cert.as_str()), ("ORGD_TLS_KEY", key.as_str())];
    Service::start_with(Arc::new(database), &settings).await
}

fn list(variables: &[(&str, &str)]) -> Command {
    let variables = [&[("ORGD_TOKEN", ADMINISTRATOR)], variables].concat();
    orgd_with(&variables, "organization list")
}

#[tokio::test]
async fn each_failure_to_reach_a_service_names_its_address_and_its_cause() {
    let folder = TempDir::new().unwrap();
    let [own, other] = ["localhost", "localhost"].map(|host| certificate(&folder, host));
    let other_kind = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let other_kind = certificate_of(&folder, "localhost", IsCa::NoCa, &other_kind);
    let (plain, tls) = (Service::over_sqlite(&[]).await, over_tls(&own).await);
    // As `openssl req -x509` makes one.
    let of_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let of_ca = certificate_with(&folder, "localhost", of_ca);
    let tls_of_ca = over_tls(&of_ca).await;
    let of_ca_port = tls_of_ca.grpc_addr().port();
    let (grpc, http, ops) = (plain.grpc_addr(), plain.http_addr(), plain.ops_addr());
    let (tls_addr, port) = (tls.grpc_addr(), tls.grpc_addr().port());
    let stranger = "what answers there is no gRPC listener of orgd; set --server (ORGD_SERVER)";
    let no_answer = "it ended the connection without an answer; if it speaks TLS, set --server \
                     (ORGD_SERVER) to";
    let no_tls = "it does not speak TLS as a service does; for plain text set --server \
                  (ORGD_SERVER) to";
    let no_ca = "its certificate is not signed by a CA that is trusted; set --server-ca \
                 (ORGD_SERVER_CA)";
    let no_service = "connection refused; start the service there, or set --server (ORGD_SERVER)";
    // TLS is right or wrong, whenever it is tried.
    for (address, ca, code, sentence) in [
        ("http://127.0.0.1:1".to_owned(), "", 6, no_service.to_owned()),
        (
            "http://nowhere.invalid:50051".to_owned(),
            "",
            6,
            "no address is known for this host name; set --server (ORGD_SERVER)".to_owned(),
        ),
        (format!("http://{http}"), "", 6, stranger.to_owned()),
        (format!("http://{ops}"), "", 6, stranger.to_owned()),
        (format!("http://{tls_addr}"), "", 6, format!("{no_answer} https://{tls_addr}")),
        (format!("https://{grpc}"), &own[0], 1, format!("{no_tls} http://{grpc}")),
        (format!("https://localhost:{port}"), &other[0], 1, no_ca.to_owned()),
        (format!("https://localhost:{port}"), &other_kind[0], 1, no_ca.to_owned()),
        (
            format!("https://{tls_addr}"),
            &own[0],
            1,
            "its certificate is for another host name; set --server (ORGD_SERVER)".to_owned(),
        ),
        (
            format!("https://localhost:{of_ca_port}"),
            &of_ca[0],
            1,
            "its certificate is a CA's own, which no client takes from a service; give the service \
             one that the CA has signed, and set --server-ca (ORGD_SERVER_CA) to the CA's"
                .to_owned(),
        ),
    ] {
        let refused = list(&[("ORGD_SERVER", &address), ("ORGD_SERVER_CA", ca)]);
        assert_eq!((refused.code, refused.stdout.as_str()), (code, ""), "{}", refused.stderr);
        assert_eq!(refused.stderr, format!("error: {address}: {sentence}\n"));
    }
}

/// The environment of the system's own TLS library says where these are, as elsewhere.
#[tokio::test]
async fn the_systems_ca_certificates_are_trusted_where_none_are_named() {
    let folder = TempDir::new().unwrap();
    let [own, other] = ["localhost", "localhost"].map(|host| certificate(&folder, host));
    let tls = over_tls(&own).await;
    let address = format!("https://localhost:{}", tls.grpc_addr().port());
    let server = ("ORGD_SERVER", address.as_str());
    let no_more = ("SSL_CERT_DIR", "");
    let listed = list(&[server, no_more, ("SSL_CERT_FILE", &own[0])]);
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    let refused = list(&[server, no_more, ("SSL_CERT_FILE", &other[0])]);
    assert!(refused.stderr.contains("not signed by a CA that is trusted"), "{}", refused.stderr);
    let none = folder.path().join("none.pem");
    fs::write(&none, "").unwrap();
    let none = ("SSL_CERT_FILE", none.to_str().unwrap());
    let refused = list(&[server, no_more, none]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("this system has none: set --server-ca"), "{}", refused.stderr);

    let words =
        ["gateway", "--upstream", &address, "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT];
    let gateway = Service::spawn(&words, &[no_more, ("SSL_CERT_FILE", &own[0])]);
    gateway.until_ready().await;
}

#[tokio::test]
async fn a_gateway_that_is_not_ready_says_which_service_does_not_answer() {
    let service = Service::over_sqlite(&[]).await;
    let address = format!("http://{}", service.grpc_addr());
    let words = ["gateway", "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT];
    let gateway = Service::spawn(&words, &[("ORGD_UPSTREAM", &address)]);
    gateway.until_ready().await;
    drop(service);
    let told = "connection refused; start the service there, or set --upstream (ORGD_UPSTREAM)";
    gateway.until_logged(&format!("{address}: {told}")).await;
    assert_eq!(gateway.log().matches(told).count(), 1, "{}", gateway.log());

    // The same where it never was ready.
    let gateway = Service::spawn(&words, &[("ORGD_UPSTREAM", "http://127.0.0.1:1")]);
    gateway.until_logged(&format!("http://127.0.0.1:1: {told}")).await;
    assert_eq!(gateway.get_ops("/readyz").await.text(), "not ready\n");
}
