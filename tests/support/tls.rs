//! One certificate for `localhost`, made when it is first wanted, and both ends of TLS with it.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use popgate::net::tls::Connector;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::script::Line;

/// The certificate and what is made from it.
pub(crate) struct Identity {
    /// PEM files, for popgate.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// popgate's own way to begin TLS with whoever has this certificate.
    pub(crate) connector: Connector,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// The one identity of this process.
pub(crate) fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("identity-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let chain = vec![made.cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let private = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Identity {
            connector: Connector::new(Some(&certificate)).unwrap(),
            certificate,
            key,
            client: Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()),
            server: Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private).unwrap()),
        }
    })
}

/// The client's side of a handshake.
pub(crate) async fn connect(line: Box<dyn Line>) -> io::Result<Box<dyn Line>> {
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Box::new(TlsConnector::from(Arc::clone(&identity().client)).connect(name, line).await?))
}

/// The server's side of a handshake.
pub(crate) async fn accept(line: Box<dyn Line>) -> io::Result<Box<dyn Line>> {
    Ok(Box::new(TlsAcceptor::from(Arc::clone(&identity().server)).accept(line).await?))
}
