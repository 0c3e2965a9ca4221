//! What most clients do most of the time: log in, ask what there is, and leave.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{Round, effort, milliseconds};
use crate::{
    dovecot::PASSWORD,
    figures::COLD,
    imap::Imap,
    pop3::Pop3,
    relay::{ONE_WAY, Relay},
    scene::{Mailbox, Place},
    sheet::{Sheet, median},
    support::serve::Popgate,
};

/// Eight users poll near mailboxes all the time.
pub(crate) fn near(round: &Round<'_>, sheet: &mut Sheet) {
    let (place, mailbox) = (round.target.near, round.scene.mailbox("few"));
    let users: Vec<_> = (0..8).map(|_| round.scene.stranger(mailbox.user)).collect();
    for user in &users {
        poll(round, place, user, mailbox);
    }
    let polls = AtomicU32::new(0);
    let enough = Instant::now() + if round.smoke { Duration::from_millis(100) } else { Duration::from_secs(2) };
    let (_, effort) = effort(place, || {
        thread::scope(|scope| {
            for user in &users {
                let polls = &polls;
                scope.spawn(move || {
                    while Instant::now() < enough {
                        poll(round, place, user, mailbox);
                        polls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
    });
    let polls = f64::from(polls.into_inner());
    round.note(sheet, "poll-near/rate", polls / effort.seconds);
    if let Some(processor) = effort.processor {
        round.note(sheet, "poll-near/processor", processor / (polls / 1e3));
    }
}

/// One client polls a far mailbox: for the first time, and then again and again.
pub(crate) fn far(round: &Round<'_>, sheet: &mut Sheet) {
    let (place, mailbox) = (round.target.far, round.scene.mailbox("few"));
    let user = round.scene.stranger(mailbox.user);
    let first = poll(round, place, &user, mailbox);
    round.note(sheet, "poll-far/first", milliseconds(first));
    let before = round.target.line.octets();
    let times: Vec<_> = (0..AGAIN).map(|_| milliseconds(poll(round, place, &user, mailbox))).collect();
    round.note(sheet, "poll-far/time", median(&times));
    settle();
    round.note(sheet, "poll-far/octets", (round.target.line.octets() - before) as f64 / AGAIN as f64);
}

/// The same where the server is reached by TLS and each session logs in there.
pub(crate) fn far_secured(round: &Round<'_>, sheet: &mut Sheet) {
    if round.target.name != COLD {
        return;
    }
    let mailbox = round.scene.mailbox("few");
    let line = Relay::start(round.scene.upstream.tls_port);
    let ca = round.scene.upstream.ca();
    let url = format!("imaps://localhost:{}", line.port);
    let popgate = Popgate::serve(&url, &["--upstream-ca", ca.to_str().unwrap(), "--set", "upstream.warm_ttl=0s"]);
    let place = Place { port: popgate.port, gateway: None };
    poll(round, place, mailbox.user, mailbox);
    let times: Vec<_> = (0..AGAIN).map(|_| milliseconds(poll(round, place, mailbox.user, mailbox))).collect();
    round.note(sheet, "poll-far-tls/time", median(&times));
    popgate.stop();
}

/// One client polls a near mailbox of very many messages, for the first time and again.
pub(crate) fn huge_near(round: &Round<'_>, sheet: &mut Sheet) {
    let (place, mailbox) = (round.target.near, round.scene.mailbox("huge"));
    // The peer takes a quarter of a minute for the first: once is enough to see that.
    let new = !round.peer() || round.repetition == 0;
    let user = if new { round.scene.stranger(mailbox.user) } else { mailbox.user.to_owned() };
    let first = poll(round, place, &user, mailbox);
    if new {
        round.note(sheet, "huge-near/first", milliseconds(first));
    }
    if round.peer() {
        poll(round, place, mailbox.user, mailbox);
    }
    let times: Vec<_> = (0..3).map(|_| milliseconds(poll(round, place, &user, mailbox))).collect();
    round.note(sheet, "huge-near/again", median(&times));
}

/// The same over a distance.
pub(crate) fn huge_far(round: &Round<'_>, sheet: &mut Sheet) {
    let (place, mailbox) = (round.target.far, round.scene.mailbox("huge"));
    let line = &round.target.line;
    let user = if round.peer() { mailbox.user.to_owned() } else { round.scene.stranger(mailbox.user) };
    let before = line.octets();
    if round.peer() {
        // It would take 83 minutes: a round trip for each message. So it comes to know them from near.
        line.set_distance(Duration::ZERO);
        poll(round, place, &user, mailbox);
        line.set_distance(ONE_WAY);
    } else {
        let first = poll(round, place, &user, mailbox);
        round.note(sheet, "huge-far/first", milliseconds(first));
        settle();
        round.note(sheet, "huge-far/first/octets", (line.octets() - before) as f64);
    }
    let before = line.octets();
    let times: Vec<_> = (0..3).map(|_| milliseconds(poll(round, place, &user, mailbox))).collect();
    round.note(sheet, "huge-far/again", median(&times));
    settle();
    round.note(sheet, "huge-far/again/octets", (line.octets() - before) as f64 / 3.0);
}

/// Logs in, asks what there is, and leaves; every reply is waited for. By IMAP: everything at once, and only the list.
fn poll(round: &Round<'_>, place: Place, user: &str, mailbox: &Mailbox) -> Duration {
    let begin = Instant::now();
    if round.raw() {
        let mut imap = Imap::log_in(place.port, user, PASSWORD);
        imap.command("UID FETCH 1:* (RFC822.SIZE)");
        return begin.elapsed();
    }
    let mut pop3 = Pop3::log_in(place.port, user, PASSWORD);
    let reply = pop3.command("STAT");
    assert!(reply.starts_with(&format!("+OK {} ", mailbox.size.messages)), "{reply}");
    pop3.send("UIDL\r\n");
    let mut lines = 0;
    pop3.many(|some| lines += memchr::memchr_iter(b'\n', some).count());
    assert_eq!(lines, mailbox.size.messages);
    let before_quit = begin.elapsed();
    before_quit + pop3.quit()
}

/// Waits until what is still on the line has been counted: farewells that no client waits for.
fn settle() {
    thread::sleep(ONE_WAY * 8);
}

const AGAIN: usize = 10;
