//! Lines that stay open between sessions: when one is lent, when it is not, and that nobody ever reads what is somebody
//! else's. Only here does a second session begin on the line of the first.

use std::{sync::Arc, time::Duration};

use popgate::{
    mail::{Changes, Credentials, Deletion, Proof, Secret, Snapshot, Uid},
    upstream::{
        Fault, Mailbox as _, Piece, Settled, Upstream, Verdict,
        cache::{Cached, Listings},
        imap::{Imap, ImapMailbox},
        warm::{Counts, Kept, Room, Settings, Warm},
    },
};
use proptest::{collection::vec, prelude::*};
use tokio::time::sleep;

use crate::support::{
    gate,
    script::{Account, Content, Manner, Server, What},
};

type Upper = Warm<Cached<Imap>>;

const TTL: Duration = Duration::from_secs(60);
const AUTH_TTL: Duration = Duration::from_secs(100);

fn warm(server: &Server) -> Upper {
    within(&Room::new(100), server)
}

fn within(room: &Room, server: &Server) -> Upper {
    let imap = Imap::new(gate::upstream(), Arc::new(gate::Pipes(server.clone(), 1024)), None);
    let settings = Settings { ttl: TTL, auth_ttl: AUTH_TTL };
    Warm::new(Cached::new(imap, "here", Listings::new(1 << 20)), settings, room.clone())
}

fn user(name: &str, password: &str) -> Arc<Credentials> {
    Arc::new(Credentials::new(name.into(), Proof::Password(Secret::new(password.into()))))
}

async fn open(upstream: &Upper) -> Result<(Kept<ImapMailbox>, Arc<Snapshot>), Fault> {
    upstream.open(&user("tim", "sec ret")).await
}

fn uids(snapshot: &Snapshot) -> Vec<u32> {
    snapshot.uids().iter().map(|uid| uid.value()).collect()
}

fn commands(server: &Server) -> Vec<String> {
    server.received().into_iter().map(|received| received.text).collect()
}

fn delete(value: u32) -> Changes {
    Changes { delete: Uid::new(value).into_iter().collect(), seen: Vec::new() }
}

/// H.5: one flight, and everything that happened meanwhile is in the listing.
#[tokio::test(start_paused = true)]
async fn a_second_session_begins_with_noop() {
    let server = Server::fixture(Manner::default());
    let room = Room::new(100);
    let upstream = within(&room, &server);
    let (mailbox, _) = open(&upstream).await.unwrap();
    mailbox.leave().await;
    assert_eq!((upstream.waiting(), room.counts().waiting), (1, 1));
    let before = server.received().len();
    let (mailbox, snapshot) = open(&upstream).await.unwrap();
    assert_eq!(uids(&snapshot), [5, 7, 9]);
    assert_eq!(commands(&server)[before..], ["NOOP", "UID FETCH 9:* (RFC822.SIZE)"]);
    assert_eq!(upstream.waiting(), 0, "a line that is lent waits for nobody");
    mailbox.leave().await;
    server.with("tim", "INBOX", |inbox| {
        inbox.deliver(Content::Filler(150));
        inbox.expunge(5);
    });
    let (mut mailbox, snapshot) = open(&upstream).await.unwrap();
    assert_eq!(uids(&snapshot), [7, 9, 12]);
    assert!(matches!(mailbox.settle(&delete(9)).await, Settled::Done));
    mailbox.leave().await;
    let (mailbox, snapshot) = open(&upstream).await.unwrap();
    assert_eq!(uids(&snapshot), [7, 12]);
    let Counts { waiting, lent, dropped } = room.counts();
    assert_eq!((server.connections(), waiting, lent, dropped), (1, 0, 3, 0));
    // It is lent to one session at a time.
    let (other, snapshot) = open(&upstream).await.unwrap();
    assert_eq!((uids(&snapshot), server.connections()), (vec![7, 12], 2));
    mailbox.leave().await;
    other.leave().await;
    assert_eq!(upstream.waiting(), 1, "of one user one line waits");
}

