//! The IMAP room against the scripted server, below POP3: what a server does, and what is made of it. Only here are the
//! faults of single commands told apart from one another.

use std::{sync::Arc, time::Duration};

use popgate::{
    mail::{Changes, Credentials, Deletion, Proof, Secret, Snapshot, Uid},
    upstream::{
        Extent, Fault, Mailbox, Piece, Settled, Upstream, Verdict, Window,
        imap::{Deleted, Imap, ImapMailbox, OnDelete, Settings},
        warm::Renew,
    },
};

use crate::support::{
    gate,
    script::{Account, Content, Mailbox as Folder, Manner, Order, Server, What},
};

async fn open_with(server: &Server, settings: Settings) -> Result<(ImapMailbox, Arc<Snapshot>), Fault> {
    let imap = Imap::new(settings, Arc::new(gate::Pipes(server.clone(), 1024)), None);
    let who = Credentials::new("tim".into(), Proof::Password(Secret::new(b"sec ret".to_vec())));
    imap.open(&Arc::new(who)).await
}

async fn open(server: &Server) -> Result<(ImapMailbox, Arc<Snapshot>), Fault> {
    open_with(server, gate::upstream()).await
}

fn uid(value: u32) -> Uid {
    Uid::new(value).unwrap()
}

fn listed(snapshot: &Snapshot) -> Vec<(u32, u64)> {
    let message = |index| snapshot.message(index).unwrap();
    (0..snapshot.len()).map(message).map(|message| (message.uid.value(), message.octets)).collect()
}

/// The octets of a message, `None` if it is gone.
async fn whole(mailbox: &mut ImapMailbox, value: u32) -> Result<Option<Vec<u8>>, Fault> {
    let Some(mut body) = mailbox.fetch(uid(value)).await? else { return Ok(None) };
    let mut octets = Vec::new();
    while let Some(chunk) = body.next().await? {
        octets.extend_from_slice(chunk);
    }
    Ok(Some(octets))
}

fn delete(uids: &[u32]) -> Changes {
    Changes { delete: uids.iter().copied().map(uid).collect(), seen: Vec::new() }
}

fn commands(server: &Server) -> Vec<String> {
    server.received().into_iter().map(|received| received.text).collect()
}

const FX: [(u32, u64); 3] = [(5, 120), (7, 200), (9, 300)];

