//! TLS on both sides. Only these show the program with a certificate: what it offers to clients of every kind, and that
//! no password goes to a server that cannot prove its name.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use popgate::{
    mail::{Credentials, Proof, Secret},
    net::{Dial, Endpoint, Pending, Wire, tls::Connector},
    upstream::{
        Upstream as _, Verdict,
        imap::{Deleted, Imap, Security, Settings},
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::support::{serve::Popgate, tls::identity};

/// T037: whoever speaks only something else is refused (ALPACA); whoever says nothing is welcome.
#[tokio::test]
async fn clients_that_speak_pop3_or_do_not_say_are_welcome() {
    let (_popgate, address) = popgate();
    for version in [&TLS12, &TLS13] {
        for (offered, chosen) in [
            (&[][..], Ok(None)),
            (&["pop3"], Ok(Some("pop3"))),
            (&["imap", "pop3"], Ok(Some("pop3"))),
            (&["http/1.1"], Err(AlertDescription::NoApplicationProtocol)),
            (&["h2", "http/1.1", "imap"], Err(AlertDescription::NoApplicationProtocol)),
        ] {
            let got = match greeted(&client(version, offered), address).await {
                Ok(stream) => {
                    Ok(stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8(name.into()).unwrap()))
                }
                Err(error) => match error.get_ref().unwrap().downcast_ref() {
                    Some(rustls::Error::AlertReceived(alert)) => Err(*alert),
                    error => panic!("{error:?}"),
                },
            };
            assert_eq!(got, chosen.map(|name| name.map(str::to_owned)), "{version:?} {offered:?}");
        }
    }
}

/// A client that comes every few minutes need not be shown the certificate each time.
#[tokio::test]
async fn sessions_are_resumed() {
    let (_popgate, address) = popgate();
    for version in [&TLS12, &TLS13] {
        let client = client(version, &[]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = greeted(&client, address).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

/// A line that breaks off during the handshake, or that is no TLS at all, harms nobody else.
#[tokio::test]
async fn what_is_no_handshake_ends_only_its_own_line() {
    let (_popgate, address) = popgate();
    for sent in ["", "CAPA\r\n", "\u{16}\u{3}\u{1}", "GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        // An alert, a reset or nothing; never a word of POP3.
        let _ = stream.read_to_end(&mut said).await;
        assert!(!said.windows(3).any(|octets| octets == b"+OK" || octets == b"-ER"), "{}", said.escape_ascii());
    }
    greeted(&client(&TLS13, &[]), address).await.unwrap();
}

/// T22, I8: a certificate that does not prove the server's name, and nothing of the credentials goes out, neither over
/// TLS nor beside it.
#[tokio::test]
async fn no_password_goes_to_a_server_that_does_not_prove_its_name() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let named =
        |names: &[&str]| CertificateParams::new(names.iter().map(|&name| name.into()).collect::<Vec<_>>()).unwrap();
    let lasting = |from: i32, to: i32| {
        let mut params = named(&[HOST]);
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params
    };
    let common_name_only = || {
        let mut params = named(&[]);
        params.distinguished_name.push(rcgen::DnType::CommonName, HOST);
        params
    };
    let rows = [
        ("good", authority.issue(named(&[HOST])), true),
        ("good, by wildcard", authority.issue(named(&["*.example.com"])), true),
        ("expired", authority.issue(lasting(2001, 2002)), false),
        ("not yet valid", authority.issue(lasting(2999, 3000)), false),
        ("another host's", authority.issue(named(&["imap.example.org"])), false),
        ("its parent's", authority.issue(named(&["example.com"])), false),
        ("a wildcard's of another depth", authority.issue(named(&["*.com"])), false),
        ("an address's", authority.issue(named(&["192.0.2.1"])), false),
        ("named in its subject alone", authority.issue(common_name_only()), false),
        ("of an unknown authority", stranger.issue(named(&[HOST])), false),
        ("of itself", self_signed(named(&[HOST])), false),
    ];
    for security in [Security::Implicit, Security::StartTls] {
        for (certificate, config, good) in &rows {
            let server = Arc::new(Server { security, tls: config.clone(), heard: Mutex::default() });
            let settings = Settings {
                security,
                endpoint: Endpoint { host: HOST.into(), port: 993 },
                mailbox: "INBOX".into(),
                on_delete: None,
                deleted: Deleted::Show,
                read_ahead: true,
            };
            let connector = Connector::new(Some(&authority.file)).unwrap();
            let imap = Imap::new(settings, Arc::new(To(server.clone())), Some(connector));
            let proof = Proof::Password(Secret::new(b"hunter2".to_vec()));
            let fault = imap.open(&Arc::new(Credentials { user: "tim".into(), proof })).await.err().unwrap();
            let heard = String::from_utf8_lossy(&server.heard.lock().unwrap()).into_owned();
            // AHRpbQBodW50ZXIy is what SASL PLAIN makes of both.
            let told = ["hunter2", "AHRpbQBodW50ZXIy", "LOGIN", "AUTHENTICATE"].iter().any(|word| heard.contains(word));
            assert_eq!(told, *good, "{certificate}, {security:?}: {heard}");
            let verdict = if *good { Verdict::Denied } else { Verdict::Lasting };
            assert_eq!(fault.verdict, verdict, "{certificate}, {security:?}: {fault}");
        }
    }
}

const HOST: &str = "imap.example.com";

/// The program on a port that speaks TLS from the first octet.
fn popgate() -> (Popgate, SocketAddr) {
    let identity = identity();
    let [certificate, key] = [("certificate", &identity.certificate), ("key", &identity.key)]
        .map(|(name, file)| format!("tls.{name}={}", file.display()));
    let arguments = ["--listen", "pop3s://127.0.0.1:0", "--set", &certificate, "--set", &key];
    let popgate = Popgate::serve("imap://127.0.0.1:9", &arguments);
    let log = popgate.wait_for("ready");
    let (_, port) = log.split_once("pop3s://127.0.0.1:").unwrap();
    let port = port.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    (popgate, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn client(version: &'static SupportedProtocolVersion, offered: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&identity().certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// A line on which the greeting was read and QUIT answered.
async fn greeted(client: &TlsConnector, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let line = TcpStream::connect(address).await?;
    let mut line = client.connect(ServerName::try_from("localhost").unwrap(), line).await?;
    line.write_all(b"QUIT\r\n").await?;
    let mut said = String::new();
    line.read_to_string(&mut said).await?;
    assert_eq!(said, "+OK POP3 server ready\r\n+OK POP3 server signing off\r\n");
    Ok(line)
}

/// Who issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own, for popgate to trust.
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file, _directory: directory }
    }

    fn issue(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        presenting(certificate.der(), &key)
    }
}

fn self_signed(params: CertificateParams) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    presenting(params.self_signed(&key).unwrap().der(), &key)
}

fn presenting(certificate: &CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate.clone()], key).unwrap())
}

