//! Whole sessions against the scripted server: what a dialogue cannot say, because it needs several clients, many messages,
//! other actors or much mail.

use std::{sync::Arc, time::Duration};

use popgate::gateway::Lock;
use tokio::{io::AsyncBufReadExt, time::Instant};

use crate::support::{
    chat::stuffed,
    gate::{Gate, Lines},
    script::{Content, Manner, Server, What},
};

fn ok(reply: Option<String>) -> String {
    let reply = reply.expect("popgate has closed the line");
    assert!(reply.starts_with("+OK "), "{reply}");
    reply
}

fn err(reply: Option<String>) -> String {
    let reply = reply.expect("popgate has closed the line");
    assert!(reply.starts_with("-ERR "), "{reply}");
    reply
}

/// T122: the older session keeps its list; what the other one removed is gone, and nothing is wrong with that.
#[tokio::test(start_paused = true)]
async fn two_sessions_of_one_mailbox() {
    let server = Server::fixture(Manner::default());
    let gate = Gate::new(&server);
    let (mut first, mut second) = (gate.connect(), gate.connect());
    ok(first.log_in().await);
    ok(second.log_in().await);
    ok(first.ask("DELE 1").await);
    assert_eq!(ok(first.ask("QUIT").await), "+OK POP3 server signing off (2 messages left)");
    assert_eq!(ok(second.ask("STAT").await), "+OK 3 620");
    assert_eq!(err(second.ask("RETR 1").await), "-ERR message 1 has been removed by another client");
    ok(second.ask("DELE 1").await);
    assert_eq!(ok(second.ask("QUIT").await), "+OK POP3 server signing off (2 messages left)");
    first.leave().await;
    second.leave().await;
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.uids()), [7, 9]);
}

/// T056: with `lock = "gateway"` the second one waits for the first to be done.
#[tokio::test(start_paused = true)]
async fn one_session_at_a_time() {
    let server = Server::fixture(Manner::default());
    let dial = Arc::new(Lines { server, capacity: 1024 });
    let gate = Gate::with(dial, &|_, maildrops| maildrops.lock = Lock::Gateway);
    let (mut first, mut second) = (gate.connect(), gate.connect());
    ok(first.log_in().await);
    assert_eq!(err(second.log_in().await), "-ERR [IN-USE] maildrop is locked by another session");
    ok(first.ask("QUIT").await);
    ok(second.ask("USER tim").await);
    ok(second.ask("PASS sec ret").await);
    first.leave().await;
    second.leave().await;
}

/// T019: whatever is asked, a reply is one line of printable ASCII with a text, no longer than 512 octets.
#[tokio::test(start_paused = true)]
async fn every_reply_is_well_formed() {
    let gate = Gate::new(&Server::fixture(Manner::default()));
    let mut client = gate.connect();
    let commands = [
        "",
        "NOOP",
        "CAPA",
        "AUTH",
        "AUTH PLAIN",
        "*",
        "AUTH FOO",
        "STLS",
        "USER",
        "USER \u{e9}",
        "USER tim",
        "PASS sec ret",
        "STAT",
        "LIST",
        "LIST 1",
        "LIST 9",
        "UIDL",
        "UIDL 2",
        "UIDL x",
        "RETR 1",
        "RETR 0",
        "TOP 1 0",
        "TOP 1",
        "DELE 1",
        "DELE 1",
        "RSET",
        "NOOP",
        "CAPA",
        "LAST",
        "XYZZY \u{1f600} <a@b> [IN-USE]",
        "QUIT x",
        "STLS",
        "USER tim",
        "QUIT",
    ];
    let mut replies = vec![client.hear().await.unwrap()];
    for command in commands {
        let reply = client.ask(command).await.unwrap();
        let lines =
            ["CAPA", "AUTH", "LIST", "UIDL", "RETR 1", "TOP 1 0"].contains(&command) && reply.starts_with("+OK");
        replies.push(reply);
        if lines {
            client.body().await.unwrap();
        }
    }
    for reply in replies {
        let text = ["+OK ", "-ERR ", "+ "].iter().find_map(|status| reply.strip_prefix(status));
        let text = text.unwrap_or_else(|| panic!("{reply}"));
        assert!(reply.len() <= 510 && reply.bytes().all(|octet| matches!(octet, b' '..=b'~')), "{reply}");
        assert!(
            !text.starts_with('[') || reply.starts_with("-ERR [SYS/") || reply.starts_with("-ERR [AUTH]"),
            "{reply}"
        );
        assert!(!text.contains('<'), "{reply}");
    }
    client.leave().await;
}