#[tokio::test(start_paused = true)]
async fn every_manner_of_logging_in_ends_in_the_same_listing() {
    let before = |before: &str| Manner { before: before.into(), ..Manner::default() };
    for (manner, expected) in [
        (Manner::default(), "AUTHENTICATE PLAIN AHRpbQBzZWMgcmV0"),
        (Manner { tells: false, ..Manner::default() }, "CAPABILITY"),
        (before("IMAP4rev1 AUTH=PLAIN"), "AHRpbQBzZWMgcmV0"),
        (before("IMAP4rev1"), "LOGIN \"tim\" \"sec ret\""),
        (Manner { uid_last: true, ..Manner::default() }, "SELECT INBOX"),
    ] {
        let server = Server::fixture(manner);
        let (mailbox, snapshot) = open(&server).await.unwrap();
        assert_eq!(listed(&snapshot), FX);
        assert_eq!(snapshot.deletion(), Deletion::Allowed);
        mailbox.leave().await;
        let commands = commands(&server);
        assert!(commands.iter().any(|command| command == expected), "{commands:?}");
        assert!(commands.iter().filter(|command| *command == "CAPABILITY").count() <= 2, "{commands:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_password_is_not_sent_one() {
    let server = Server::fixture(Manner { before: "IMAP4rev1 LOGINDISABLED".into(), ..Manner::default() });
    assert_eq!(open(&server).await.err().unwrap().verdict, Verdict::Lasting);
    assert_eq!(commands(&server), Vec::<String>::new());
}

/// Whatever happens on the way to the listing: a fault, and never `Denied` unless the server means it.
#[tokio::test(start_paused = true)]
async fn no_listing_is_better_than_a_short_one() {
    use Verdict::{Busy, Changed, Denied, Lasting, Passing};
    let no = |text: &str| What::No(text.into());
    for (on, what, verdict) in [
        ("GREETING", What::Say(b"* BYE overloaded\r\n".to_vec()), Passing),
        ("GREETING", What::Say(b"* PREAUTH welcome\r\n".to_vec()), Lasting),
        ("GREETING", What::Say(b"HTTP/1.1 400 Bad Request\r\n".to_vec()), Passing),
        ("GREETING", What::Say(b"\x15\x03\x01\x00\x02\x02\x28\r\n".to_vec()), Passing),
        ("GREETING", What::Mute, Passing),
        ("GREETING", What::Close, Passing),
        ("AUTHENTICATE", no("[AUTHENTICATIONFAILED] no"), Denied),
        ("AUTHENTICATE", no("[UNAVAILABLE] later"), Passing),
        ("AUTHENTICATE", no("[INUSE] other session"), Busy),
        ("AUTHENTICATE", What::Bad("Command Argument Error. 12".into()), Passing),
        ("AUTHENTICATE", What::Bye("enough".into()), Passing),
        ("AUTHENTICATE", What::Close, Passing),
        ("AUTHENTICATE", What::Mute, Passing),
        ("AUTHENTICATE", What::Say(b"A9999 OK not yours\r\n".to_vec()), Passing),
        ("AUTHENTICATE", What::Say(b"* 3 EXISTS\r\n+ \r\n$ NO [AUTHENTICATIONFAILED] no\r\n".to_vec()), Passing),
        // Only the reply with our tag counts.
        ("AUTHENTICATE", What::Say(b"A9999 NO [AUTHENTICATIONFAILED] no\r\n* BYE\r\n".to_vec()), Passing),
        ("SELECT", no("plain"), Passing),
        ("SELECT", no("[NONEXISTENT] no INBOX"), Lasting),
        ("SELECT", no("[INUSE] locked"), Busy),
        ("SELECT", no("[AUTHENTICATIONFAILED] odd"), Passing),
        ("SELECT", What::Bye("enough".into()), Passing),
        ("SELECT", What::Close, Passing),
        ("SELECT", What::Mute, Passing),
        ("SELECT", What::Cut(10), Passing),
        ("SELECT", What::Say(b"$ OK nothing to say\r\n".to_vec()), Passing),
        ("SELECT", What::Say(b"* 3 EXISTS\r\n* OK [UIDVALIDITY 0] .\r\n$ OK .\r\n".to_vec()), Passing),
        ("UID FETCH", no("plain"), Passing),
        ("UID FETCH", What::Bad("odd".into()), Passing),
        ("UID FETCH", What::Close, Passing),
        ("UID FETCH", What::Cut(50), Passing),
        ("UID FETCH", What::Stall(50), Passing),
        ("UID FETCH", What::Say(b"* 1 FETCH (UID 0 RFC822.SIZE 1)\r\n$ OK .\r\n".to_vec()), Passing),
        ("UID FETCH", What::Say([b"* 1 FETCH (UID 5 X ".as_slice(), &[b'x'; 70_000]].concat()), Passing),
        ("UID FETCH", What::Say(b"* 1 FETCH (UID 5 ENVELOPE {536862720}\r\nabc".to_vec()), Passing),
        ("UID FETCH", What::Say(b"+ go ahead\r\n".to_vec()), Passing),
        // What the server said when the mailbox was selected must still be so when it has been listed.
        ("UID FETCH", What::Before(b"* OK [UIDVALIDITY 101] new\r\n".to_vec()), Changed),
        ("UID FETCH", What::Before(b"* OK [CLOSED] gone\r\n".to_vec()), Changed),
        ("UID FETCH", What::Say(b"* 0 EXISTS\r\n$ OK .\r\n".to_vec()), Passing),
        // More than a maildrop may hold: neither room for them all nor a list without some.
        ("SELECT", What::Say(b"* 4294967295 EXISTS\r\n$ OK .\r\n".to_vec()), Lasting),
        ("SELECT", What::Say(b"* 4294967296 EXISTS\r\n$ OK .\r\n".to_vec()), Passing),
        ("UID FETCH", What::Before(b"* 3 EXPUNGE\r\n* 4294967295 EXISTS\r\n".to_vec()), Passing),
    ] {
        let shown = format!("{on}: {}", shown(&what));
        let server = Server::fixture(Manner::default().deviating(on, 0, what));
        match open(&server).await {
            Ok((_, snapshot)) => panic!("{shown}: listed {:?}", listed(&snapshot)),
            Err(fault) => assert_eq!(fault.verdict, verdict, "{shown}: {fault}"),
        }
    }
}

/// J-34: a message that cannot be read hides no other, wherever it is and however the server refuses it. A server that lists
/// none is asked for few.
#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_hides_no_other() {
    let scattered: Vec<u32> = (1..=10).map(|message| message * 100).collect();
    let tail: Vec<u32> = (989..=999).collect();
    for (gives_what_it_can, message_limit) in [(true, None), (false, None), (true, Some(60))] {
        for (unreadable, expected) in [
            (vec![500], Some(30)),
            (vec![1], Some(30)),
            (vec![1000], Some(30)),
            (vec![1, 2, 999, 1000], Some(50)),
            ((1..=10).collect(), Some(50)),
            (scattered.clone(), Some(180)),
            (tail.clone(), None),
            ((1..=1000).collect(), None),
        ] {
            let shown = format!("{unreadable:?}, {gives_what_it_can}, {message_limit:?}");
            let server = Server::fixture(Manner { gives_what_it_can, message_limit, ..Manner::default() });
            server.with("tim", "INBOX", |inbox| {
                *inbox = Folder::new("INBOX", "");
                (1..=1000).for_each(|octets| _ = inbox.deliver(Content::Filler(octets)));
                inbox.unreadable.clone_from(&unreadable);
            });
            let opened = open(&server).await;
            let asked = commands(&server).len();
            match (opened, expected) {
                (Ok((mut mailbox, snapshot)), Some(most)) => {
                    let readable: Vec<u32> = (1..=1000).filter(|uid| !unreadable.contains(uid)).collect();
                    assert!(
                        listed(&snapshot).into_iter().eq(readable.iter().map(|uid| (*uid, u64::from(*uid)))),
                        "{shown}"
                    );
                    assert!(asked <= most || message_limit.is_some(), "{shown}: {asked} commands");
                    assert!(matches!(mailbox.settle(&delete(&readable)).await, Settled::Done), "{shown}");
                    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.uids()), unreadable);
                }
                (Err(fault), None) => {
                    assert_eq!(fault.verdict, Verdict::Passing, "{shown}: {fault}");
                    assert!(asked <= 60 || message_limit.is_some(), "{shown}: {asked} commands");
                }
                (opened, _) => panic!("{shown}: {:?}", opened.map(|(_, snapshot)| snapshot.len())),
            }
        }
    }
}