/// A server that offers everything, believes nobody, and remembers what it heard behind the handshake or instead of it.
struct Server {
    security: Security,
    tls: Arc<ServerConfig>,
    heard: Mutex<Vec<u8>>,
}

struct To(Arc<Server>);

impl Dial for To {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Pending<'a, io::Result<Box<dyn Wire>>> {
        let (ours, theirs) = duplex(1 << 16);
        let server = self.0.clone();
        tokio::spawn(async move { server.serve(theirs).await });
        Box::pin(async { Ok(Box::new(ours) as Box<dyn Wire>) })
    }
}

impl Server {
    async fn serve(&self, line: DuplexStream) {
        let mut line = BufReader::new(line);
        if self.security == Security::StartTls {
            line.write_all(b"* OK [CAPABILITY IMAP4rev1 STARTTLS SASL-IR AUTH=PLAIN] ready\r\n").await.unwrap();
            let command = self.hear(&mut line).await.unwrap();
            assert!(command.contains("STARTTLS"), "{command}");
            let tag = command.split(' ').next().unwrap();
            line.write_all(format!("{tag} OK begin\r\n").as_bytes()).await.unwrap();
        }
        match TlsAcceptor::from(self.tls.clone()).accept(line).into_fallible().await {
            Ok(line) => {
                let mut line = BufReader::new(line);
                let greeting = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n";
                if self.security == Security::Implicit && line.write_all(greeting).await.is_err() {
                    return;
                }
                while let Some(command) = self.hear(&mut line).await {
                    let tag = command.split(' ').next().unwrap();
                    let answer = match command.contains("CAPABILITY") {
                        true => format!("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n{tag} OK done\r\n"),
                        false => format!("{tag} NO [AUTHENTICATIONFAILED] who are you\r\n"),
                    };
                    line.write_all(answer.as_bytes()).await.unwrap();
                }
            }
            // TLS 1.3 clients say behind the handshake what they think of a certificate, and what else they have to say.
            Err((_, mut line)) => while self.hear(&mut line).await.is_some() {},
        }
    }

    /// One line, remembered.
    async fn hear(&self, line: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Option<String> {
        let mut octets = Vec::new();
        line.read_until(b'\n', &mut octets).await.ok().filter(|count| *count > 0)?;
        self.heard.lock().unwrap().extend(&octets);
        Some(String::from_utf8_lossy(&octets).into_owned())
    }
}