/// T174, T173: a client that sends a hundred commands before it reads, on lines with hardly any room.
#[tokio::test(start_paused = true)]
async fn a_hundred_commands_ahead() {
    let server = Server::fixture(Manner::default());
    server.with("tim", "INBOX", |inbox| inbox.messages[0].content = Content::new("A: b\r\n\r\n.\r\n"));
    let mut gate = Gate::new(&server);
    gate.capacity = 16;
    let mut client = gate.connect();
    ok(client.log_in().await);
    let (from, mut to) = tokio::io::split(client.line.into_inner());
    let commands = "RETR 1\r\nLIST 1\r\n".repeat(100) + "QUIT\r\n";
    let write = async { tokio::io::AsyncWriteExt::write_all(&mut to, commands.as_bytes()).await };
    let read = async {
        let mut said = String::new();
        let mut from = from;
        tokio::io::AsyncReadExt::read_to_string(&mut from, &mut said).await.map(|_| said)
    };
    let (written, said) = tokio::join!(write, read);
    written.unwrap();
    let expected = "+OK 11 octets\r\nA: b\r\n\r\n..\r\n.\r\n+OK 1 120\r\n".repeat(100);
    assert_eq!(said.unwrap(), expected + "+OK POP3 server signing off (3 messages left)\r\n");
}

/// T234, F-05: many messages are removed in batches; a hidden or kept one is in none of their ranges.
#[tokio::test(start_paused = true)]
async fn thousands_are_deleted_in_batches() {
    let server = Server::fixture(Manner::default());
    server.with("tim", "INBOX", |inbox| {
        inbox.messages.clear();
        for _ in 0..2_500 {
            inbox.deliver(Content::Filler(100));
        }
    });
    let first = server.with("tim", "INBOX", |inbox| inbox.messages[0].uid);
    let gate = Gate::new(&server);
    let mut client = gate.connect();
    assert_eq!(ok(client.log_in().await), "+OK maildrop has 2500 messages (250000 octets)");
    for number in (1..=2_500).filter(|number| *number != 1_700) {
        ok(client.ask(&format!("DELE {number}")).await);
    }
    assert_eq!(ok(client.ask("QUIT").await), "+OK POP3 server signing off (1 messages left)");
    client.leave().await;
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.uids()), [first + 1_699]);
    let stores = server.received().into_iter().filter(|received| received.text.starts_with("UID STORE"));
    assert_eq!(stores.count(), 3);
}

/// T119, small: a large mailbox is listed whole, and RETR finds the right message in it.
#[tokio::test(start_paused = true)]
async fn a_large_mailbox_is_listed_whole() {
    let server = Server::fixture(Manner::default());
    server.with("tim", "INBOX", |inbox| {
        for octets in 0..20_000 {
            inbox.deliver(Content::Filler(octets));
        }
    });
    let mut client = Gate::new(&server).connect();
    assert_eq!(ok(client.log_in().await), "+OK maildrop has 20003 messages (199990620 octets)");
    ok(client.ask("UIDL").await);
    let ids = String::from_utf8(client.body().await.unwrap()).unwrap();
    assert_eq!(ids.lines().count(), 20_003);
    assert!(ids.ends_with("20003 00004e2b00000064\r\n"), "{}", &ids[ids.len() - 60..]);
    assert_eq!(ok(client.ask("RETR 19999").await), "+OK 19995 octets");
    assert_eq!(client.body().await.unwrap(), stuffed(&Content::Filler(19_995).octets()));
    client.leave().await;
}

/// C.6, F-02, F-03, F-20: another actor removes and flags messages at every step; only what was deleted here goes by us.
#[tokio::test(start_paused = true)]
async fn another_actor_between_all_steps() {
    for step in 0..8 {
        let server = Server::fixture(Manner::default());
        let act = |at: usize| {
            if at == step {
                server.with("tim", "INBOX", |inbox| {
                    inbox.expunge(5);
                    inbox.flag(7, "\\Deleted");
                    inbox.deliver(Content::Filler(50));
                });
            }
        };
        let gate = Gate::new(&server);
        let mut client = gate.connect();
        act(0);
        ok(client.log_in().await);
        act(1);
        for (number, command) in ["RETR 1", "TOP 1 1", "RETR 3", "DELE 1", "DELE 3", "NOOP"].into_iter().enumerate() {
            let reply = client.ask(command).await.unwrap();
            if reply.starts_with("+OK") && (command.starts_with("RETR") || command.starts_with("TOP")) {
                client.body().await.unwrap();
            }
            act(number + 2);
        }
        let quit = client.ask("QUIT").await;
        client.leave().await;
        let left = server.with("tim", "INBOX", |inbox| inbox.uids());
        // Before the list was made it was 7, 9, 12; after that nothing changed in it.
        assert_eq!(left, if step == 0 { vec![9] } else { vec![7, 12] }, "step {step}: {quit:?}");
        ok(quit);
    }
}

