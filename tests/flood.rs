//! More clients than there is room for. Only these show the program when places, handshakes and descriptors run out: who
//! is inside notices nothing, who is outside is told so in time, and afterwards there is as much room as before.

#![allow(clippy::print_stdout, reason = "what was run is a test's result, too")]

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use socket2::Socket;

use crate::support::{
    pop3::Pop3,
    process, row,
    script::{Account, Manner, Server},
    serve::{Popgate, on_a_port, scripted},
    tls::{self, identity},
};

/// T40: the places are taken, and thousands come.
#[test]
fn who_finds_no_place_is_told_so_and_who_has_one_keeps_it() {
    const PLACES: usize = 16;
    const THREADS: usize = 8;
    const COMERS: usize = 4_000;
    let (server, url) = scripted(Manner::default());
    let options = [format!("sessions={PLACES}"), format!("sessions_per_address={COMERS}")];
    let popgate = Popgate::serve(&url, &["--set", &limits(&options[0]), "--set", &limits(&options[1]), "--set", COLD]);
    popgate.wait_for("ready");
    let before = sockets(&popgate);
    let mut inside: Vec<_> = (0..PLACES / 2).map(|_| popgate.pop3("tim", "sec ret")).collect();
    let memory = popgate.forget_peak_memory();
    let over = AtomicBool::new(false);
    let (greeted, rounds) = thread::scope(|scope| {
        let busy: Vec<_> = inside
            .iter_mut()
            .map(|session| {
                scope.spawn(|| {
                    let mut rounds = 0;
                    while !over.load(Ordering::Relaxed) || rounds == 0 {
                        assert_eq!(session.list("UIDL").len(), 3);
                        assert!(!session.body("RETR 2").is_empty());
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        let comers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| (0..COMERS / THREADS).filter_map(|_| come(popgate.port)).collect::<Vec<_>>()))
            .collect();
        let greeted: Vec<_> = comers.into_iter().flat_map(|comer| comer.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        (greeted, busy.into_iter().map(|session| session.join().unwrap()).collect::<Vec<i32>>())
    });
    let grown = popgate.peak_memory().saturating_sub(memory);
    assert_eq!(greeted.len(), PLACES - inside.len(), "all places are taken, and no more");
    println!(
        "{COMERS} came and {} were turned away; meanwhile {} rounds of those inside; {} KiB more memory",
        COMERS - greeted.len(),
        rounds.iter().sum::<i32>(),
        grown / 1024
    );
    // A connection that is turned away costs nothing that stays.
    assert!(grown < MUCH, "{grown} octets");
    assert!(inside[0].command("DELE 1").starts_with("+OK"));
    for session in inside {
        assert!(session.quit().starts_with("+OK"));
    }
    drop(greeted);
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.messages.len()), 2);
    // As many as before, all at a time, and when they have gone there is nothing left of anybody.
    let again: Vec<_> = (0..PLACES).map(|_| comes_in(popgate.port)).collect();
    assert!(come(popgate.port).is_none());
    drop(again);
    process::wait_until(|| (sockets(&popgate) == before).then_some(()))
        .expect("a line of somebody who has gone is open");
    let log = popgate.stop();
    assert!(log.matches("turned away").count() < 30, "each is logged:\n{log}");
}

/// T26: handshakes that are begun and not gone on with, from as many addresses as it takes.
#[test]
fn handshakes_beyond_the_limit_are_closed_at_once() {
    const HANDSHAKES: u8 = 12;
    const COMERS: u8 = 40;
    let (_server, url) = scripted(Manner::default());
    let popgate = with_tls(&url, HANDSHAKES);
    let port = popgate.tls_port();
    let mut inside = popgate.pop3("tim", "sec ret");
    let comers: Vec<_> = (0..COMERS).map(|number| begins([127, 0, 1, number % 4], port)).collect();
    process::wait_until(|| (open(&comers) <= HANDSHAKES.into()).then_some(())).expect("they should be closed");
    assert_eq!(open(&comers), usize::from(HANDSHAKES));
    let refused = Pop3::connect(popgate.port).command("STLS");
    assert_eq!(refused, "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later");
    assert!(!inside.body("RETR 1").is_empty());
    drop(comers);
    process::wait_until(|| shakes_hands(port).then_some(())).expect("there should be room again");
    assert!(inside.quit().starts_with("+OK"));
    popgate.stop();
}

/// T26: who says nothing, or begins many handshakes from one address, has the places of his address and no others.
#[test]
fn nobody_shuts_all_clients_of_tls_out() {
    let (_server, url) = scripted(Manner::default());
    let popgate = with_tls(&url, 12);
    let port = popgate.tls_port();
    let silent: Vec<_> = (0..60).map(|_| connects([127, 0, 0, 2], port)).collect();
    let begun: Vec<_> = (0..60).map(|_| begins([127, 0, 0, 3], port)).collect();
    for _ in 0..20 {
        assert!(shakes_hands(port));
    }
    assert_eq!((open(&silent), open(&begun)), (60, 60), "they wait for their turn");
    popgate.stop();
}

/// T40: descriptors run out, whoever has them. Who is inside goes on, and who came meanwhile is served when there are some.
#[test]
fn a_process_without_descriptors_goes_on() {
    let Some(prlimit) = process::find("prlimit") else {
        return row::skip("descriptors run out", "prlimit is not installed");
    };
    let (server, url) = scripted(Manner::default());
    let popgate = Popgate::serve(&url, &["--set", COLD]);
    let (mut first, mut second) = (popgate.pop3("tim", "sec ret"), popgate.pop3("tim", "sec ret"));
    let mut stranger = Pop3::connect(popgate.port);
    let allow = |descriptors: u32| {
        let (process, limit) = (format!("--pid={}", popgate.id()), format!("--nofile={descriptors}:"));
        assert!(Command::new(&prlimit).args([process, limit]).status().unwrap().success());
    };
    allow(0);
    let waiting = TcpStream::connect((Ipv4Addr::LOCALHOST, popgate.port)).unwrap();
    popgate.wait_for("connections cannot be taken");
    // It does not try without a pause: a second of waiting costs next to nothing.
    let before = popgate.processor_time();
    waiting.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let error = (&waiting).read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    let spent = popgate.processor_time() - before;
    assert!(spent < Duration::from_millis(200), "{spent:?} in a second in which there was nothing to do");

    assert!(!first.body("RETR 2").is_empty());
    assert!(first.command("DELE 1").starts_with("+OK"));
    assert_eq!(
        stranger.pass("tim", "sec ret"),
        "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later"
    );
    assert!(first.quit().starts_with("+OK"));
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.messages.len()), 2);
    allow(1_000);
    let mut greeting = [0; 3];
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    (&waiting).read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"+OK");
    assert!(stranger.pass("tim", "sec ret").starts_with("+OK"));
    assert!(popgate.pop3("tim", "sec ret").quit().starts_with("+OK"));
    assert!(!second.body("RETR 2").is_empty());
    let log = popgate.stop();
    assert_eq!(log.matches("connections cannot be taken").count(), 1, "{log}");
}

