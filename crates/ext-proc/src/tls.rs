//! TLS for the listener: given files, or a certificate made at start.
//!
//! Gateways that speak TLS to an endpoint picker do not verify it (the reference picker's own certificate has no name to verify), so a
//! self-signed one keeps others from listening and is enough to be spoken to.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A new key and a certificate for it, for the life of this process.
pub fn self_signed() -> Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(vec!["thalamus-picker".to_owned(), "localhost".to_owned()])
        .context("making a self-signed certificate")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    config(vec![made.cert.der().clone()], key)
}

/// A certificate chain and its key in PEM, as a Kubernetes TLS Secret holds them.
pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading the certificate {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading the key {}", key.display()))?;
    config(chain, key)
}

fn config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("using the certificate and key")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_files_are_used_and_bad_ones_are_named() {
        let made = rcgen::generate_simple_self_signed(vec!["picker.example.com".to_owned()]).unwrap();
        let folder = std::env::temp_dir().join(format!("thalamus-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        assert_eq!(from_files(&certificate, &key).unwrap().alpn_protocols, [b"h2"]);
        // The key of another certificate, and no key at all.
        let other = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(format!("{:#}", from_files(&certificate, &key).unwrap_err()).contains("using the certificate and key"));
        std::fs::write(&key, "nothing").unwrap();
        assert!(format!("{:#}", from_files(&certificate, &key).unwrap_err()).contains("reading the key"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
