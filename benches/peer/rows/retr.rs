//! Messages are fetched, and that is all.

use std::time::Instant;

use super::{Round, effort, milliseconds};
use crate::{
    dovecot::PASSWORD,
    imap::{Imap, Piece},
    pop3::Pop3,
    scene::{Mailbox, Place},
    sheet::{Sheet, median},
};

/// Large messages, one after the other.
pub(crate) fn large(round: &Round<'_>, sheet: &mut Sheet) {
    let (place, mailbox) = (round.target.near, round.scene.mailbox("large"));
    let mut first = Vec::new();
    let (octets, effort) = if round.raw() {
        let mut imap = Imap::log_in(place.port, mailbox.user, PASSWORD);
        effort(place, || fetch(&mut imap, &["UID FETCH 1:* (BODY.PEEK[])".to_owned()]).1)
    } else {
        let mut pop3 = open(place.port, mailbox);
        let measured = effort(place, || {
            let retr = |at: usize| {
                let (octets, waited) = pop3.body(&format!("RETR {}", at + 1));
                assert_eq!(octets, mailbox.messages[at].0);
                first.push(milliseconds(waited));
                octets
            };
            (0..mailbox.size.messages).map(retr).sum::<u64>()
        });
        pop3.quit();
        measured
    };
    let megabytes = octets as f64 / 1e6;
    round.note(sheet, "large/rate", megabytes / effort.seconds);
    if let Some(processor) = effort.processor {
        round.note(sheet, "large/processor", processor / (megabytes / 1e3));
    }
    if !first.is_empty() {
        round.note(sheet, "large/first", median(&first));
    }
}

/// Many small messages: each asked for when the one before has come, then with many requests on their way.
pub(crate) fn many(round: &Round<'_>, sheet: &mut Sheet) {
    let mailbox = round.scene.mailbox("many");
    for (ahead, rate, processor) in [
        (1, "many/alternating", "many/alternating/processor"),
        (IN_FLIGHT, "many/pipelined", "many/pipelined/processor"),
    ] {
        let Session { seconds, processor: taken, .. } = session(round, round.target.near, mailbox, ahead);
        let messages = mailbox.size.messages as f64;
        round.note(sheet, rate, messages / seconds);
        if let Some(taken) = taken {
            round.note(sheet, processor, taken / (messages / 1e3));
        }
    }
}

/// Fewer messages over a distance, each asked for when the one before has come.
pub(crate) fn far_alternating(round: &Round<'_>, sheet: &mut Sheet) {
    // Ten seconds that say nothing new.
    if round.raw() {
        return;
    }
    far(round, sheet, 1, ["few-far/alternating", "few-far/alternating/session"]);
}

/// The same with many requests on their way.
pub(crate) fn far_pipelined(round: &Round<'_>, sheet: &mut Sheet) {
    far(round, sheet, IN_FLIGHT, ["few-far/pipelined", "few-far/pipelined/session"]);
}

fn far(round: &Round<'_>, sheet: &mut Sheet, ahead: usize, [rate, whole]: [&'static str; 2]) {
    let mailbox = round.scene.mailbox("few");
    if round.peer() && round.repetition == 0 {
        // It looks at each message once, which another row shows.
        open(round.target.far.port, mailbox).quit();
    }
    let session = session(round, round.target.far, mailbox, ahead);
    round.note(sheet, rate, mailbox.size.messages as f64 / session.seconds);
    round.note(sheet, whole, session.whole);
}

/// Messages that are neither small nor large.
pub(crate) fn some(round: &Round<'_>, sheet: &mut Sheet) {
    near_and_far(round, sheet, "some", ["some/near", "some/far"]);
}

/// Larger ones, but less than what may be fetched ahead.
pub(crate) fn several(round: &Round<'_>, sheet: &mut Sheet) {
    near_and_far(round, sheet, "several", ["several/near", "several/far"]);
}

fn near_and_far(round: &Round<'_>, sheet: &mut Sheet, user: &str, rates: [&'static str; 2]) {
    let mailbox = round.scene.mailbox(user);
    for (place, rate) in [round.target.near, round.target.far].into_iter().zip(rates) {
        let Session { seconds, .. } = session(round, place, mailbox, 1);
        round.note(sheet, rate, mailbox.size.messages as f64 / seconds);
    }
}

/// How long it took; all in seconds.
struct Session {
    /// The fetching alone.
    seconds: f64,
    /// From the connection to the reply to QUIT.
    whole: f64,
    /// What the gateway took of the processor for the fetching.
    processor: Option<f64>,
}

/// A session in which everything is fetched.
fn session(round: &Round<'_>, place: Place, mailbox: &Mailbox, ahead: usize) -> Session {
    let begin = Instant::now();
    let effort = if round.raw() {
        let mut imap = Imap::log_in(place.port, mailbox.user, PASSWORD);
        let each: Vec<_> = (1..=mailbox.size.messages).map(|uid| format!("UID FETCH {uid} (BODY.PEEK[])")).collect();
        let (count, effort) = effort(place, || {
            if ahead == 1 {
                each.iter().map(|command| fetch(&mut imap, std::slice::from_ref(command)).0).sum::<usize>()
            } else {
                fetch(&mut imap, &["UID FETCH 1:* (BODY.PEEK[])".to_owned()]).0
            }
        });
        assert_eq!(count, mailbox.size.messages);
        effort
    } else {
        let mut pop3 = open(place.port, mailbox);
        let (_, effort) = effort(place, || retrieve(&mut pop3, mailbox, ahead));
        pop3.quit();
        effort
    };
    Session { seconds: effort.seconds, whole: begin.elapsed().as_secs_f64(), processor: effort.processor }
}

/// Fetches all messages of a mailbox; their lengths must be right.
pub(super) fn retrieve(pop3: &mut Pop3, mailbox: &Mailbox, ahead: usize) {
    let commands = (1..=mailbox.size.messages).map(|number| format!("RETR {number}"));
    pop3.pipeline(commands, ahead, |pop3, at| assert_eq!(pop3.many(|_| ()), mailbox.messages[at].0));
}

/// Logs in. STAT makes the peer look into the mailbox, which it puts off until it is asked something.
pub(super) fn open(port: u16, mailbox: &Mailbox) -> Pop3 {
    let mut pop3 = Pop3::log_in(port, mailbox.user, PASSWORD);
    let reply = pop3.command("STAT");
    assert!(reply.starts_with(&format!("+OK {} ", mailbox.size.messages)), "{reply}");
    pop3
}

/// How many bodies came, and how many octets they were.
fn fetch(imap: &mut Imap, commands: &[String]) -> (usize, u64) {
    let (mut bodies, mut octets) = (0, 0);
    imap.fetch(commands, |piece| match piece {
        Piece::Begin(_) => bodies += 1,
        Piece::Octets(some) => octets += some.len() as u64,
    });
    (bodies, octets)
}

/// How many commands a client that does not wait has on their way.
pub(super) const IN_FLIGHT: usize = 64;
