//! A PostgreSQL that offers TLS, with a certificate for `localhost` by a CA of its own. It lets in [`OVER_TLS`] over
//! TLS alone, and [`IN_PLAIN_TEXT`] without it alone.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sea_orm::ConnectionTrait;
use tempfile::TempDir;

use super::postgres::{Cluster, owner};

/// The superuser.
pub const OVER_TLS: &str = "postgres";
pub const IN_PLAIN_TEXT: &str = "plain";

const RULES: &str = "hostssl all postgres all trust\nhostnossl all plain all trust\n";

pub struct TlsCluster {
    cluster: Cluster,
    folder: TempDir,
}

impl TlsCluster {
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &authority.issuer).unwrap();
        file("ca.pem", &authority.pem, 0o644);
        file("stranger.pem", &self::authority().pem, 0o644);
        file("empty.pem", "", 0o644);
        let cert = file("server.pem", &cert.pem(), 0o644);
        let key = file("server.key", &key.serialize_pem(), 0o600);
        // A key that others may read is refused.
        owner(&key);
        let rules = file("hba", RULES, 0o644);
        let setting = |name: &str, path: &PathBuf| format!("{name}={}", path.display());
        let cluster = Cluster::start(&[
            "ssl=on",
            &setting("ssl_cert_file", &cert),
            &setting("ssl_key_file", &key),
            &setting("hba_file", &rules),
        ]);
        let started = Self { cluster, folder };
        let url = started.url(OVER_TLS, "localhost", "sslmode=require");
        let observer = sea_orm::Database::connect(url).await.unwrap();
        let role = format!("CREATE ROLE {IN_PLAIN_TEXT} SUPERUSER LOGIN");
        observer.execute_unprepared(&role).await.unwrap();
        observer.close().await.unwrap();
        started
    }

    /// The URL of a role by a host's name. `CA` is the file of the server's CA, `STRANGER` of another, `EMPTY` of
    /// none, and `NONE` no file.
    pub fn url(&self, role: &str, host: &str, query: &str) -> String {
        let files = [("CA", "ca"), ("STRANGER", "stranger"), ("EMPTY", "empty"), ("NONE", "none")];
        let query = files.iter().fold(query.to_owned(), |query, (word, name)| {
            let path = self.folder.path().join(format!("{name}.pem"));
            query.replace(&format!("={word}"), &format!("={}", path.display()))
        });
        let port = self.cluster.url.rsplit(':').next().unwrap();
        format!("postgres://{role}@{host}:{port}/postgres?{query}")
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), pem }
}
