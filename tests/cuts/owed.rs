//! What popgate owes a client on a good line while a line to the server goes wrong: an answer to every command, and the same
//! one as if nothing had happened wherever it can go on. It can unless the line is lost within a log-in, which is not tried
//! again for the client's sake (F4, F5), a second time within a minute (C.8), or for good; unless a streamed message has come
//! to its last octet and its proof has not (F9); and unless silence has used up the time of the update (E.5).

use std::time::Duration;

use memchr::memmem;

use super::{
    judge::{Exchange, exchanges},
    recordings::Recording,
    session::{Cut, Leg, Past, Played},
};
use crate::support::faulty::{Fault, Place, records};

/// What is owed and was not given.
pub(super) fn owed(
    recording: &Recording,
    cut: Cut,
    recorded: &Played,
    played: &Played,
    said: &[Exchange],
) -> Vec<String> {
    let Leg::Upstream(line) = cut.leg else { return Vec::new() };
    let (_, expected, _) = exchanges(&recorded.client);
    let mut lies = Vec::new();
    match said.iter().find(|exchange| !exchange.is_complete()) {
        Some(exchange) if !exchange.is_torn() => lies.push(format!("{} is not answered", exchange.command)),
        None if said.len() < expected.len() && !said.last().is_some_and(is_thrown_out) => {
            lies.push(format!("closed before {} was said", expected[said.len()].command));
        }
        _ => {}
    }
    // What is changed on such a line may be anything that the server might have said.
    if cut.plan.fault.alters() {
        return lies;
    }
    let is_kept = played.past == Past::Line && line == 0;
    let mut all_same = true;
    for (at, (exchange, should)) in said.iter().zip(&expected).enumerate() {
        let good_as = exchange.is_complete() && exchange.is_ok() && should.is_ok();
        if exchange == should || good_as && !all_same {
            continue;
        }
        let passing = exchange.reply.as_ref().is_some_and(|reply| reply.starts_with("-ERR [SYS/TEMP] "));
        let need = need(&said[..at], exchange);
        let is_excused = match need {
            Need::Nothing => false,
            Need::LogIn => passing && (cut.for_good || !is_kept),
            Need::Message if exchange.is_torn() => {
                is_lost_again(recording, cut) || lacks_proof(recording, cut, played, line, exchange)
            }
            Need::Message => passing && is_lost_again(recording, cut),
            Need::Update => passing && (is_lost_again(recording, cut) || is_silent(cut.plan.fault)),
        };
        if !is_excused {
            let reply = exchange.reply.as_deref().unwrap_or_default();
            lies.push(format!("given up, though it can go on: {}: {reply}", exchange.command));
        }
        all_same = false;
        // What follows a log-in that failed otherwise than it should is another session.
        let was_refused = should.reply.as_ref().is_some_and(|reply| reply.starts_with("-ERR"));
        if exchange.is_torn() || matches!(need, Need::LogIn) && !was_refused {
            break;
        }
    }
    lies
}

/// What the server is needed for.
enum Need {
    Nothing,
    LogIn,
    Message,
    Update,
}

fn need(before: &[Exchange], exchange: &Exchange) -> Need {
    let is_logged_in = before.iter().any(Exchange::is_log_in);
    let is_unsure = |number| {
        let failed = |one: &Exchange| !one.is_ok() && ["RETR", "TOP"].iter().any(|name| one.number(name) == number);
        number.is_some() && before.iter().any(failed)
    };
    let is_marked = || {
        let since = before.iter().rposition(|one| one.is("RSET") && one.is_ok()).unwrap_or_default();
        before[since..].iter().any(|one| one.number("DELE").is_some() && one.is_ok())
    };
    match exchange {
        _ if !is_logged_in => Need::LogIn,
        _ if exchange.is("QUIT") && is_marked() => Need::Update,
        _ if exchange.number("RETR").or_else(|| exchange.number("TOP")).is_some() => Need::Message,
        // It must be retrieved before it is deleted, once that has failed.
        _ if is_unsure(exchange.number("DELE")) => Need::Message,
        _ => Need::Nothing,
    }
}

/// Whether the line would have to be replaced more often than popgate does.
fn is_lost_again(recording: &Recording, cut: Cut) -> bool {
    cut.for_good || recording.loses_line()
}

/// Whether nothing comes for as long as an update may take.
fn is_silent(fault: Fault) -> bool {
    match fault {
        Fault::Stall => true,
        Fault::Pause(time) => time > Duration::from_secs(60),
        _ => false,
    }
}

/// All of the message has come on this line, but not that it is all of it.
fn lacks_proof(recording: &Recording, cut: Cut, played: &Played, line: usize, exchange: &Exchange) -> bool {
    let index = exchange.number("RETR").or_else(|| exchange.number("TOP"));
    let Some((octets, _)) = index.and_then(|index| recording.contents.get(index)) else { return false };
    let Some(heard) = played.upstream.get(line).map(|tape| &tape.heard) else { return false };
    match cut.plan.place {
        Place::Octet(_) => memmem::find(heard, octets).is_some(),
        // A streamed message has records of its own, and behind the first one, a part of the handshake, no other is as
        // large. Were the message's last one not, or were there more in it, nothing would be excused. Behind the fault
        // there may be anything.
        Place::Record(record, _) => {
            let before = records(heard).into_iter().take(record).skip(1);
            let came: usize = before.filter(|length| *length >= 1_000).map(|length| length - SEAL).sum();
            came == octets.len()
        }
    }
}

/// Whether popgate has had enough of a client that is not logged in and goes on as if it were.
fn is_thrown_out(exchange: &Exchange) -> bool {
    exchange.reply.as_ref().is_some_and(|reply| reply.contains("too many bad commands"))
}

/// What a TLS record is longer by than what is said in it: the header, the type of its content and the proof that nobody
/// has changed it (RFC 8446 §5.2).
const SEAL: usize = 5 + 1 + 16;
