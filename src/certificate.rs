//! What is wrong with the certificate of whoever answers, by the errors of rustls. What to do about it is for each
//! caller to say.

use tokio_rustls::rustls::CertificateError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No trusted CA has signed it.
    Untrusted,
    OtherName,
    Expired,
    NotYetValid,
    /// It is a CA's own, as `openssl req -x509` makes one.
    OfCa,
    /// What rustls says of it.
    Other(String),
}

impl Fault {
    pub(crate) fn of(error: &CertificateError) -> Self {
        match error {
            // A trusted CA of the same name has another key, or one of another kind.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::Untrusted
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            // The error's type is of a crate that rustls does not hand on.
            CertificateError::Other(error) if error.to_string() == "CaUsedAsEndEntity" => {
                Self::OfCa
            }
            CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
                Self::Other("its signature is of a kind that is not known here".to_owned())
            }
            error => Self::Other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_rustls::rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_ca_of_the_same_name_is_another_whatever_its_key_is() {
        let algorithms = || (vec![6, 8], vec![6, 9]);
        let (signature_algorithm_id, public_key_algorithm_id) = algorithms();
        for error in [
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id,
                public_key_algorithm_id,
            },
        ] {
            assert_eq!(Fault::of(&error), Fault::Untrusted, "{error:?}");
        }
    }

    #[test]
    fn no_fault_is_told_in_the_form_of_a_debugger() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1));
        let early = CertificateError::NotValidYetContext { time, not_before: time };
        assert_eq!(Fault::of(&early), Fault::NotYetValid);
        let unknown = CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: vec![6, 8],
            supported_algorithms: Vec::new(),
        };
        for error in [unknown, CertificateError::Revoked] {
            let Fault::Other(said) = Fault::of(&error) else { panic!("{error:?}") };
            assert!(!said.contains(['{', '[']), "{said}");
        }
    }
}