/// T40: what waits for somebody who may never come takes nothing from those who come.
#[tokio::test(start_paused = true)]
async fn no_line_waits_beyond_the_room_that_all_upstreams_have_together() {
    let room = Room::new(1);
    let (server, other) = (Server::fixture(Manner::default()), Server::fixture(Manner::default()));
    let (upstream, elsewhere) = (within(&room, &server), within(&room, &other));
    open(&upstream).await.unwrap().0.leave().await;
    open(&elsewhere).await.unwrap().0.leave().await;
    assert_eq!((upstream.waiting(), elsewhere.waiting()), (1, 0));
    // A line that is a session's again has left its room, and so has one that is closed.
    let (mailbox, _) = open(&upstream).await.unwrap();
    open(&elsewhere).await.unwrap().0.leave().await;
    mailbox.leave().await;
    assert_eq!((upstream.waiting(), elsewhere.waiting()), (0, 1));
    sleep(TTL + Duration::from_secs(1)).await;
    open(&upstream).await.unwrap().0.leave().await;
    assert_eq!((upstream.waiting(), elsewhere.waiting()), (1, 0));
    assert_eq!(commands(&other).iter().filter(|command| *command == "LOGOUT").count(), 2);
}

/// F-20: another password, another user, or the same long after: the upstream decides, on a new line.
#[tokio::test(start_paused = true)]
async fn only_the_upstream_lets_anybody_in() {
    let server = Server::fixture(Manner::default());
    let upstream = warm(&server);
    open(&upstream).await.unwrap().0.leave().await;
    for who in [user("tim", "sec re"), user("Tim", "sec ret"), user("tim", "sec rett"), user("timsec", " ret")] {
        assert_eq!(upstream.open(&who).await.err().unwrap().verdict, Verdict::Denied);
    }
    assert_eq!((server.connections(), upstream.waiting()), (5, 1), "a stranger drops no line");
    open(&upstream).await.unwrap().0.leave().await;
    assert_eq!(server.connections(), 5);
    sleep(TTL - Duration::from_secs(1)).await;
    open(&upstream).await.unwrap().0.leave().await;
    assert_eq!(server.connections(), 5);
    // It would wait for another minute, but the password was shown a hundred seconds ago.
    sleep(AUTH_TTL - TTL + Duration::from_secs(2)).await;
    open(&upstream).await.unwrap().0.leave().await;
    assert_eq!(server.connections(), 6);
    sleep(TTL + Duration::from_secs(1)).await;
    assert_eq!(upstream.waiting(), 0);
    assert_eq!(commands(&server).last().unwrap(), "LOGOUT");
}

/// H.2: where the upstream is told of a client's address, what it was told stays true of whoever has the line.
#[tokio::test(start_paused = true)]
async fn a_line_serves_the_address_it_was_opened_for() {
    let server = Server::fixture(Manner::default());
    let upstream = warm(&server);
    let mut connections = Vec::new();
    for address in ["192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.8", "192.0.2.7", ""] {
        let who = Credentials { address: address.parse().ok(), ..(*user("tim", "sec ret")).clone() };
        upstream.open(&Arc::new(who)).await.unwrap().0.leave().await;
        connections.push(server.connections());
    }
    assert_eq!(connections, [1, 1, 2, 2, 3, 4]);
    let told: Vec<_> = commands(&server).into_iter().filter(|command| command.starts_with("ID")).collect();
    assert_eq!(told, ["7", "8", "7"].map(|last| format!("ID (\"x-originating-ip\" \"192.0.2.{last}\")")));
    assert_eq!(upstream.waiting(), 1, "the last of them waits");
}

/// Found by the swarm: FLAGS had no such keyword when the line was opened, and another session had to hide messages.
#[tokio::test(start_paused = true)]
async fn what_was_hidden_meanwhile_stays_hidden() {
    let server = Server::fixture(Manner::default().without(&["UIDPLUS"]));
    let upstream = warm(&server);
    open(&upstream).await.unwrap().0.leave().await;
    server.with("tim", "INBOX", |inbox| inbox.flag(5, "$POP3Deleted"));
    let (_mailbox, snapshot) = open(&upstream).await.unwrap();
    assert_eq!((uids(&snapshot), server.connections()), (vec![7, 9], 1));
}

