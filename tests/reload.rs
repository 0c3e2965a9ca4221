//! SIGHUP on the program itself. Only these show that whoever is connected does not notice, that whoever comes next has
//! what the files say now, and that files with anything wrong in them change nothing.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;

use crate::support::{
    pop3::Pop3,
    process,
    script::Manner,
    serve::{Popgate, scripted},
};

/// F37, and T12B as far as it goes: sessions under load and sessions at rest, while the configuration and the certificate
/// change a hundred times, and are wrong now and then.
#[test]
fn a_hundred_reloads_drop_nobody() {
    let (_server, url) = scripted(Manner::default());
    let files = Files::new(&url);
    let mut certificate = files.certify();
    files.configure("[maildrop]\nlock = \"none\"\n");
    let popgate = files.start();
    let port = popgate.port;

    let mut at_rest = popgate.pop3("tim", "sec ret");
    assert!(at_rest.command("DELE 1").starts_with("+OK"));
    let mut encrypted = greeted(popgate.tls_port(), &certificate);

    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let (over, done) = (Arc::clone(&over), Arc::clone(&done));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut session = Pop3::log_in(port, "tim", "sec ret");
                    assert_eq!(session.list("UIDL").len(), 3);
                    assert!(!session.body("RETR 2").is_empty());
                    assert!(session.quit().starts_with("+OK"));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for round in 1..=RELOADS {
        let before = done.load(Ordering::Relaxed);
        if round % 10 == 0 {
            files.configure("[limits]\nsesions = 1\n");
            fs::write(&files.key, "lost").unwrap();
            popgate.signal("HUP");
            told(&popgate, "limits.sesions: there is no such key", round / 10);
            greeted(popgate.tls_port(), &certificate);
        }
        certificate = files.certify();
        files.configure(&format!("[login]\nfailure_delay = \"{round}ms\"\n"));
        popgate.signal("HUP");
        told(&popgate, "server: reloaded", round);
        greeted(popgate.tls_port(), &certificate);
        // Each state serves somebody.
        process::wait_until(|| (done.load(Ordering::Relaxed) > before).then_some(())).expect("nobody is served");
    }
    over.store(true, Ordering::Relaxed);
    for session in busy {
        session.join().unwrap();
    }

    encrypted.write_all(b"QUIT\r\n").unwrap();
    let mut reply = String::new();
    encrypted.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("+OK") && reply.ends_with("\r\n"), "{reply:?}");
    assert!(!at_rest.body("RETR 2").is_empty());
    assert!(at_rest.command("RSET").starts_with("+OK"));
    assert!(at_rest.quit().starts_with("+OK"));
    let log = popgate.stop();
    assert_eq!(log.matches("listening").count(), 2, "a port was opened again:\n{log}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_changes() {
    let (_server, url) = scripted(Manner::default());
    let files = Files::new(&url);
    let certificate = files.certify();
    files.configure("");
    let popgate = files.start();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap();
    let name = files.configuration.display();
    for (index, (more, words)) in [
        ("[upstraem]\n".to_owned(), format!("{name}: upstraem: there is no such key")),
        ("[limits]\nsessions = 0\n".to_owned(), format!("{name}: limits.sessions: found 0")),
        (
            "[tls]\ncertificate = \"nowhere.pem\"\nkey = \"key.pem\"\n".to_owned(),
            format!("{name}: tls.certificate: found "),
        ),
        ("[\n".to_owned(), format!("{name}: line")),
        (
            format!("[[listen]]\nurl = \"pop3://127.0.0.2:0\"\n[[listen]]\nurl = \"pop3://{taken}\"\n"),
            format!("cannot listen on {taken}"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        files.configure(&format!("[login]\nfailure_delay = \"0s\"\n{more}"));
        popgate.signal("HUP");
        told(&popgate, "everything stays as it is", index + 1);
        let log = popgate.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains("ERROR") && last.contains(&words), "{words}:\n{log}");
        // A port that was opened in vain is closed again.
        if let Some((_, port)) = log.split_once("pop3://127.0.0.2:") {
            let port: u16 = port.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
            assert!(TcpStream::connect(("127.0.0.2", port)).is_err());
        }
        greeted(popgate.tls_port(), &certificate);
        assert!(popgate.pop3("tim", "sec ret").quit().starts_with("+OK"));
    }
    assert!(!popgate.stop().contains("server: reloaded"));
}

/// What a session has begun with it keeps; users and ports are counted over all.
#[test]
fn new_sessions_have_what_is_new() {
    let ((_one, first), (two, second)) = (scripted(Manner::default()), scripted(Manner::default()));
    two.with("tim", "INBOX", |inbox| inbox.messages.truncate(1));
    let files = Files::new(&first);
    files.certify();
    files.configure("[maildrop]\nlock = \"gateway\"\n");
    let popgate = files.start();
    let (port, tls_port) = (popgate.port, popgate.tls_port());
    let mut old = popgate.pop3("tim", "sec ret");

    fs::write(
        &files.configuration,
        format!(
            "[[listen]]\nurl = \"pop3://127.0.0.1:0\"\n[upstream]\nurl = \"{first}\"\n[maildrop]\nlock = \"gateway\"\n"
        ),
    )
    .unwrap();
    popgate.signal("HUP");
    told(&popgate, "server: reloaded", 1);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, tls_port)).is_err(), "a port that is listed no more is open");
    let reply = Pop3::connect(port).pass("tim", "sec ret");
    assert!(reply.starts_with("-ERR [IN-USE]"), "{reply}");

    fs::write(
        &files.configuration,
        format!("[[listen]]\nurl = \"pop3://127.0.0.1:0\"\n[upstream]\nurl = \"{second}\"\n"),
    )
    .unwrap();
    popgate.signal("HUP");
    told(&popgate, "server: reloaded", 2);
    let mut new = popgate.pop3("tim", "sec ret");
    assert_eq!((old.list("UIDL").len(), new.list("UIDL").len()), (3, 1));
    assert!(old.quit().starts_with("+OK") && new.quit().starts_with("+OK"));
    popgate.stop();
}

