//! AUTHORIZATION: who gets in, over what, and who does not.

use std::task::ready;

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::time::Instant;

use super::*;
use crate::net::limits::Limits;

#[tokio::test(start_paused = true)]
async fn credentials_without_tls_are_taken_from_some_networks_only() {
    // The client, and the proxy that it came through.
    let networks: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8", "::1/128"].map(|text| text.parse().unwrap()).into();
    for (address, client, within) in [
        ("127.0.0.1", "127.0.0.1", true),
        ("::ffff:127.0.0.1", "::1", true),
        ("127.0.0.1", "192.0.2.1", false),
        ("192.0.2.1", "127.0.0.1", false),
        ("10.9.8.7", "10.0.0.1", true),
        ("::2", "::2", false),
    ] {
        let [address, client] = [address, client].map(|address| SocketAddr::new(address.parse().unwrap(), 1));
        let peer = Peer { address, client, encrypted: false, permit: None };
        assert_eq!(peer.is_within(&networks), within, "{address} {client}");
    }
    let mut client = Rig::new().connect_from("192.0.2.1", 100);
    client.says("USER tim\r\nQUIT\r\n").await;
    let refused = "-ERR [SYS/PERM] TLS required, use STLS or port 995\r\n";
    assert_eq!(client.rest().await, format!("{GREETING}{refused}+OK POP3 server signing off\r\n"));
}