/// A session that thinks when the server is stopped is left without a word; the next command of one that does
/// not is told.
#[tokio::test(start_paused = true)]
async fn shutdown_is_no_quit() {
    let server = Server::fixture(Manner::default());
    let gate = Gate::new(&server);
    let mut client = gate.connect();
    ok(client.log_in().await);
    ok(client.ask("DELE 1").await);
    gate.shutdown.cancel();
    assert_eq!(client.hear().await, None);
    client.leave().await;
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.uids()), [5, 7, 9]);
    assert!(server.received().iter().all(|received| !received.text.contains("STORE")), "{:?}", server.received());
}

/// F17: on a line of 2,000 octets a second nobody waits for what was fetched ahead of being asked for, until his program
/// gives up: a message that keeps him waiting is asked for alone, and comes as it comes.
#[tokio::test(start_paused = true)]
async fn a_slow_line_keeps_no_client_in_silence() {
    let slow = What::Drip(200, Duration::from_millis(100));
    let server = Server::fixture(Manner::default().deviating("UID FETCH", 0, slow));
    server.with("tim", "INBOX", |inbox| {
        for octets in [200_000, 250_000, 60_000, 300_000, 100_000] {
            inbox.deliver(Content::Filler(octets));
        }
    });
    for order in [[1, 4, 5, 6, 7, 8], [1, 8, 7, 6, 5, 4], [4, 7, 5, 1, 8, 6]] {
        let mut client = Gate::new(&server).connect();
        ok(client.log_in().await);
        for number in order {
            let began = Instant::now();
            ok(client.ask(&format!("RETR {number}")).await);
            client.line.fill_buf().await.unwrap();
            let silence = began.elapsed();
            assert!(silence < Duration::from_secs(55), "nothing of {number} in {order:?} for {silence:?}");
            let octets = server.with("tim", "INBOX", |inbox| inbox.messages[number - 1].content.octets());
            assert!(client.body().await.unwrap() == stuffed(&octets), "{number}");
        }
        ok(client.ask("QUIT").await);
        client.leave().await;
    }
}

/// T41: each line of a listing shows that the server is alive, but nobody waits for the last of them for ever.
#[tokio::test(start_paused = true)]
async fn a_listing_that_does_not_end_is_given_up() {
    let drip = What::Drip(1, Duration::from_secs(1));
    let server = Server::fixture(Manner::default().deviating("UID FETCH 1:*", 1, drip));
    server.with("tim", "INBOX", |inbox| (0..100).for_each(|_| _ = inbox.deliver(Content::Filler(50))));
    let gate = Gate::new(&server);
    let mut client = gate.connect();
    let began = Instant::now();
    let refusal = err(client.log_in().await);
    assert!(refusal.starts_with("-ERR [SYS/TEMP]") && began.elapsed().as_secs() == 600, "{refusal}");
    client.leave().await;
    let mut client = gate.connect();
    ok(client.log_in().await);
    client.leave().await;
}

/// … but where there can be no other line, a slow one is better than none.
#[tokio::test(start_paused = true)]
async fn a_slow_line_that_cannot_be_replaced_is_waited_for() {
    let slow = What::Drip(200, Duration::from_millis(100));
    let server = Server::fixture(Manner::default().deviating("UID FETCH", 0, slow));
    server.with("tim", "INBOX", |inbox| {
        inbox.uid_validity = None;
        inbox.deliver(Content::Filler(200_000));
    });
    let mut client = Gate::new(&server).connect();
    ok(client.log_in().await);
    for number in [1, 4, 2] {
        ok(client.ask(&format!("RETR {number}")).await);
        let octets = server.with("tim", "INBOX", |inbox| inbox.messages[number - 1].content.octets());
        assert!(client.body().await.unwrap() == stuffed(&octets), "{number}");
    }
    ok(client.ask("QUIT").await);
    client.leave().await;
    assert_eq!(server.connections(), 1);
}
