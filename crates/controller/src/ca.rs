//! The authority that vouches for this controller to pickers: made once, kept in a Secret that all replicas share, and told to pickers
//! in a ConfigMap of each namespace (see [`crate::managed`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::json;

use crate::status::MANAGER;

/// The Secret, in the controller's namespace. Deleting it makes a new authority when the next replica begins to lead.
pub(crate) const SECRET: &str = "thalamus-controller-ca";

/// What the authority is called, for people who look at a certificate.
const NAME: &str = "Thalamus controller";

const CA_YEARS: i32 = 10;

/// How long a serving certificate lasts, and how long before its end it is replaced.
const SERVING_DAYS: i64 = 90;
const RENEWAL_DAYS: i64 = 30;

/// An authority.
#[derive(Debug)]
pub(crate) struct CertificateAuthority {
    /// The certificate, in PEM: what pickers need.
    pub(crate) certificate: String,
    key: KeyPair,
}

impl CertificateAuthority {
    /// The one in the Secret, or a new one that is put there.
    pub(crate) async fn load_or_make(client: &Client, namespace: &str) -> Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = secrets.get_opt(SECRET).await.with_context(|| format!("reading Secret {namespace}/{SECRET}"))?;
        let data = found.and_then(|secret| secret.data).unwrap_or_default();
        if !data.is_empty() {
            return Self::read(&data).with_context(|| {
                format!("Secret {namespace}/{SECRET} cannot be used; delete it to have a new one created")
            });
        }
        let made = Self::make(Timestamp::now())?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": SECRET, "labels": {"app.kubernetes.io/managed-by": "thalamus"}},
            "stringData": {"ca.crt": made.certificate, "ca.key": made.key.serialize_pem()},
        });
        // A patch, since rights to create cannot be limited to a name and rights to patch can.
        let patch = PatchParams::apply(MANAGER);
        secrets
            .patch(SECRET, &patch, &Patch::Apply(&secret))
            .await
            .with_context(|| format!("writing Secret {namespace}/{SECRET}"))?;
        tracing::info!(secret = SECRET, namespace, "created a new CA for pickers to verify this controller with");
        // What stands there counts, should another have written over it.
        let written = secrets.get(SECRET).await.with_context(|| format!("reading Secret {namespace}/{SECRET}"))?;
        Self::read(&written.data.unwrap_or_default())
    }

    fn read(data: &BTreeMap<String, ByteString>) -> Result<Self> {
        let part = |name: &str| {
            let bytes = data.get(name).with_context(|| format!("{name} is missing"))?;
            String::from_utf8(bytes.0.clone()).with_context(|| format!("{name} is not PEM"))
        };
        let key = KeyPair::from_pem(&part("ca.key")?).context("ca.key does not contain a key")?;
        Ok(Self { certificate: part("ca.crt")?, key })
    }

    fn make(now: Timestamp) -> Result<Self> {
        let key = KeyPair::generate().context("making a key")?;
        let mut params = parameters()?;
        let today = now.to_zoned(TimeZone::UTC).date();
        params.not_before = day(today.saturating_sub(1.day()));
        params.not_after = day(today.saturating_add(CA_YEARS.years()));
        let certificate = params.self_signed(&key).context("signing the authority's certificate")?.pem();
        Ok(Self { certificate, key })
    }

    /// A key and a certificate for these names, signed by the authority.
    fn issue(&self, names: &[String], now: Timestamp) -> Result<CertifiedKey> {
        let key = KeyPair::generate().context("making a key")?;
        let mut params = CertificateParams::new(names).context("naming the certificate")?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or(NAME, String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let today = now.to_zoned(TimeZone::UTC).date();
        params.not_before = day(today.saturating_sub(1.day()));
        params.not_after = day(today.saturating_add(SERVING_DAYS.days()));
        let issuer_parameters = parameters()?;
        let issuer = Issuer::from_params(&issuer_parameters, &self.key);
        let certificate = params.signed_by(&key, &issuer).context("signing a certificate")?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        daemon::tls::certified(vec![certificate.der().clone()], key)
    }
}

/// What the authority's certificate says; the same each time, since certificates name their issuer by it.
fn parameters() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("naming the authority")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn day(date: Date) -> time::OffsetDateTime {
    let [month, day] = [date.month(), date.day()].map(i8::unsigned_abs);
    rcgen::date_time_ymd(i32::from(date.year()), month, day)
}

/// Serving certificates of an authority, each made when the one before it grows old.
#[derive(Debug)]
pub(crate) struct Issued {
    authority: CertificateAuthority,
    names: Vec<String>,
    newest: Mutex<Option<(Timestamp, Arc<CertifiedKey>)>>,
}

impl Issued {
    pub(crate) fn new(authority: CertificateAuthority, names: Vec<String>) -> Self {
        Self { authority, names, newest: Mutex::new(None) }
    }

    fn at(&self, now: Timestamp) -> Option<Arc<CertifiedKey>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let old = newest
            .as_ref()
            // A clock that was ahead made one that is not valid yet.
            .is_none_or(|(made, _)| {
                now < *made || now.duration_since(*made).as_hours() >= (SERVING_DAYS - RENEWAL_DAYS) * 24
            });
        if old {
            match self.authority.issue(&self.names, now) {
                Ok(key) => *newest = Some((now, Arc::new(key))),
                Err(error) => tracing::error!(error = format!("{error:#}"), "cannot create a certificate for pickers"),
            }
        }
        newest.as_ref().map(|(_, key)| Arc::clone(key))
    }
}

impl ResolvesServerCert for Issued {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.at(Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_its_secret_and_renews_what_it_issued() {
        let start = Timestamp::from_second(1_790_000_000).unwrap();
        let made = CertificateAuthority::make(start).unwrap();
        let data = [("ca.crt", made.certificate.clone()), ("ca.key", made.key.serialize_pem())];
        let data = data.map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes()))).into();
        let read = CertificateAuthority::read(&data).unwrap();
        assert_eq!((&read.certificate, read.key.serialize_der()), (&made.certificate, made.key.serialize_der()));

        let issued = Issued::new(read, vec!["controller.ns".to_owned()]);
        let days = |days: i64| start.checked_add((days * 24).hours()).unwrap();
        let first = issued.at(start).unwrap();
        assert_eq!(issued.at(days(59)).unwrap().cert, first.cert);
        let second = issued.at(days(61)).unwrap();
        assert_ne!(second.cert, first.cert);
        assert_ne!(issued.at(days(30)).unwrap().cert, second.cert, "the clock was ahead");
    }

    #[test]
    fn a_secret_that_is_no_authority_is_named() {
        assert_eq!(CertificateAuthority::read(&BTreeMap::new()).unwrap_err().to_string(), "ca.key is missing");
    }
}