/// A listing ends, even where the server gives each message and no two of them.
#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_all_sets_is_not_asked_for_each_message() {
    let sets = (1..=1000).map(|first| format!("UID FETCH {first},")).chain(["UID FETCH 1:*".to_owned()]);
    let manner =
        sets.fold(Manner::default(), |manner, set| manner.deviating(&set, 0, What::No("one at a time".into())));
    let server = Server::fixture(manner);
    server.with("tim", "INBOX", |inbox| {
        *inbox = Folder::new("INBOX", "");
        (1..=1000).for_each(|octets| _ = inbox.deliver(Content::Filler(octets)));
    });
    let fault = open(&server).await.err().unwrap();
    assert!(fault.cause.contains("one at a time"), "{fault}");
    let asked = commands(&server).len();
    assert!((200..300).contains(&asked), "{asked} commands");
}

fn shown(what: &What) -> String {
    match what {
        What::Say(octets) => String::from_utf8_lossy(&octets[..octets.len().min(60)]).into_owned(),
        What::No(text) => format!("NO {text}"),
        What::Bad(text) => format!("BAD {text}"),
        _ => "another".into(),
    }
}

/// What a server may say besides, at any time: it changes nothing.
#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_is_passed_over() {
    let deep = format!("* 1 FETCH (BODYSTRUCTURE {})\r\n", "(".repeat(5_000) + &")".repeat(5_000));
    for line in [
        "* 2 FETCH (FLAGS (\\Seen))\r\n",
        "* 4 RECENT\r\n",
        "* ESEARCH (TAG \"x\") UID COUNT 7\r\n",
        "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n",
        "* XFOO bar\r\n",
        "\r\n",
        "* 1 FETCH ()\r\n",
        "* SEARCH 2 (MODSEQ 9)\r\n",
        "* VANISHED (EARLIER) 1:4\r\n",
        "* 1 FETCH (INTERNALDATE NIL)\r\n",
        "* OK [ALERT]\u{e9}\r\n",
        "* OK\r\n",
        "* OK foo {12}\r\n",
        "* NO [ALERT] disk 90% full\r\n",
        "* CAPABILITY IMAP4rev1  SASL-IR\r\n",
        "* CAPABILITY IMAP4rev2\r\n",
        "* STATUS INBOX (MESSAGES 3 SIZE 620) \r\n",
        "* LIST () \"/\" {3}\r\na\nb\r\n",
        "* 1 FETCH (X-FOO {5}\r\n)\r\na1 Y (\"a)\" 1))\r\n",
        "* ID NIL\n",
        "* OK LF only\n",
        &deep,
    ] {
        for command in ["SELECT", "UID FETCH 1:*", "UID FETCH 7", "UID STORE", "UID EXPUNGE", "UID SEARCH"] {
            let what = What::Before(line.into());
            let server = Server::fixture(Manner::default().deviating(command, 0, what));
            let (mut mailbox, snapshot) = open(&server).await.unwrap_or_else(|fault| panic!("{line}: {fault}"));
            assert_eq!(listed(&snapshot), FX, "{line} before {command}");
            let body = whole(&mut mailbox, 7).await.unwrap_or_else(|fault| panic!("{line}: {fault}"));
            assert_eq!(body.unwrap().len(), 200);
            let settled = mailbox.settle(&delete(&[5, 9])).await;
            assert!(matches!(settled, Settled::Done), "{line} before {command}: {settled:?}");
            assert_eq!(server.with("tim", "INBOX", |mailbox| mailbox.uids()), [7]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_whole_or_not_at_all() {
    let large = Content::new([b"Subject: large\r\n\r\n".as_slice(), &b"0123456789\r\n".repeat(20_000)].concat());
    for (content, cut) in [(Content::new(b"Subject: small\r\n\r\nx\r\n"), 40), (large, 100_000)] {
        for order in [Order::Each, Order::Fours, Order::End, Order::Reversed] {
            let server = Server::new(Manner { order, ..Manner::default() }, vec![account(content.clone())]);
            let (mut mailbox, _) = open(&server).await.unwrap();
            assert_eq!(whole(&mut mailbox, 5).await.unwrap().unwrap(), content.octets());
        }
        for what in [
            What::Cut(cut),
            What::Stall(cut),
            What::Cut(content.len() + 35),
            What::Tagged(b"$ NO [SERVERBUG] half\r\n".to_vec()),
            What::Tagged(b"* BYE oh\r\n".to_vec()),
            What::Literal(100),
            What::Literal(-5),
        ] {
            let server =
                Server::new(Manner::default().deviating("UID FETCH 5", 1, what), vec![account(content.clone())]);
            let (mut mailbox, _) = open(&server).await.unwrap();
            match whole(&mut mailbox, 5).await {
                Ok(octets) => assert_eq!(octets.unwrap(), content.octets()),
                Err(fault) => assert_eq!(fault.verdict, Verdict::Passing),
            }
        }
    }
}

fn account(content: Content) -> Account {
    let mut account = Account::fixture();
    account.mailboxes[0].messages[0].reported = content.len();
    account.mailboxes[0].messages[0].content = content;
    account
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_none_is_no_empty_message() {
    for (what, gone) in [
        (What::Body("NIL"), false),
        (What::Body("\"\""), false),
        (What::Bodiless, false),
        (What::No("[SERVERBUG] oh".into()), false),
        (What::Bad("odd".into()), false),
        (What::Say(b"$ OK but nothing\r\n".to_vec()), false),
        (What::Act(Arc::new(|account| account.mailboxes[0].expunge(7))), true),
    ] {
        let server = Server::fixture(Manner::default().deviating("UID FETCH 7", 1, what));
        let (mut mailbox, _) = open(&server).await.unwrap();
        match whole(&mut mailbox, 7).await {
            Ok(None) => assert!(gone),
            Ok(Some(octets)) => panic!("a message of {} octets", octets.len()),
            Err(fault) => assert!(!gone && fault.verdict == Verdict::Passing, "{fault}"),
        }
        assert_eq!(whole(&mut mailbox, 9).await.unwrap().unwrap().len(), 300, "the next one is not hurt");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_line_is_replaced_once() {
    let server = Server::fixture(Manner::default().deviating("UID FETCH 7", 1, What::Close));
    let (mut mailbox, _) = open(&server).await.unwrap();
    assert_eq!(whole(&mut mailbox, 7).await.unwrap().unwrap().len(), 200);
    assert_eq!(server.connections(), 2);
    // Deletions after that are verified first.
    assert!(matches!(mailbox.settle(&delete(&[7])).await, Settled::Done));
    let commands = commands(&server);
    let verify = commands.iter().position(|command| command == "UID FETCH 7 (RFC822.SIZE)").unwrap();
    assert!(verify < commands.iter().position(|command| command.starts_with("UID STORE")).unwrap());

    let server = Server::fixture(Manner::default().deviating("UID FETCH 7", 0, What::Close));
    let (mut mailbox, _) = open(&server).await.unwrap();
    assert_eq!(whole(&mut mailbox, 7).await.unwrap_err().verdict, Verdict::Passing);
    assert_eq!(server.connections(), 2, "no more than once in a minute");
}

#[tokio::test(start_paused = true)]
async fn another_uidvalidity_is_another_mailbox() {
    let renewed = |account: &mut Account| account.mailboxes[0].uid_validity = Some(101);
    let manner =
        Manner::default().deviating("UID FETCH 7", 1, What::Close).deviating("SELECT", 2, What::Act(Arc::new(renewed)));
    let server = Server::fixture(manner);
    let (mut mailbox, _) = open(&server).await.unwrap();
    assert!(whole(&mut mailbox, 7).await.is_err());
    assert!(matches!(mailbox.settle(&delete(&[5])).await, Settled::Changed(_)));
    assert!(!commands(&server).iter().any(|command| command.contains("STORE")));

    let say = What::Before(b"* OK [UIDVALIDITY 101] new\r\n".to_vec());
    let server = Server::fixture(Manner::default().deviating("UID FETCH 7", 1, say));
    let (mut mailbox, _) = open(&server).await.unwrap();
    let _ = whole(&mut mailbox, 7).await;
    assert!(matches!(mailbox.settle(&delete(&[5])).await, Settled::Changed(_)));
    assert_eq!(server.with("tim", "INBOX", |mailbox| mailbox.uids()), [5, 7, 9]);
}

#[tokio::test(start_paused = true)]
async fn top_reads_windows() {
    let content = Content::new(b"0123456789".repeat(1_000));
    let server = Server::new(Manner::default(), vec![account(content.clone())]);
    let (mut mailbox, _) = open(&server).await.unwrap();
    for (offset, length, expected) in [(0, 15, 15), (9_990, 15, 10), (10_000, 15, 0)] {
        let window = Window { offset, length };
        let mut body =
            mailbox.peek(uid(5), window).await.unwrap_or_else(|_| panic!("{:?}", commands(&server))).unwrap();
        assert_eq!(body.octets(), expected);
        assert_eq!(body.next().await.unwrap().map_or(0, <[u8]>::len) as u64, expected);
    }
}

/// What is removed, what is said of it, by what commands, in each way there is to remove.
#[tokio::test(start_paused = true)]
async fn removals_are_proved() {
    let flags = "+FLAGS.SILENT (\\Deleted";
    for (missing, expected, left) in [
        (
            &[][..],
            [format!("UID STORE 5,9 {flags})"), "UID EXPUNGE 5,9".into(), "UID SEARCH RETURN (COUNT) UID 5,9".into()],
            &[7][..],
        ),
        (
            &["ESEARCH"],
            [format!("UID STORE 5,9 {flags})"), "UID EXPUNGE 5,9".into(), "UID SEARCH UID 5,9".into()],
            &[7],
        ),
        (
            &["UIDPLUS"],
            ["UID MOVE 5,9 \"Trash\"".into(), "UID SEARCH RETURN (COUNT) UID 5,9".into(), "LOGOUT".into()],
            &[7],
        ),
        (
            &["UIDPLUS", "MOVE"],
            [
                format!("UID STORE 5,9 {flags} $POP3Deleted)"),
                "UID SEARCH RETURN (COUNT) UID 5,9 UNKEYWORD $POP3Deleted".into(),
                "LOGOUT".into(),
            ],
            &[5, 7, 9],
        ),
    ] {
        let server = Server::fixture(Manner::default().without(missing));
        let (mut mailbox, _) = open(&server).await.unwrap();
        assert!(matches!(mailbox.settle(&delete(&[5, 9])).await, Settled::Done), "without {missing:?}");
        mailbox.leave().await;
        tokio::task::yield_now().await;
        let commands = commands(&server);
        let from =
            commands.iter().position(|command| *command == expected[0]).unwrap_or_else(|| panic!("{commands:?}"));
        assert_eq!(commands[from..from + 3], expected, "without {missing:?}");
        assert_eq!(server.with("tim", "INBOX", |mailbox| mailbox.uids()), left);
        assert!(!commands.iter().any(|command| command == "EXPUNGE" || command == "CLOSE"));
        // Hidden messages are not shown to the next session.
        let (_, snapshot) = open(&server).await.unwrap();
        assert_eq!(listed(&snapshot), [(7, 200)], "without {missing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_removed_is_not_called_removed() {
    let no = |text: &str| What::No(text.into());
    for (on, nth, what, verdict) in [
        ("UID STORE", 0, no("[UNAVAILABLE] later"), Verdict::Passing),
        ("UID STORE", 0, no("[NOPERM] not yours"), Verdict::Lasting),
        ("UID STORE", 0, What::Bad("odd".into()), Verdict::Passing),
        ("UID STORE", 0, What::Close, Verdict::Passing),
        ("UID STORE", 0, What::Mute, Verdict::Passing),
        ("UID EXPUNGE", 0, no("[SERVERBUG] oh"), Verdict::Passing),
        ("UID EXPUNGE", 0, What::Say(b"$ OK done, not\r\n".to_vec()), Verdict::Passing),
        ("UID EXPUNGE", 0, What::Close, Verdict::Passing),
        ("UID SEARCH", 0, no("oh"), Verdict::Passing),
        ("UID SEARCH", 0, What::Bad("oh".into()), Verdict::Passing),
        ("UID SEARCH", 0, What::Tagged(b"$ OK [MESSAGELIMIT 1 9] some\r\n".to_vec()), Verdict::Passing),
        ("UID SEARCH", 0, What::Tagged(b"$ OK [MESSAGELIMIT] some\r\n".to_vec()), Verdict::Passing),
    ] {
        let shown = format!("{on}: {}", shown(&what));
        let server = Server::fixture(Manner::default().deviating(on, nth, what));
        let (mut mailbox, _) = open(&server).await.unwrap();
        match mailbox.settle(&delete(&[5, 9])).await {
            Settled::Partly { left, fault } => {
                assert_eq!(fault.verdict, verdict, "{shown}: {fault}");
                assert_eq!(left, 2, "{shown}");
            }
            settled => panic!("{shown}: {settled:?}"),
        }
        let uids = server.with("tim", "INBOX", |mailbox| mailbox.uids());
        assert!(uids.contains(&7), "{shown}: nothing else may go");
    }
}

/// A line that breaks once in an UPDATE costs nothing: every step can be repeated.
#[tokio::test(start_paused = true)]
async fn an_update_is_repeated_on_a_new_line() {
    for on in ["UID STORE", "UID EXPUNGE", "UID SEARCH"] {
        for what in [What::Close, What::Cut(0), What::Cut(3), What::Bye("oh".into())] {
            let server = Server::fixture(Manner::default().deviating(on, 1, what));
            let (mut mailbox, _) = open(&server).await.unwrap();
            let settled = mailbox.settle(&delete(&[5, 9])).await;
            assert!(matches!(settled, Settled::Done), "{on}: {settled:?}");
            assert_eq!(server.with("tim", "INBOX", |mailbox| mailbox.uids()), [7]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_uid_expunge_is_remembered() {
    let server = Server::fixture(Manner::default().deviating("UID EXPUNGE", 0, What::Bad("unknown".into())));
    let (mut mailbox, _) = open(&server).await.unwrap();
    assert!(matches!(mailbox.settle(&delete(&[5, 9])).await, Settled::Done));
    let (_, snapshot) = open(&server).await.unwrap();
    assert_eq!(listed(&snapshot), [(7, 200)]);
}

#[tokio::test(start_paused = true)]
async fn what_quit_could_not_keep_is_not_promised() {
    let deletion = async |manner: Manner, change: &dyn Fn(&mut Account), settings: Settings| {
        let mut account = Account::fixture();
        change(&mut account);
        let server = Server::new(manner, vec![account]);
        open_with(&server, settings).await.unwrap().1.deletion()
    };
    let poor = || Manner::default().without(&["UIDPLUS", "MOVE"]);
    let ignoring = || Settings { on_delete: Some(OnDelete::Ignore), ..gate::upstream() };
    let read_only = |account: &mut Account| account.mailboxes[0].read_only = true;
    let no_keyword = |account: &mut Account| account.mailboxes[0].permanent = "\\Seen \\Deleted".into();
    let no_deleted = |account: &mut Account| account.mailboxes[0].permanent = "\\Seen \\*".into();
    let gmail = || {
        let mut manner = Manner::default();
        manner.after.push_str(" X-GM-EXT-1");
        manner
    };
    let nothing = |_: &mut Account| {};
    let no_trash = |account: &mut Account| account.mailboxes.truncate(1);
    assert_eq!(deletion(Manner::default(), &read_only, gate::upstream()).await, Deletion::ReadOnly);
    assert_eq!(deletion(Manner::default(), &no_deleted, gate::upstream()).await, Deletion::ReadOnly);
    assert_eq!(deletion(Manner::default(), &read_only, ignoring()).await, Deletion::Allowed);
    assert_eq!(deletion(poor(), &no_keyword, gate::upstream()).await, Deletion::Unsupported);
    assert_eq!(deletion(poor(), &nothing, gate::upstream()).await, Deletion::Allowed);
    assert_eq!(deletion(gmail(), &nothing, gate::upstream()).await, Deletion::Allowed);
    assert_eq!(deletion(gmail(), &no_trash, gate::upstream()).await, Deletion::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn mailboxes_without_lasting_uids_serve_one_line() {
    let mut account = Account::fixture();
    account.mailboxes[0].sticky = false;
    let server = Server::new(Manner::default().deviating("UID FETCH 7", 1, What::Close), vec![account]);
    let (mut mailbox, snapshot) = open(&server).await.unwrap();
    assert_eq!(snapshot.uid_validity(), None);
    assert!(whole(&mut mailbox, 7).await.is_err());
    assert!(matches!(mailbox.settle(&delete(&[5])).await, Settled::Changed(_)));
    assert_eq!(server.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn others_deleted_flag_shows_or_hides() {
    for (deleted, expected) in [(Deleted::Show, &FX[..]), (Deleted::Own, &FX), (Deleted::Hide, &FX[1..])] {
        let server = Server::fixture(Manner::default());
        server.with("tim", "INBOX", |mailbox| mailbox.flag(5, "\\Deleted"));
        let (mut mailbox, snapshot) = open_with(&server, Settings { deleted, ..gate::upstream() }).await.unwrap();
        assert_eq!(listed(&snapshot), expected);
        // Hidden or not: what was not asked for stays, though it is flagged.
        assert!(matches!(mailbox.settle(&delete(&[7, 9])).await, Settled::Done));
        assert_eq!(server.with("tim", "INBOX", |mailbox| mailbox.uids()), [5]);
    }
}

/// After a lost line, a message is gone only if a search says so: not because a listing leaves it out.
#[tokio::test(start_paused = true)]
async fn what_a_listing_leaves_out_is_not_gone() {
    for listing in [
        &b"* 1 FETCH (UID 5 RFC822.SIZE 120)\r\n$ OK .\r\n"[..],
        b"* 3 FETCH (UID 5 RFC822.SIZE 120)\r\n$ OK [MESSAGELIMIT 1 5] .\r\n",
        b"* 3 FETCH (UID 5 RFC822.SIZE 120)\r\n* 3 FETCH (UID 9)\r\n$ OK .\r\n",
    ] {
        let manner = Manner::default().deviating("UID FETCH 7", 1, What::Close).deviating(
            "UID FETCH 5,9 (RFC822.SIZE)",
            1,
            What::Say(listing.to_vec()),
        );
        let server = Server::fixture(manner);
        let (mut mailbox, _) = open(&server).await.unwrap();
        assert_eq!(whole(&mut mailbox, 7).await.unwrap().unwrap().len(), 200);
        let settled = mailbox.settle(&delete(&[5, 9])).await;
        assert!(matches!(settled, Settled::Partly { left: 1, .. }), "{settled:?}");
        assert_eq!(server.with("tim", "INBOX", |mailbox| mailbox.uids()), [7, 9]);
    }
    let gone: Arc<dyn Fn(&mut Account) + Send + Sync> = Arc::new(|account| account.mailboxes[0].expunge(9));
    let manner = Manner::default().deviating("UID FETCH 7", 1, What::Close).deviating(
        "UID FETCH 5,9 (RFC822.SIZE)",
        1,
        What::Act(gone),
    );
    let server = Server::fixture(manner);
    let (mut mailbox, _) = open(&server).await.unwrap();
    assert_eq!(whole(&mut mailbox, 7).await.unwrap().unwrap().len(), 200);
    assert!(matches!(mailbox.settle(&delete(&[5, 9])).await, Settled::Done));
}

/// Names of mailboxes come from whoever may share one: their octets are never read as responses.
#[tokio::test(start_paused = true)]
async fn the_name_of_a_mailbox_is_no_response() {
    let evil = b"* LIST () \"/\" {30}\r\nx\r\n* 0 EXISTS\r\nA0003 OK done\r\n\r\n".to_vec();
    let server = Server::fixture(Manner::default().without(&["UIDPLUS"]).deviating("LIST", 1, What::Before(evil)));
    let (mut mailbox, snapshot) = open(&server).await.unwrap();
    assert_eq!(listed(&snapshot), FX);
    assert!(matches!(mailbox.settle(&delete(&[5])).await, Settled::Done));
    assert_eq!(server.with("tim", "Trash", |mailbox| mailbox.uids().len()), 1);
}

/// Some servers put an empty line behind a literal. If the literal has not as many octets as are listed, the line may be
/// the rest of it.
#[tokio::test(start_paused = true)]
async fn an_empty_line_behind_a_body_is_passed_over() {
    for (octets, is_whole) in [(120, true), (118, false), (122, false)] {
        let reply = format!("* 1 FETCH (UID 5 BODY[] {{{octets}}}\r\n{}\r\n)\r\n$ OK .\r\n", "x".repeat(octets));
        let server = Server::fixture(Manner::default().deviating("UID FETCH 5", 1, What::Say(reply.into_bytes())));
        let (mut mailbox, _) = open(&server).await.unwrap();
        let read = whole(&mut mailbox, 5).await;
        assert_eq!(read.is_ok_and(|body| body.is_some_and(|body| body.len() == octets)), is_whole, "{octets}");
    }
}

/// E.8: what was fetched ahead and does not come must not cost the time in which messages are to be removed.
#[tokio::test(start_paused = true)]
async fn an_update_does_not_wait_for_what_was_fetched_ahead() {
    let server = Server::fixture(Manner::default().deviating("UID FETCH 7,9 (BODY", 1, What::Stall(10)));
    let (mut mailbox, _) = open(&server).await.unwrap();
    let piece = |value| Piece { uid: uid(value), window: None };
    mailbox.ahead([5, 7, 9].map(piece).into_iter(), std::iter::empty());
    assert!(whole(&mut mailbox, 5).await.unwrap().is_some());
    let begun = tokio::time::Instant::now();
    assert!(matches!(mailbox.settle(&delete(&[5])).await, Settled::Done));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.uids()), [7, 9]);
}

/// Where the maildrop is itself the trash, moving there would give the messages new UIDs and call them gone.
#[tokio::test(start_paused = true)]
async fn nothing_is_moved_to_where_it_is() {
    let mut account = Account::fixture();
    account.mailboxes.truncate(1);
    account.mailboxes[0].attributes = "\\HasNoChildren \\Trash".into();
    let server = Server::new(Manner::default().without(&["UIDPLUS"]), vec![account]);
    let (mut mailbox, _) = open(&server).await.unwrap();
    assert!(matches!(mailbox.settle(&delete(&[5, 9])).await, Settled::Done));
    assert!(!commands(&server).iter().any(|command| command.contains("MOVE")));
    let (_, snapshot) = open(&server).await.unwrap();
    assert_eq!(listed(&snapshot), [(7, 200)]);
}

/// A message that the listing misses must be found out even where the numbers agree by chance: a range could cover it.
#[tokio::test(start_paused = true)]
async fn a_listing_during_which_messages_went_is_compared() {
    let listing =
        b"* 1 FETCH (UID 5 RFC822.SIZE 120)\r\n* 3 FETCH (UID 9 RFC822.SIZE 300)\r\n* 1 EXPUNGE\r\n$ OK .\r\n";
    let found = b"* ESEARCH (TAG \"$\") UID ALL 7,9\r\n$ OK .\r\n";
    let manner = Manner::default().deviating("UID FETCH 1:*", 1, What::Say(listing.to_vec())).deviating(
        "UID SEARCH",
        1,
        What::Say(found.to_vec()),
    );
    let server = Server::fixture(manner);
    let (_, snapshot) = open(&server).await.unwrap();
    assert_eq!(listed(&snapshot), FX[1..]);
}

/// Before the credentials have been sent nothing can be wrong with them.
#[tokio::test(start_paused = true)]
async fn a_refusal_before_log_in_says_nothing_of_the_password() {
    let manner = Manner { tells: false, ..Manner::default() };
    let server = Server::fixture(manner.deviating("CAPABILITY", 1, What::No("not now".into())));
    assert_eq!(open(&server).await.err().unwrap().verdict, Verdict::Passing);
}

/// Who lets us in before we have said who we are has taken us for somebody else.
#[tokio::test(start_paused = true)]
async fn a_log_in_is_not_over_before_it_has_been_sent() {
    let manner = Manner { before: "IMAP4rev1 AUTH=PLAIN".into(), ..Manner::default() };
    let server = Server::fixture(manner.deviating("AUTHENTICATE", 1, What::Say(b"$ OK in\r\n".to_vec())));
    let fault = open(&server).await.err().unwrap();
    assert!(fault.verdict == Verdict::Passing && fault.cause.contains("before"), "{fault}");
    assert_eq!(commands(&server), ["AUTHENTICATE PLAIN"]);
}

/// A body must be what was asked for: the whole, or the part from there on.
#[tokio::test(start_paused = true)]
async fn a_part_is_not_taken_for_another() {
    let say = |text: &str| What::Say(text.replace('\n', "\r\n").into());
    for (reply, whole_message) in [
        ("* 1 FETCH (UID 5 BODY[]<0> {3}\nabc)\n$ OK .\n", true),
        ("* 1 FETCH (UID 5 BODY[]<0> \"abc\")\n$ OK .\n", true),
        ("* 1 FETCH (UID 5 BODY[]<0> {3}\nabc)\n$ OK .\n", false),
        ("* 1 FETCH (UID 5 BODY[]<20> \"abc\")\n$ OK .\n", false),
    ] {
        let server = Server::fixture(Manner::default().deviating("UID FETCH 5", 1, say(reply)));
        let (mut mailbox, _) = open(&server).await.unwrap();
        let fault = match whole_message {
            true => whole(&mut mailbox, 5).await.err(),
            false => mailbox.peek(uid(5), Window { offset: 10, length: 10 }).await.err(),
        };
        assert!(fault.is_some(), "{reply}");
    }
    // Behind the end there is nothing, wherever the server thinks that is.
    for reply in ["* 1 FETCH (UID 5 BODY[] {0}\n)\n$ OK .\n", "* 1 FETCH (UID 5 BODY[] \"\")\n$ OK .\n"] {
        let server = Server::fixture(Manner::default().deviating("UID FETCH 5", 1, say(reply)));
        let (mut mailbox, _) = open(&server).await.unwrap();
        let body = mailbox.peek(uid(5), Window { offset: 120, length: 10 }).await.unwrap().unwrap();
        assert_eq!((body.octets(), body.extent()), (0, Extent::Part), "{reply}");
    }
}

/// What a server repeats of the log-in does not come into the log.
#[tokio::test(start_paused = true)]
async fn a_server_that_repeats_the_password_is_not_quoted() {
    for (on, before, text) in [
        ("AUTHENTICATE", "IMAP4rev1 SASL-IR AUTH=PLAIN", "unknown: AUTHENTICATE PLAIN AHRpbQBzZWMgcmV0"),
        ("AUTHENTICATE", "IMAP4rev1 SASL-IR AUTH=PLAIN", "no such password: sec ret"),
        ("LOGIN", "IMAP4rev1", "unknown: LOGIN \"tim\" \"sec ret\""),
    ] {
        for what in [What::Bad(text.into()), What::No(text.into()), What::Bye(text.into())] {
            let server = Server::fixture(Manner { before: before.into(), ..Manner::default() }.deviating(on, 0, what));
            let fault = open(&server).await.err().unwrap();
            assert!(fault.cause.ends_with("(it repeats the credentials)"), "{fault}");
        }
    }
}

/// F-19: a line that waits for the next session of its user keeps nobody's password.
#[tokio::test(start_paused = true)]
async fn a_line_that_waits_has_no_credentials() {
    let imap = Imap::new(gate::upstream(), Arc::new(gate::Pipes(Server::fixture(Manner::default()), 1024)), None);
    let who = Arc::new(Credentials::new("tim".into(), Proof::Password(Secret::new(b"sec ret".to_vec()))));
    let (mut mailbox, _) = imap.open(&who).await.unwrap();
    assert_eq!(Arc::strong_count(&who), 2);
    assert!(mailbox.lay_down().await);
    assert_eq!(Arc::strong_count(&who), 1);
    mailbox.renew(&who).await.unwrap();
    assert_eq!(whole(&mut mailbox, 5).await.unwrap().map(|octets| octets.len()), Some(120));
    mailbox.leave().await;
}

/// E.5: an update that takes too long is refused, but what was asked for is not stopped between flagging and expunging.
#[tokio::test(start_paused = true)]
async fn what_an_update_has_asked_for_is_carried_out() {
    let manner = Manner::default().deviating("UID STORE", 1, What::Drip(1, Duration::from_secs(5)));
    let server = Server::fixture(manner);
    let (mut mailbox, _) = open(&server).await.unwrap();
    assert!(matches!(mailbox.settle(&delete(&[5, 7])).await, Settled::Partly { left: 2, .. }));
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.uids()), [5, 7, 9]);
    mailbox.leave().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(server.with("tim", "INBOX", |inbox| inbox.uids()), [9]);
}