/// What cannot change under sessions that are there is said, and nothing else is.
#[test]
fn what_waits_for_the_next_start_is_said() {
    let (_server, url) = scripted(Manner::default());
    let files = Files::new(&url);
    files.certify();
    files.configure("");
    let popgate = files.start();
    let at_rest = popgate.pop3("tim", "sec ret");
    for (round, (limit, waits)) in
        [("logins_per_second = 5", false), ("sessions_per_user = 1", false), ("handshakes_in_flight = 5", true)]
            .into_iter()
            .enumerate()
    {
        files.configure(&format!("[limits]\n{limit}\n"));
        popgate.signal("HUP");
        told(&popgate, "server: reloaded", round + 1);
        assert_eq!(popgate.log().contains("holds from the next start section=\"limits\""), waits, "{limit}");
    }
    assert!(at_rest.quit().starts_with("+OK"));
    popgate.stop();
}

/// A configuration, a certificate and its key, all of which can be written again.
struct Files {
    directory: TempDir,
    configuration: PathBuf,
    key: PathBuf,
    upstream: String,
}

impl Files {
    fn new(upstream: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [configuration, key] = ["popgate.toml", "key.pem"].map(|name| directory.path().join(name));
        Self { directory, configuration, key, upstream: upstream.to_owned() }
    }

    /// Makes a new certificate.
    fn certify(&self) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(self.directory.path().join("certificate.pem"), cert.pem()).unwrap();
        fs::write(&self.key, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    fn configure(&self, more: &str) {
        let Self { upstream, .. } = self;
        let tls =
            if more.contains("[tls]") { "" } else { "[tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n" };
        let listen = "[[listen]]\nurl = \"pop3s://127.0.0.1:0\"\n[[listen]]\nurl = \"pop3://127.0.0.1:0\"\n";
        fs::write(&self.configuration, format!("{listen}{tls}[upstream]\nurl = \"{upstream}\"\n{more}")).unwrap();
    }

    fn start(&self) -> Popgate {
        Popgate::start(&["serve", "--config", self.configuration.to_str().unwrap()])
    }
}

/// Waits until the log has said something so many times.
fn told(popgate: &Popgate, words: &str, times: usize) {
    process::wait_until(|| (popgate.log().matches(words).count() >= times).then_some(()))
        .unwrap_or_else(|| panic!("{words:?} was not said {times} times"));
}

/// A TLS line to a server that shows this very certificate, and greets.
fn greeted(port: u16, certificate: &CertificateDer<'static>) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let line = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut line = StreamOwned::new(client, line);
    let mut greeting = [0; 3];
    line.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"+OK");
    assert_eq!(line.conn.peer_certificates().unwrap()[0], *certificate);
    let mut rest = [0; 1];
    while rest != *b"\n" {
        line.read_exact(&mut rest).unwrap();
    }
    line
}

const RELOADS: usize = 100;
