//! TLS between a receiver and its clients, with a certificate of this run.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};

/// The domain of the certificate, including names directly below it.
pub(crate) const DOMAIN: &str = "receivers.example";

/// A certificate in base64, for another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Certificate(String);

impl FromStr for Certificate {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The port of a server on loopback, and the certificate that its clients have to trust.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub(crate) struct TlsAddress {
    #[arg(long)]
    pub(crate) port: u16,
    #[arg(long)]
    pub(crate) certificate: Certificate,
}

impl TlsAddress {
    /// The arguments for another process.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let (port, certificate) = (self.port.to_string(), self.certificate.to_string());
        vec!["--port".to_owned(), port, "--certificate".to_owned(), certificate]
    }
}

/// The configuration of a server, and the certificate that its clients have to trust.
pub(crate) fn server() -> Result<(ServerConfig, Certificate)> {
    let made = rcgen::generate_simple_self_signed([DOMAIN.to_owned(), format!("*.{DOMAIN}")])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    // Without resumption every new connection costs as much as the first one.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((config, Certificate(STANDARD.encode(made.cert.der()))))
}

/// The configuration of a client that trusts only this certificate.
pub(crate) fn client(certificate: &Certificate) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(STANDARD.decode(&certificate.0)?))?;
    Ok(ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}
