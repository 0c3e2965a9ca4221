//! TLS on both sides (RFC 8446, RFC 5246; nothing older): towards servers with certificates verified, always; towards
//! clients with a certificate of our own. Handshake deadlines are the caller's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{Accept, Pending, Wire};

/// Starts TLS towards servers.
#[derive(Clone)]
pub struct Connector(TlsConnector);

/// Starts TLS towards clients.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

/// What is wrong with the files that TLS needs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {error}", .file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds no PEM section of the kind it should.
    #[error("{}: there is no {what} in this file; allowed: PEM (-----BEGIN …)", .file.display())]
    Missing {
        /// Which file.
        file: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A certificate or key is not one, or the key is not the certificate's.
    #[error("{}: {error}", .file.display())]
    Unusable {
        /// Which file.
        file: PathBuf,
        /// Why, in rustls' words.
        error: rustls::Error,
    },
    /// There is no root certificate to trust.
    #[error("no root certificates: neither the system has any nor is upstream.ca set")]
    NoRoots,
    /// The cryptography does not fit the protocol versions; cannot happen with the one that is built in.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl Error {
    /// The file that is to blame, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { file, .. } | Self::Missing { file, .. } | Self::Unusable { file, .. } => Some(file),
            Self::NoRoots | Self::Setup(_) => None,
        }
    }
}

/// Why there is no TLS to a server.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFault {
    /// The server's certificate, or what it can do, is not acceptable. Trying again changes nothing.
    #[error("{0}")]
    Unacceptable(String),
    /// The line broke.
    #[error("{0}")]
    Broken(#[source] io::Error),
}

impl Connector {
    /// Trusts the system's root certificates and those in `extra_ca`.
    pub fn new(extra_ca: Option<&Path>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = extra_ca {
            for certificate in certificates(file, &read(file)?)? {
                roots.add(certificate).map_err(|error| Error::Unusable { file: file.to_owned(), error })?;
            }
        }
        if roots.is_empty() {
            return Err(Error::NoRoots);
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands. The server must prove to be `host`, a name or an address.
    pub fn connect<'a>(
        &'a self,
        wire: Box<dyn Wire>,
        host: &'a str,
    ) -> Pending<'a, Result<Box<dyn Wire>, HandshakeFault>> {
        Box::pin(async move {
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| HandshakeFault::Unacceptable(format!("{host} is no name that a certificate can bear")))?;
            match self.0.connect(name, wire).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Wire>),
                Err(error) => Err(match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(reason) => HandshakeFault::Unacceptable(reason.to_string()),
                    None => HandshakeFault::Broken(error),
                }),
            }
        })
    }
}

impl Acceptor {
    /// Presents the certificate chain in one PEM file with the key in another.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let chain = certificates(certificate, &read(certificate)?)?;
        let secret = private_key(key, &read(key)?)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|error| Error::Unusable { file: key.to_owned(), error })?;
        // A client that speaks only something else, a browser lured here say, is refused (RFC 7301, ALPACA).
        config.alpn_protocols = vec![b"pop3".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl Accept for Acceptor {
    fn accept(&self, wire: Box<dyn Wire>) -> Pending<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move { Ok(Box::new(self.0.accept(wire).await?) as Box<dyn Wire>) })
    }
}

/// Dropped without `shutdown`, no `close_notify` is sent.
impl Wire for client::TlsStream<Box<dyn Wire>> {
    fn abort(&mut self) {
        self.get_mut().0.abort();
    }
}

/// Dropped without `shutdown`, no `close_notify` is sent.
impl Wire for server::TlsStream<Box<dyn Wire>> {
    fn abort(&mut self) {
        self.get_mut().0.abort();
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|error| Error::Unreadable { file: file.to_owned(), error })
}

/// With [`private_key`] the only user of rustls-pemfile, which is no longer maintained.
fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = rustls_pemfile::certs(&mut &*pem).filter_map(Result::ok).collect();
    match certificates.is_empty() {
        true => Err(Error::Missing { file: file.to_owned(), what: "certificate" }),
        false => Ok(certificates),
    }
}

fn private_key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    let key = rustls_pemfile::private_key(&mut &*pem).ok().flatten();
    key.ok_or_else(|| Error::Missing { file: file.to_owned(), what: "private key" })
}
