//! TLS on both sides (RFC 8446, RFC 5246; nothing older): towards servers with certificates verified, unless nothing is to
//! be said to them; towards clients with a certificate of our own. Handshake deadlines are the caller's.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub use self::{
    fault::HandshakeFault,
    handshake::{Certificate, Handshake, Testimony},
};
use super::{Accept, Pending, Wire};

mod fault;
mod handshake;

/// Starts TLS towards servers.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    verifier: Arc<dyn ServerCertVerifier>,
    testimony: Option<Testimony>,
}

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
    #[error("{}: {reason}", .file.display())]
    Unusable {
        /// Which file.
        file: PathBuf,
        /// Why.
        reason: String,
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

impl Connector {
    /// Trusts the system's root certificates and those in `extra_ca`. Sessions are resumed, which spares both sides the most
    /// of the work: in this connector and its clones, never in another one, which may trust others.
    pub fn new(extra_ca: Option<&Path>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = extra_ca {
            for root in certificates(file)? {
                roots.add(root).map_err(|error| unusable(file, error))?;
            }
        }
        if roots.is_empty() {
            return Err(Error::NoRoots);
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|_| Error::NoRoots)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier.clone())
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), verifier, testimony: None })
    }

    /// Takes any certificate, even one that expired: for asking whether a port is alive. Never for a line on which anything
    /// is said that not everybody may read.
    pub fn unverified() -> Result<Self, Error> {
        let verifier = Arc::new(Anybody(provider()));
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), verifier, testimony: None })
    }

    /// The same, deciding as this one does, for one connection whose handshake is to be known: the testimony has it
    /// afterwards, also if it failed.
    pub fn witnessed(&self) -> (Self, Testimony) {
        let testimony = Testimony::default();
        let mut config = ClientConfig::clone(self.tls.config());
        config.dangerous().set_certificate_verifier(Arc::new(testimony.witness(self.verifier.clone())));
        // A session that is resumed shows no certificate.
        config.resumption = Resumption::disabled();
        let tls = TlsConnector::from(Arc::new(config));
        (Self { tls, verifier: self.verifier.clone(), testimony: Some(testimony.clone()) }, testimony)
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
            match self.tls.connect(name, wire).await {
                Ok(stream) => {
                    if let Some(testimony) = &self.testimony {
                        testimony.note(stream.get_ref().1);
                    }
                    Ok(Box::new(stream) as Box<dyn Wire>)
                }
                Err(error) => Err(error.into()),
            }
        })
    }
}

impl Acceptor {
    /// Presents the certificate chain in one PEM file with the key in another.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => unusable(
                    key,
                    format_args!("this is not the key of the first certificate in {}", certificate.display()),
                ),
                // A key is of a kind that is supported, as a rule; it is certificates that come in all forms.
                error => unusable(certificate, error),
            })?;
        // A client that speaks only something else, a browser lured here say, is refused (RFC 7301, ALPACA).
        config.alpn_protocols = vec![b"pop3".to_vec()];
        // Sessions are resumed by tickets, so that any number of clients costs no memory. The keys change by themselves.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
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

/// Believes every certificate; the server must still have its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|error| Error::Unreadable { file: file.to_owned(), error })
}

fn unusable(file: &Path, reason: impl fmt::Display) -> Error {
    Error::Unusable { file: file.to_owned(), reason: reason.to_string() }
}

/// With [`private_key`] the only user of rustls-pemfile, which is no longer maintained.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = rustls_pemfile::certs(&mut &*read(file)?).collect();
    match certificates {
        Ok(none) if none.is_empty() => Err(Error::Missing { file: file.to_owned(), what: "certificate" }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(file, format_args!("a PEM section is damaged: {error}"))),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    match rustls_pemfile::private_key(&mut &*read(file)?) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(Error::Missing { file: file.to_owned(), what: "private key" }),
        Err(error) => Err(unusable(file, format_args!("a PEM section is damaged: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        join,
    };

    use super::*;

    fn files(names: [&str; 2]) -> (TempDir, [PathBuf; 4]) {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for name in names {
            let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
            for (kind, text) in [("crt", cert.pem()), ("key", signing_key.serialize_pem())] {
                paths.push(directory.path().join(format!("{name}.{kind}")));
                fs::write(paths.last().unwrap(), text).unwrap();
            }
        }
        (directory, paths.try_into().unwrap())
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name() {
        let (directory, [certificate, key, _, other]) = files(["one", "two"]);
        let [missing, damaged, empty] = ["missing", "damaged", "empty"].map(|name| directory.path().join(name));
        fs::write(&damaged, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(&empty, "").unwrap();
        assert!(Acceptor::load(&certificate, &key).is_ok());
        let rows = [
            (&missing, &key, &missing, "No such file"),
            (&certificate, &missing, &missing, "No such file"),
            (&empty, &key, &empty, "there is no certificate"),
            (&key, &key, &key, "there is no certificate"),
            (&certificate, &certificate, &certificate, "there is no private key"),
            (&damaged, &key, &damaged, "a PEM section is damaged"),
            (&certificate, &other, &other, "this is not the key of the first certificate in"),
        ];
        for (certificate, key, named, words) in rows {
            let error = Acceptor::load(certificate, key).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{}: {words}", named.display())), "{error}");
        }
        assert!(matches!(Connector::new(Some(&missing)), Err(Error::Unreadable { .. })));
    }

    #[tokio::test]
    async fn a_server_must_prove_its_name() {
        let (_directory, [certificate, key, ..]) = files(["one", "two"]);
        let acceptor = Acceptor::load(&certificate, &key).unwrap();
        let connector = Connector::new(Some(&certificate)).unwrap();
        for (host, good) in [("one", true), ("two", false), ("127.0.0.1", false), ("no name", false)] {
            let (near, far) = duplex(1 << 16);
            let (server, client) = join!(acceptor.accept(Box::new(near)), connector.connect(Box::new(far), host));
            match client {
                Ok(mut client) => {
                    assert!(good, "{host}");
                    client.write_all(b"QUIT\r\n").await.unwrap();
                    let mut line = [0; 6];
                    server.unwrap().read_exact(&mut line).await.unwrap();
                    assert_eq!(&line, b"QUIT\r\n");
                }
                Err(fault) => assert!(!good && matches!(fault, HandshakeFault::Unacceptable(_)), "{host}: {fault}"),
            }
        }
    }

    #[tokio::test]
    async fn a_line_that_breaks_is_no_fault_of_the_certificate() {
        let (_directory, [certificate, ..]) = files(["one", "two"]);
        let (near, far) = duplex(1 << 16);
        drop(near);
        let fault = Connector::new(Some(&certificate)).unwrap().connect(Box::new(far), "one").await.unwrap_err();
        assert!(matches!(fault, HandshakeFault::Broken(_)), "{fault}");
    }

    #[tokio::test]
    async fn a_line_that_is_aborted_does_not_end_orderly() {
        let (_directory, [certificate, key, ..]) = files(["one", "two"]);
        let acceptor = Acceptor::load(&certificate, &key).unwrap();
        let connector = Connector::new(Some(&certificate)).unwrap();
        for orderly in [true, false] {
            let (near, far) = duplex(1 << 16);
            let (server, client) = join!(acceptor.accept(Box::new(near)), connector.connect(Box::new(far), "one"));
            let (mut server, mut client) = (server.unwrap(), client.unwrap());
            match orderly {
                true => server.shutdown().await.unwrap(),
                false => server.abort(),
            }
            drop(server);
            let end = client.read(&mut [0; 1]).await;
            assert_eq!(end.map_err(|error| error.kind()).ok(), orderly.then_some(0));
        }
    }
}