/// T40: lines that wait for their users leave those who come descriptors enough.
#[test]
fn users_who_have_gone_shut_nobody_out() {
    const DESCRIPTORS: usize = 80;
    let Some(prlimit) = process::find("prlimit") else {
        return row::skip("lines that wait and descriptors", "prlimit is not installed");
    };
    let users: Vec<_> = (0..DESCRIPTORS).map(|number| format!("user-{number}")).collect();
    let account = |user: &String| Account { user: user.clone(), ..Account::fixture() };
    let url = on_a_port(&Server::new(Manner::default(), users.iter().map(account).collect()));
    for (sessions, stay) in [("10000", 2), ("4", 8)] {
        let limit = limits(&format!("sessions={sessions}"));
        let arguments = ["serve", "--listen", "pop3://127.0.0.1:0", "--upstream", &url, "--set", &limit];
        let popgate = Popgate::cramped(&prlimit, DESCRIPTORS, &arguments);
        popgate.wait_for("ready");
        let before = sockets(&popgate);
        for user in &users {
            assert!(popgate.pop3(user, "sec ret").quit().starts_with("+OK"));
        }
        process::wait_until(|| (sockets(&popgate) == before + stay).then_some(()))
            .unwrap_or_else(|| panic!("{} lines stay and not {stay}", sockets(&popgate) - before));
        popgate.stop();
    }
}

/// A popgate that has a certificate.
fn with_tls(url: &str, handshakes: u8) -> Popgate {
    let identity = identity();
    let files =
        [format!("tls.certificate={}", identity.certificate.display()), format!("tls.key={}", identity.key.display())];
    let most = limits(&format!("handshakes_in_flight={handshakes}"));
    let listen = ["--listen", "pop3s://127.0.0.1:0", "--listen", "pop3://127.0.0.1:0"];
    let set = ["--set", &files[0], "--set", &files[1], "--set", &most];
    Popgate::start(&[&["serve", "--upstream", url][..], &listen, &set].concat())
}

/// A line from one of this machine's own addresses, on which nothing is said.
fn connects(from: [u8; 4], port: u16) -> TcpStream {
    let line = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    line.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    line.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    line.set_nonblocking(true).unwrap();
    line.into()
}

/// The same with the first octet of a handshake.
fn begins(from: [u8; 4], port: u16) -> TcpStream {
    const HANDSHAKE: u8 = 22;
    let mut line = connects(from, port);
    line.write_all(&[HANDSHAKE]).unwrap();
    line
}

/// How many of them have not been closed.
fn open(lines: &[TcpStream]) -> usize {
    let is_open = |mut line: &TcpStream| line.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    lines.iter().filter(|line| is_open(line)).count()
}

/// Connects. `Some`: there was a place; else it was told that there is none, and nothing else.
fn come(port: u16) -> Option<TcpStream> {
    let mut line = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    line.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = [0; 3];
    line.read_exact(&mut said).unwrap();
    if said == *b"+OK" {
        return Some(line);
    }
    let mut rest = String::new();
    line.read_to_string(&mut rest).unwrap();
    let told = "R [SYS/TEMP] mail service temporarily unavailable, too many connections, try again later\r\n";
    assert_eq!((&said, rest.as_str()), (b"-ER", told));
    None
}

/// Comes in as soon as somebody has left whose line is just being closed.
fn comes_in(port: u16) -> TcpStream {
    process::wait_until(|| come(port)).expect("there should be room again")
}

/// Whether there is TLS, and a greeting on it.
fn shakes_hands(port: u16) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let line = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let Ok(mut line) = tls::connect(Box::new(line)).await else { return false };
        let mut greeting = [0; 3];
        tokio::io::AsyncReadExt::read_exact(&mut line, &mut greeting).await.is_ok() && greeting == *b"+OK"
    })
}

/// How many sockets it has.
fn sockets(popgate: &Popgate) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", popgate.id())).unwrap();
    // One that is closed in between leads nowhere.
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn limits(limit: &str) -> String {
    format!("limits.{limit}")
}

/// No line stays open when its session is over.
const COLD: &str = "upstream.warm_ttl=0s";

/// In time, for somebody who waits for an answer; a bound of failure, and no measurement.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a thousand sessions might take.
const MUCH: u64 = 16 << 20;
