//! TLS handshakes with an upstream, for better and for worse. Only these show what a client hears of one that fails for
//! another reason than a certificate: somebody must be called where nothing will help but a change, else it may try again.
//! And that the program resumes sessions, with whom it should and with nobody else. F3, G.4, H.1.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use popgate::upstream::imap::Security;
use rustls::{
    HandshakeKind, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    gate::Gate,
    recorder::{Recorded, Written, handshake_only},
    script::{Manner, Server},
    serve::Popgate,
    tls::identity,
};

/// What a server makes of a client's first words.
#[derive(Clone, Copy)]
struct Answer {
    octets: &'static [u8],
    /// Whether the line ends behind them.
    ends: bool,
}

const LASTING: &str = "-ERR [SYS/PERM] mailbox cannot be opened, contact the administrator";
const PASSING: &str = "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later";

/// A ServerHello of TLS 1.1, the random in it all zeros.
const OLD: &[u8] = b"\x16\x03\x02\0\x2a\x02\0\0\x26\x03\x02\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xc0\x13\0";

#[tokio::test(start_paused = true)]
async fn only_what_will_never_fit_calls_for_somebody() {
    let ends = |octets| Answer { octets, ends: true };
    let silent = |octets| Answer { octets, ends: false };
    for (name, expected, answer) in [
        // What the server has to say (RFC 8446 §6).
        ("internal_error", PASSING, ends(&b"\x15\x03\x03\0\x02\x02\x50"[..])),
        ("access_denied", PASSING, ends(b"\x15\x03\x03\0\x02\x02\x31")),
        ("unrecognized_name", PASSING, ends(b"\x15\x03\x03\0\x02\x02\x70")),
        ("user_canceled", PASSING, ends(b"\x15\x03\x03\0\x02\x01\x5a")),
        ("close_notify", PASSING, ends(b"\x15\x03\x03\0\x02\x01\0")),
        ("an alert that nobody knows", PASSING, ends(b"\x15\x03\x03\0\x02\x02\xfe")),
        ("handshake_failure", LASTING, ends(b"\x15\x03\x03\0\x02\x02\x28")),
        ("protocol_version", LASTING, ends(b"\x15\x03\x01\0\x02\x02\x46")),
        ("insufficient_security", LASTING, ends(b"\x15\x03\x03\0\x02\x02\x47")),
        ("… and the line stays open", LASTING, silent(b"\x15\x03\x03\0\x02\x02\x28")),
        ("an old version", LASTING, ends(OLD)),
        // What is no handshake.
        ("nothing, and the line ends", PASSING, ends(b"")),
        ("part of an answer, and the line ends", PASSING, ends(&OLD[..20])),
        ("silence", PASSING, silent(b"")),
        ("part of an answer, and silence", PASSING, silent(&OLD[..20])),
        ("no TLS", PASSING, ends(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")),
        ("a handshake that makes no sense", PASSING, ends(b"\x16\x03\x03\0\x04\x02\0\0\0")),
        ("data before there is a handshake", PASSING, ends(b"\x17\x03\x03\0\x05* OK ")),
    ] {
        for security in [Security::Implicit, Security::StartTls] {
            let written = Written::default();
            let serve = move |line| drop(tokio::spawn(serve(line, security, answer)));
            let dial = Recorded { written: Arc::clone(&written), capacity: 1 << 14, serve };
            let mut client = Gate::with(Arc::new(dial), &|upstream, _| upstream.security = security).connect();
            let asked = Instant::now();
            let reply = client.log_in().await.unwrap();
            let what = format!("{name}, {security:?}");
            assert_eq!(reply, expected, "{what}");
            assert!(asked.elapsed() <= Duration::from_secs(11), "{what}: {:?}", asked.elapsed());
            client.leave().await;
            assert_eq!(handshake_only(&written.lock().unwrap()), Ok(()), "{what}");
        }
    }
}

/// Waits until TLS begins, and then answers.
async fn serve(line: DuplexStream, security: Security, answer: Answer) {
    let mut line = BufReader::new(line);
    if security == Security::StartTls {
        line.write_all(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n").await.unwrap();
        let mut command = String::new();
        line.read_line(&mut command).await.unwrap();
        let tag = command.split(' ').next().unwrap();
        line.write_all(format!("{tag} OK begin\r\n").as_bytes()).await.unwrap();
    }
    assert_eq!(line.read_u8().await.unwrap(), 22, "a handshake begins");
    line.write_all(answer.octets).await.unwrap();
    if answer.ends {
        line.shutdown().await.unwrap();
    }
    line.read_to_end(&mut Vec::new()).await.unwrap();
}

/// All ports are one server, which would resume any session on any of them; so popgate alone decides. It resumes what it has
/// begun with the same trust, and forgets all sessions when it reads its files again.
#[test]
fn a_session_is_resumed_where_the_same_certificates_are_trusted() {
    for version in [&TLS12, &TLS13] {
        let chain = vec![CertificateDer::from_pem_file(&identity().certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&identity().key).unwrap();
        let config = ServerConfig::builder_with_protocol_versions(&[version]).with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, key).unwrap());
        let kinds = Kinds::default();
        let [a, b, c] = [(); 3].map(|()| shaking(&config, &kinds));

        let directory = tempfile::tempdir().unwrap();
        let [one, other, file] = ["one.pem", "other.pem", "popgate.toml"].map(|name| directory.path().join(name));
        fs::copy(&identity().certificate, one).unwrap();
        let stranger = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap().cert.pem();
        fs::write(other, fs::read_to_string(&identity().certificate).unwrap() + &stranger).unwrap();
        let route = |domain, port, ca| {
            format!(
                "[[route]]\ndomains = [\"{domain}\"]\n[route.upstream]\nstrip_domain = true\nwarm_ttl = \"0s\"\nca = \"{ca}\"\n\
                 url = \"imaps://localhost:{port}\"\n"
            )
        };
        let routes = [("a.example", a, "one.pem"), ("b.example", b, "other.pem"), ("c.example", c, "one.pem")];
        let routes = routes.map(|(domain, port, ca)| route(domain, port, ca)).concat();
        fs::write(&file, format!("[[listen]]\nurl = \"pop3://127.0.0.1:0\"\n{routes}")).unwrap();
        let popgate = Popgate::start(&["serve", "--config", file.to_str().unwrap()]);
        let shaken = |user: &str| {
            assert!(popgate.pop3(user, "sec ret").quit().starts_with("+OK"), "{user}");
            std::mem::take(&mut *kinds.lock().unwrap())
        };
        for reloads in 0..2 {
            if reloads > 0 {
                popgate.signal("HUP");
                popgate.wait_for("server: reloaded");
            }
            let (full, resumed) = ([HandshakeKind::Full], [HandshakeKind::Resumed]);
            assert_eq!(shaken("tim@a.example"), full, "{version:?}, {reloads} reloads");
            assert_eq!(shaken("tim@a.example"), resumed, "{version:?}, {reloads} reloads");
            assert_eq!(shaken("tim@b.example"), full, "another trust; {version:?}, {reloads} reloads");
            assert_eq!(shaken("tim@b.example"), resumed, "{version:?}, {reloads} reloads");
            assert_eq!(shaken("tim@c.example"), resumed, "the same trust; {version:?}, {reloads} reloads");
            assert_eq!(shaken("tim@a.example"), resumed, "{version:?}, {reloads} reloads");
        }
        popgate.stop();
    }
}

/// How clients began, one after the other.
type Kinds = Arc<Mutex<Vec<HandshakeKind>>>;

/// A scripted server over TLS on a port of 127.0.0.1, which notes the kind of each handshake.
fn shaking(config: &Arc<ServerConfig>, kinds: &Kinds) -> u16 {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let number = port.local_addr().unwrap().port();
    let (server, acceptor) = (Server::fixture(Manner::default()), TlsAcceptor::from(Arc::clone(config)));
    let kinds = Arc::clone(kinds);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for line in port.incoming().map_while(Result::ok) {
            line.set_nonblocking(true).unwrap();
            runtime.block_on(async {
                let line = acceptor.accept(TcpStream::from_std(line).unwrap()).await.unwrap();
                kinds.lock().unwrap().push(line.get_ref().1.handshake_kind().unwrap());
                let _ = server.serve(line).await;
            });
        }
    });
    number
}
