//! TLS for a listener: files that may be replaced while it runs, or a certificate made at start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// How often files are looked at, at most: a handshake must not wait for a disk more often than that.
pub const LOOK: Duration = Duration::from_secs(5);

/// Which versions of TLS are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    #[default]
    Since1_2,
    Since1_3,
}

/// A new key and a certificate for it, for the life of this process.
///
/// Gateways that speak TLS to an endpoint picker do not verify it (the reference picker's own certificate has no name to verify), so it
/// keeps others from listening and is enough to be spoken to.
pub fn self_signed(name: &str, versions: Versions) -> Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned(), "localhost".to_owned()])
        .context("creating a self-signed certificate")?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let key = certified(vec![made.cert.der().clone()], key)?;
    server_config(Arc::new(SingleCertAndKey::from(key)), versions)
}

/// A certificate chain and its key in PEM, as a Kubernetes TLS Secret holds them. Files that are replaced are used from then on, unless
/// they cannot be read: then what was read before stays in use, and the log says why.
pub fn from_files(certificate: &Path, key: &Path, versions: Versions) -> Result<Arc<ServerConfig>> {
    server_config(Arc::new(Files::read(certificate, key)?), versions)
}

/// HTTP/2 over TLS, with whatever certificate `resolver` gives.
pub fn server_config(resolver: Arc<dyn ResolvesServerCert>, versions: Versions) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = match versions {
        Versions::Since1_2 => rustls::DEFAULT_VERSIONS,
        Versions::Since1_3 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .context("choosing TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A chain and its key, checked to belong together.
pub fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey> {
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .context("using the certificate and key")
}

/// Files that are read again when they change.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    key: Arc<CertifiedKey>,
    /// When both files were written, as far as that is known.
    written: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let read =
            Read { written: written(certificate, key), key: Arc::new(load(certificate, key)?), looked: Instant::now() };
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), read: Mutex::new(read) })
    }

    fn at(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(read.looked) >= LOOK {
            read.looked = now;
            let written = written(&self.certificate, &self.key);
            if written != read.written {
                match load(&self.certificate, &self.key) {
                    Ok(key) => {
                        (read.key, read.written) = (Arc::new(key), written);
                        tracing::info!(certificate = %self.certificate.display(), "certificate reloaded");
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::error!(error, "the new certificate cannot be used; keeping the old one");
                    }
                }
            }
        }
        Arc::clone(&read.key)
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Instant::now()))
    }
}

fn written(certificate: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificate, key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading the certificate {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading the key {}", key.display()))?;
    certified(chain, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_used_read_again_when_replaced_and_bad_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let write = |name: &str, written: u64| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            for (path, pem) in [(&certificate, made.cert.pem()), (&key, made.signing_key.serialize_pem())] {
                std::fs::write(path, pem).unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(written);
                std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
            }
            made.cert.der().clone()
        };
        let first = write("picker.example.com", 1);
        let files = Files::read(&certificate, &key).unwrap();
        let start = Instant::now();
        let second = write("picker.example.com", 2);
        assert_eq!(files.at(start).cert, [first], "not looked at yet");
        assert_eq!(files.at(start + LOOK * 2).cert, std::slice::from_ref(&second));
        // Half replaced: the key of another certificate. The old pair stays until it fits.
        let other = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
        std::fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert_eq!(files.at(start + LOOK * 4).cert, [second]);
        assert!(
            format!("{:#}", from_files(&certificate, &key, Versions::default()).unwrap_err())
                .contains("using the certificate and key")
        );
        std::fs::write(&key, "nothing").unwrap();
        assert!(
            format!("{:#}", from_files(&certificate, &key, Versions::default()).unwrap_err())
                .contains("reading the key")
        );
    }
}