/// Found by the swarm: the server would not say once where its trash is, and every session on that line was told that
/// nothing can be deleted.
#[tokio::test(start_paused = true)]
async fn a_line_on_which_nothing_can_be_deleted_is_not_kept() {
    let manner = Manner::default().without(&["UIDPLUS"]);
    let mut account = Account::fixture();
    account.mailboxes[0].permanent = "\\Seen \\Deleted".into();
    let server = Server::new(manner.deviating("LIST", 1, What::Bad("what".into())), vec![account]);
    let upstream = warm(&server);
    let (mailbox, snapshot) = open(&upstream).await.unwrap();
    assert_eq!(snapshot.deletion(), Deletion::Unsupported);
    mailbox.leave().await;
    let (_mailbox, snapshot) = open(&upstream).await.unwrap();
    assert_eq!((snapshot.deletion(), server.connections()), (Deletion::Allowed, 2));
}

/// F-21: whatever a line does when it is taken up again, the session has a new one and does not notice.
#[tokio::test(start_paused = true)]
async fn a_line_of_no_use_is_replaced() {
    for (on, what) in [
        ("NOOP", What::Bye("enough".into())),
        ("NOOP", What::Close),
        ("NOOP", What::No("not now".into())),
        ("NOOP", What::Bad("what".into())),
        ("NOOP", What::Mute),
        ("NOOP", What::Say(b"$ OK done\r\nA9999 OK whose\r\n".to_vec())),
        ("NOOP", What::Before(b"* OK [UIDVALIDITY 101] another\r\n".to_vec())),
        ("NOOP", What::Before(b"* 2 EXISTS\r\n".to_vec())),
        ("NOOP", What::Before(b"* OK [CLOSED] gone\r\n".to_vec())),
        ("UID FETCH 9:*", What::Cut(10)),
        ("UID FETCH 9:*", What::Bye("enough".into())),
    ] {
        let server = Server::fixture(Manner::default().deviating(on, 1, what));
        let room = Room::new(100);
        let upstream = within(&room, &server);
        open(&upstream).await.unwrap().0.leave().await;
        let (_, snapshot) = open(&upstream).await.unwrap();
        assert_eq!(uids(&snapshot), [5, 7, 9], "{on}");
        let Counts { lent, dropped, .. } = room.counts();
        assert_eq!((server.connections(), lent, dropped), (2, 0, 1), "{on}");
    }
}

/// What was fetched ahead in vain is read to its end first, if that does not take long.
#[tokio::test(start_paused = true)]
async fn a_line_with_mail_on_its_way_is_kept() {
    let server = Server::fixture(Manner::default());
    let upstream = warm(&server);
    let (mut mailbox, _) = open(&upstream).await.unwrap();
    let piece = |uid| Piece { uid: Uid::new(uid).unwrap(), window: None };
    mailbox.ahead([piece(5)].into_iter(), [piece(7), piece(9)].into_iter());
    mailbox.fetch(Uid::new(5).unwrap()).await.unwrap().unwrap();
    mailbox.leave().await;
    assert_eq!((upstream.waiting(), server.connections()), (1, 1));
    assert_eq!(commands(&server).last().unwrap(), "UID FETCH 7,9 (BODY.PEEK[])");
    let (mut mailbox, _) = open(&upstream).await.unwrap();
    mailbox.fetch(Uid::new(7).unwrap()).await.unwrap().unwrap();
    assert_eq!(server.connections(), 1);
}

/// F-21: what was not read to its end, or went wrong, is not kept.
#[tokio::test(start_paused = true)]
async fn a_line_out_of_step_is_not_kept() {
    let uid = Uid::new(9).unwrap();
    let server = Server::fixture(Manner::default());
    server.with("tim", "INBOX", |inbox| inbox.messages[2].content = Content::Filler(200_000));
    let upstream = warm(&server);
    let (mut mailbox, _) = open(&upstream).await.unwrap();
    let mut body = mailbox.fetch(uid).await.unwrap().unwrap();
    body.next().await.unwrap().unwrap();
    drop(body);
    mailbox.leave().await;
    assert_eq!(upstream.waiting(), 0);

    let server = Server::fixture(Manner::default().deviating("UID FETCH 9 ", 1, What::No("no".into())));
    let upstream = warm(&server);
    let (mut mailbox, _) = open(&upstream).await.unwrap();
    assert!(mailbox.fetch(uid).await.is_err());
    mailbox.leave().await;
    assert_eq!(upstream.waiting(), 0);

    // Where UIDs do not last there is nothing to go on with (C.7).
    let server = Server::fixture(Manner::default());
    server.with("tim", "INBOX", |inbox| inbox.sticky = false);
    let upstream = warm(&server);
    open(&upstream).await.unwrap().0.leave().await;
    assert_eq!(upstream.waiting(), 0);
}

