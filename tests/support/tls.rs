//! One certificate for `localhost`, made when it is first wanted, and both ends of TLS with it. One handshake is like
//! another, record for record.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use popgate::net::tls::Connector;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::StoresServerSessions,
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
        // Its signatures are all of one length.
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let made = CertificateParams::new(["localhost".to_string()]).unwrap().self_signed(&key).unwrap();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("identity-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let files = ["certificate.pem", "key.pem"].map(|name| directory.join(name));
        fs::write(&files[0], made.pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        let chain = vec![made.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        client.resumption = Resumption::disabled();
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private).unwrap();
        server.session_storage = Arc::new(Forgetful);
        let [certificate, key] = files;
        Identity {
            connector: Connector::new(Some(&certificate)).unwrap(),
            certificate,
            key,
            client: Arc::new(client),
            server: Arc::new(server),
        }
    })
}

/// Gives tickets for sessions, and takes none.
#[derive(Debug)]
struct Forgetful;

impl StoresServerSessions for Forgetful {
    fn put(&self, _: Vec<u8>, _: Vec<u8>) -> bool {
        true
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn take(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// The client's side of a handshake.
pub(crate) async fn connect(line: Box<dyn Line>) -> io::Result<Box<dyn Line>> {
    try_connect(line).await.map_err(|(error, _)| error)
}

/// The same; gives the line back if TLS does not begin.
pub(crate) async fn try_connect(line: Box<dyn Line>) -> Result<Box<dyn Line>, (io::Error, Box<dyn Line>)> {
    let name = ServerName::try_from("localhost").unwrap();
    let connect = TlsConnector::from(Arc::clone(&identity().client)).connect(name, line);
    Ok(Box::new(connect.into_fallible().await?))
}

/// The server's side of a handshake.
pub(crate) async fn accept(line: Box<dyn Line>) -> io::Result<Box<dyn Line>> {
    Ok(Box::new(TlsAcceptor::from(Arc::clone(&identity().server)).accept(line).await?))
}