#[tokio::test(start_paused = true)]
async fn stls_forgets_what_came_before() {
    // T030, T033
    for width in [1, 4096] {
        let mut client = Rig::new().connect_from("192.0.2.1", width);
        client.says("STLS\r\n").await;
        client.reads(&format!("{GREETING}+OK begin TLS\r\n")).await;
        client.says("helloPASS sec ret\r\nSTLS\r\nUSER tim\r\nPASS sec ret\r\nQUIT\r\n").await;
        let expected = "-ERR send USER first\r\n-ERR command not valid in this state\r\n+OK send PASS\r\n\
            +OK maildrop has 3 messages (620 octets)\r\n+OK POP3 server signing off (3 messages left)\r\n";
        assert_eq!(client.rest().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_may_be_sent_behind_stls() {
    // T031
    for behind in ["CAPA\r\n", "hello", "x"] {
        let rig = Rig::new();
        let mut client = rig.connect(4096);
        client.says(&format!("USER tim\r\nSTLS\r\n{behind}")).await;
        assert_eq!(client.rest().await, format!("{GREETING}+OK send PASS\r\n"), "{behind}");
        assert_eq!(rig.memory.deeds(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_answers_the_last_octet_in_the_clear_belongs_to_tls() {
    // A client that is quicker than our next look at the line: its hello is not to be taken for more in the clear.
    let rig = Rig::new();
    let (wire, ours) = duplex(4096);
    let address = SocketAddr::new([127, 0, 0, 1].into(), 4711);
    let peer = Peer { address, client: address, encrypted: false, permit: None };
    let line = Prompt { pipe: ours, told: Vec::new(), hello: b"hello" };
    let session = serve(Arc::clone(&rig.gateway), Box::new(line), peer, rig.shutdown.clone());
    let mut client = Client { wire, session: tokio::spawn(session), aborted: Arc::default() };
    client.says("STLS\r\n").await;
    client.reads(&format!("{GREETING}+OK begin TLS\r\n")).await;
    client.says("QUIT\r\n").await;
    assert_eq!(client.rest().await, "+OK POP3 server signing off\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_or_never_comes_closes() {
    // T038
    for hello in ["jello", ""] {
        let mut client = Rig::new().connect(4096);
        client.says("STLS\r\n").await;
        client.reads(&format!("{GREETING}+OK begin TLS\r\n")).await;
        client.says(hello).await;
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn handshakes_that_do_not_end_are_few_and_short() {
    // T26
    let (rig, limits) = (Rig::new(), Limits::new(10, 10, 1));
    let connect_over = |width| rig.connect_with(Some(limits.admit().unwrap()), "127.0.0.1", width);
    let connect = || connect_over(4096);
    let (mut silent, mut next, mut last) = (connect(), connect(), connect());
    let begun = format!("{GREETING}+OK begin TLS\r\n");
    let began = Instant::now();
    silent.says("STLS\r\n").await;
    silent.reads(&begun).await;
    next.says("STLS\r\n").await;
    let refused = "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later\r\n";
    assert_eq!(next.rest().await, format!("{GREETING}{refused}"));
    assert_eq!(silent.rest().await, "");
    assert_eq!(began.elapsed().as_secs(), 10);
    // One that does not even read that it may begin: there is room for the greeting only.
    let mut deaf = connect_over(GREETING.len());
    deaf.says("STLS\r\n").await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    for _ in 0..2 {
        last.says("STLS\r\n").await;
        last.reads(&begun).await;
        last.says("hello").await;
        last.says("QUIT\r\n").await;
        assert_eq!(last.rest().await, "+OK POP3 server signing off\r\n");
        last = connect();
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_are_answered_late_and_three_times() {
    // T045, T046
    let began = Instant::now();
    let mut client = Rig::new().connect(10);
    let guess = "USER tim\r\nPASS guess\r\n";
    let denied = "+OK send PASS\r\n-ERR [AUTH] invalid user name or password\r\n";
    client.says(guess).await;
    client.reads(&format!("{GREETING}{denied}")).await;
    let delay = began.elapsed();
    assert!(delay >= Duration::from_secs(2) && delay < Duration::from_secs(3), "{delay:?}");
    client.says(guess).await;
    client.reads(denied).await;
    client.says(guess).await;
    assert_eq!(client.rest().await, denied);
}

#[tokio::test(start_paused = true)]
async fn trouble_at_log_in_is_told_at_once_and_is_no_guess() {
    // T080 and following
    let rig = Rig::new();
    let busy = Fault::new(Verdict::Busy, "hush");
    let lasting = Fault { notice: Some("see the helpdesk".to_owned()), ..Fault::new(Verdict::Lasting, "hush") };
    for fault in [passing(), busy, lasting] {
        rig.memory.trouble(Trouble::Open(fault));
    }
    let began = Instant::now();
    let mut client = rig.connect(4096);
    client.says(&LOG_IN.repeat(4)).await;
    client.says("QUIT\r\n").await;
    let said = client.rest().await;
    let expected = "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later\r\n+OK send PASS\r\n\
        -ERR [IN-USE] maildrop is locked by another session\r\n+OK send PASS\r\n\
        -ERR [SYS/PERM] mailbox cannot be opened, contact the administrator: see the helpdesk\r\n+OK send PASS\r\n\
        +OK maildrop has 3 messages (620 octets)\r\n+OK POP3 server signing off (3 messages left)\r\n";
    assert_eq!(said, format!("{GREETING}+OK send PASS\r\n{expected}"));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_explained_before_it_is_refused() {
    // T069, T071
    let rig = Rig::new();
    let fault = Fault { challenge: Some(b"{}".to_vec()), ..Fault::new(Verdict::Denied, "expired") };
    rig.memory.trouble(Trouble::Open(fault));
    let maildrop = rig.memory.maildrop("tim").unwrap();
    let _ = rig.memory.clone().with("u@x", b"T", maildrop);
    let mut client = rig.connect(4096);
    client.says("AUTH XOAUTH2 dXNlcj11QHgBYXV0aD1CZWFyZXIgVAEB\r\n").await;
    client.reads(&format!("{GREETING}+ e30=\r\n")).await;
    client.says("\r\nQUIT\r\n").await;
    let expected = "-ERR [AUTH] invalid user name or password\r\n+OK POP3 server signing off\r\n";
    assert_eq!(client.rest().await, expected);
}

#[tokio::test(start_paused = true)]
async fn each_wrong_token_takes_longer_however_it_is_explained() {
    // T27
    let rig = Rig::new();
    for seconds in [2, 4, 8, 15] {
        let fault = Fault { challenge: Some(b"{}".to_vec()), ..Fault::new(Verdict::Denied, "expired") };
        rig.memory.trouble(Trouble::Open(fault));
        // A token that is another one each time.
        let maildrop = rig.memory.maildrop("tim").unwrap();
        let _ = rig.memory.clone().with("u@x", format!("{seconds}").as_bytes(), maildrop);
        let token = STANDARD.encode(format!("user=u@x\u{1}auth=Bearer {seconds}\u{1}\u{1}"));
        let mut client = rig.connect(4096);
        let began = Instant::now();
        client.says(&format!("AUTH XOAUTH2 {token}\r\n")).await;
        client.reads(&format!("{GREETING}+ e30=\r\n")).await;
        // Up to a quarter more by chance. The explanation is as good as a refusal to whoever guesses.
        let took = began.elapsed();
        assert!((seconds * 4..=seconds * 5).contains(&(took.as_millis() / 250)), "{seconds}: {took:?}");
        client.says("\r\n").await;
        client.reads("-ERR [AUTH] invalid user name or password\r\n").await;
        assert_eq!(began.elapsed(), took);
        client.vanishes().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_is_answered_by_a_reply_whatever_the_upstream_asked() {
    // RFC 1939: PASS has `+OK` and `-ERR`. A challenge would be neither, and would swallow the next command.
    let rig = Rig::new();
    rig.memory.trouble(Trouble::Open(Fault { challenge: Some(Vec::new()), ..passing() }));
    let mut client = rig.connect(4096);
    client.says(&format!("{LOG_IN}QUIT\r\n")).await;
    let expected = "+OK send PASS\r\n-ERR [SYS/TEMP] mail service temporarily unavailable, try again later\r\n\
        +OK POP3 server signing off\r\n";
    assert_eq!(client.rest().await, format!("{GREETING}{expected}"));
}

#[tokio::test(start_paused = true)]
async fn where_users_have_one_session_the_next_one_waits_for_its_end() {
    // T056
    let rig = Rig::with(Memory::new(1000), |maildrops| maildrops.lock = Lock::Gateway);
    let mut first = rig.log_in(4096).await;
    let mut second = rig.connect(4096);
    second.says(LOG_IN).await;
    second.reads(&format!("{GREETING}+OK send PASS\r\n-ERR [IN-USE] maildrop is locked by another session\r\n")).await;
    // Who does not know the password does not learn of it.
    second.says("USER tim\r\nPASS guess\r\n").await;
    second.reads("+OK send PASS\r\n-ERR [AUTH] invalid user name or password\r\n").await;
    let asked = |deed: &&Deed| matches!(deed, Deed::Open(_));
    assert_eq!(rig.memory.deeds().iter().filter(asked).count(), 2);
    first.says("QUIT\r\n").await;
    first.reads("+OK POP3 server signing off (3 messages left)\r\n").await;
    second.says(LOG_IN).await;
    second.reads("+OK send PASS\r\n+OK maildrop has 3 messages (620 octets)\r\n").await;
    second.vanishes().await;
    rig.log_in(4096).await;
}

#[tokio::test(start_paused = true)]
async fn a_user_in_large_letters_has_no_second_session() {
    let maildrop = || Maildrop::new(100, [(uid(5), letter(120))]);
    let memory = Memory::new(1000).with("Tim", b"sec ret", maildrop()).with("TIM", b"sec ret", maildrop());
    let rig = Rig::with(memory, |maildrops| maildrops.lock = Lock::Gateway);
    let _first = rig.log_in(4096).await;
    for user in ["Tim", "TIM", "tim"] {
        let mut next = rig.connect(4096);
        next.says(&format!("USER {user}\r\nPASS sec ret\r\n")).await;
        next.reads(&format!("{GREETING}+OK send PASS\r\n-ERR [IN-USE] maildrop is locked by another session\r\n"))
            .await;
    }
}

/// C.11: two routes to one server, each with a mailbox of its own.
#[tokio::test(start_paused = true)]
async fn a_lock_is_one_of_a_mailbox() {
    let memory = Memory::new(1000).with("tim", b"sec ret", Maildrop::new(100, []));
    let route = |mailbox: &str| {
        let maildrops = Maildrops {
            upstream: "memory".to_owned(),
            mailbox: mailbox.to_owned(),
            strip_domain: true,
            send_client_address: false,
            unique_ids: "dovecot".parse().unwrap(),
            seen: Seen::Quit,
            lock: Lock::Gateway,
        };
        Route::new(memory.clone(), maildrops)
    };
    let mut routes = Routes::new(None, None);
    for (domain, mailbox) in [("one.example", "INBOX"), ("two.example", "Sent"), ("six.example", "Sent")] {
        routes.add(Domain::parse(domain), route(mailbox));
    }
    let rig = Rig::to(routes, memory.clone());
    let mut sessions = Vec::new();
    for (domain, answer) in [
        ("one", "+OK maildrop has 0 messages (0 octets)"),
        ("two", "+OK maildrop has 0 messages (0 octets)"),
        ("six", "-ERR [IN-USE] maildrop is locked by another session"),
    ] {
        let mut session = rig.connect(4096);
        session.says(&format!("USER tim@{domain}.example\r\nPASS sec ret\r\n")).await;
        session.reads(&format!("{GREETING}+OK send PASS\r\n{answer}\r\n")).await;
        sessions.push(session);
    }
}

#[tokio::test(start_paused = true)]
async fn one_session_too_many_of_a_user_costs_the_server_nothing() {
    let maildrop = Maildrop::new(100, [(uid(5), letter(120))]);
    let mut rig = Rig::with(Memory::new(1000).with("tom", b"other", maildrop), |_| {});
    Arc::get_mut(&mut rig.gateway).unwrap().settings.sessions_per_user = 2;
    let asked = |times: usize| {
        let deeds = rig.memory.deeds();
        assert_eq!(deeds.iter().filter(|deed| matches!(deed, Deed::Open(_))).count(), times);
    };
    let (mut first, second) = (rig.log_in(4096).await, rig.log_in(4096).await);
    let mut third = rig.connect(4096);
    let began = Instant::now();
    let full = "+OK send PASS\r\n-ERR [SYS/TEMP] mail service temporarily unavailable, try again later\r\n";
    for _ in 0..3 {
        third.says(LOG_IN).await;
    }
    third.reads(&format!("{GREETING}{full}{full}{full}")).await;
    assert_eq!(began.elapsed().as_secs(), 0);
    asked(2);
    // Nor does who does not know the password learn of it.
    third.says("USER tim\r\nPASS guess\r\n").await;
    third.reads("+OK send PASS\r\n-ERR [AUTH] invalid user name or password\r\n").await;
    let mut other = rig.connect(4096);
    other.says("USER tom\r\nPASS other\r\n").await;
    other.reads(&format!("{GREETING}+OK send PASS\r\n+OK maildrop has 1 messages (120 octets)\r\n")).await;
    asked(4);
    // A session that ends in whatever way gives its place back.
    second.session.abort();
    assert!(second.session.await.is_err());
    third.says(LOG_IN).await;
    third.reads("+OK send PASS\r\n+OK maildrop has 3 messages (620 octets)\r\n").await;
    first.says("NOOP\r\n").await;
    first.reads("+OK nothing done\r\n").await;
    first.vanishes().await;
    rig.log_in(4096).await;
    asked(6);
}

/// A line whose client says `hello` the moment it has been told to begin TLS.
#[derive(Debug)]
struct Prompt {
    pipe: DuplexStream,
    told: Vec<u8>,
    hello: &'static [u8],
}

impl Wire for Prompt {
    fn abort(&mut self) {}
}

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.told.ends_with(b"TLS\r\n") {
            return Pin::new(&mut self.pipe).poll_read(cx, buf);
        }
        let (now, later) = self.hello.split_at(buf.remaining().min(self.hello.len()));
        if now.is_empty() {
            return Pin::new(&mut self.pipe).poll_read(cx, buf);
        }
        buf.put_slice(now);
        self.hello = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, octets))?;
        self.told.extend_from_slice(&octets[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