/// What goes wrong upstream, and when: at the how many-th of these commands.
fn trouble() -> impl Strategy<Value = (&'static str, usize, u8, u64)> {
    let on = prop::sample::select(vec!["NOOP", "UID FETCH", "SELECT", "AUTHENTICATE", "UID STORE"]);
    (on, 1..200_usize, 0..6_u8, 0..400_u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// T37, F-20, F-21, I5: 64 users come and go in any order, with each other's passwords too, while the upstream breaks
    /// down in all ways; every octet that anybody reads is in a message of that user.
    #[test]
    fn nobody_reads_what_is_somebody_elses(
        visits in vec((0..64_usize, 0..8_u8, any::<bool>()), 400),
        troubles in vec(trouble(), 0..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(visit(&visits, troubles));
    }
}

fn text(name: usize) -> String {
    format!("To: user-{name:02}\r\n\r\n").repeat(20)
}

async fn visit(visits: &[(usize, u8, bool)], troubles: Vec<(&str, usize, u8, u64)>) {
    let mut manner = Manner::default();
    for (on, nth, what, octets) in troubles {
        let what = match what {
            0 => What::Cut(octets),
            1 => What::Stall(octets),
            2 => What::Close,
            3 => What::Bye("enough".into()),
            4 => What::No("not now".into()),
            _ => What::Mute,
        };
        manner = manner.deviating(on, nth, what);
    }
    let accounts = (0..64).map(|name| {
        let mut account = Account::fixture();
        account.user = format!("user-{name:02}");
        account.password = Some(format!("password-{name:02}").into_bytes());
        let inbox = account.mailbox("INBOX").unwrap();
        inbox.messages.clear();
        for _ in 0..3 {
            inbox.deliver(Content::new(text(name)));
        }
        account
    });
    let server = Server::new(manner, accounts.collect());
    let upstream = Arc::new(warm(&server));
    let mut read = 0;
    for visits in visits.chunks(4) {
        let sessions = visits.iter().map(|&(name, kind, early)| {
            let upstream = Arc::clone(&upstream);
            tokio::spawn(async move { session(&upstream, name, kind, early).await })
        });
        for session in sessions.collect::<Vec<_>>() {
            read += session.await.unwrap();
        }
    }
    assert!(read > 100, "of 192 messages, each of which may be read several times, {read} were read");
}

/// How many messages came.
async fn session(upstream: &Upper, name: usize, kind: u8, early: bool) -> usize {
    let password = if kind == 0 { name + 1 } else { name };
    let who = user(&format!("user-{name:02}"), &format!("password-{password:02}"));
    let Ok((mut mailbox, snapshot)) = upstream.open(&who).await else { return 0 };
    assert_ne!(kind, 0, "another's password opened the mailbox");
    let mut read = 0;
    for uid in snapshot.uids().to_vec() {
        let Ok(Some(mut body)) = mailbox.fetch(uid).await else { continue };
        read += 1;
        let mut octets = Vec::new();
        while let Ok(Some(chunk)) = body.next().await {
            octets.extend_from_slice(chunk);
            if early {
                break;
            }
        }
        assert!(text(name).into_bytes().starts_with(&octets), "user-{name:02} reads {octets:?}");
    }
    if kind == 1 {
        mailbox.settle(&Changes { delete: snapshot.uids().iter().take(1).copied().collect(), seen: Vec::new() }).await;
    }
    match kind {
        2 => drop(mailbox),
        _ => mailbox.leave().await,
    }
    read
}
