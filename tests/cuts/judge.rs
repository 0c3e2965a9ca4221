//! What must hold of a session, whatever happened to its lines. The measure is what popgate itself read and wrote on the
//! client's line, beside what the mailbox holds: so a fault there is no excuse, and none is needed.
//!
//! What cannot be claimed on plain lines: an octet that is changed within a message on its way from the server is part of
//! the message, for all that anybody can tell; so messages are compared modulo that octet. If octets come twice and the
//! rest of the literal reads like what some servers put behind one, the message is what came. A password that is changed on
//! its way is a wrong one.

use std::{collections::BTreeSet, time::Duration};

use memchr::memmem;

use super::{
    clear::leaks,
    owed::owed,
    recordings::Recording,
    session::{Cut, Leg, Played, has_body},
};
use crate::support::{
    chat::{stuffed, top},
    checker::{Finding, History, Quit},
    faulty::{Fault, Tape, Towards, garbled},
    script::Message,
};

/// A command as popgate read it, and what it answered.
#[derive(PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) command: String,
    /// Without its line end; `None` if it was not said to its end.
    pub(super) reply: Option<String>,
    body: Option<Body>,
}

#[derive(PartialEq, Eq)]
struct Body {
    octets: Vec<u8>,
    /// The dot came.
    whole: bool,
}

impl Exchange {
    pub(super) fn is_ok(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.starts_with("+OK"))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.reply.is_some() && self.body.as_ref().is_none_or(|body| body.whole)
    }

    /// A message was begun, and not ended.
    pub(super) fn is_torn(&self) -> bool {
        self.body.as_ref().is_some_and(|body| !body.whole)
    }

    /// The log-in that succeeded.
    pub(super) fn is_log_in(&self) -> bool {
        !self.is("RSET") && self.reply.as_ref().is_some_and(|reply| reply.starts_with("+OK maildrop has"))
    }

    /// The message that a command of this name is about.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        let (command, argument) = self.command.split_once(' ')?;
        let number = argument.split(' ').next()?.parse::<usize>().ok()?;
        number.checked_sub(1).filter(|_| command.eq_ignore_ascii_case(name))
    }

    /// How many lines of the body TOP asks for.
    fn lines(&self) -> Option<usize> {
        self.number("TOP").and_then(|_| self.command.rsplit(' ').next()?.parse().ok())
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.command.trim_end().eq_ignore_ascii_case(name)
    }
}

/// The greeting, the commands with their replies, and what was said besides.
pub(super) fn exchanges(tape: &Tape) -> (Option<String>, Vec<Exchange>, Vec<u8>) {
    let mut said = tape.said.as_slice();
    let greeting = line(&mut said);
    let whole_lines = tape.heard.split_inclusive(|octet| *octet == b'\n').filter(|line| line.ends_with(b"\n"));
    let mut exchanges = Vec::new();
    for command in whole_lines {
        let command = command.strip_suffix(b"\n").unwrap();
        let command = String::from_utf8_lossy(command.strip_suffix(b"\r").unwrap_or(command)).into_owned();
        let reply = line(&mut said);
        let mut exchange = Exchange { command, reply, body: None };
        if exchange.is_ok() && has_body(&exchange.command) {
            exchange.body = Some(body(&mut said));
        }
        exchanges.push(exchange);
    }
    (greeting, exchanges, said.to_vec())
}

/// The next line; what has no end is none.
fn line(said: &mut &[u8]) -> Option<String> {
    let Some(end) = said.windows(2).position(|two| two == b"\r\n") else {
        *said = &[];
        return None;
    };
    let line = String::from_utf8(said[..end].to_vec()).expect("a reply is ASCII");
    *said = &said[end + 2..];
    Some(line)
}

fn body(said: &mut &[u8]) -> Body {
    let end = match said.starts_with(b".\r\n") {
        true => Some(0),
        false => memmem::find(said, b"\r\n.\r\n").map(|at| at + 2),
    };
    let mut octets = said[..end.unwrap_or(said.len())].to_vec();
    // Of a final line that has no end nobody knows that it is the final one.
    let cut = [&b"\r\n.\r"[..], b"\r\n."].into_iter().find(|cut| end.is_none() && octets.ends_with(cut));
    octets.truncate(octets.len() - cut.map_or(0, |cut| cut.len() - 2));
    *said = end.map_or(&[][..], |end| &said[end + 3..]);
    Body { octets, whole: end.is_some() }
}

/// Everything that is wrong with a session. `recorded` is the one in which nothing happened.
pub(super) fn lies(recording: &Recording, cut: Cut, recorded: &Played, played: &Played) -> Vec<String> {
    let mut lies = played.second.clone();
    let (greeting, exchanges, rest) = exchanges(&played.client);
    if greeting.is_some_and(|greeting| !greeting.starts_with("+OK")) {
        lies.push("a greeting that is none".into());
    }
    if !rest.is_empty() {
        lies.push(format!("said unasked: {}", rest.escape_ascii()));
    }
    lies.extend(against_the_recording(cut, recorded, played, &exchanges));
    lies.extend(owed(recording, cut, recorded, played, &exchanges));
    lies.extend(leaks(recording, cut, recorded, played));
    let mut judge =
        Judge { recording, cut, recorded, played, deleted: BTreeSet::new(), retrieved: BTreeSet::new(), lies };
    let mut logged_in = false;
    let mut quit = None;
    for exchange in &exchanges {
        logged_in |= exchange.reply.as_ref().is_some_and(|reply| reply.starts_with("+OK maildrop has"));
        judge.exchange(exchange, logged_in);
        if exchange.is("QUIT") && logged_in {
            quit = Some(exchange);
        }
        if !exchange.is_complete() || quit.is_some() {
            break;
        }
    }
    judge.mailbox(quit);
    let mut lies = judge.lies;
    let findings = history(recording, cut.plan.fault.alters(), played, &exchanges);
    lies.extend(findings.into_iter().map(|finding| format!("{finding:?}")));
    lies
}

/// What follows from knowing how the session goes if nothing happens.
fn against_the_recording(cut: Cut, recorded: &Played, played: &Played, exchanges: &[Exchange]) -> Vec<String> {
    let mut lies = Vec::new();
    let (said, should) = (&played.client.said, &recorded.client.said);
    // Longer than any wait of a client's, but bounded.
    if played.lasted > Duration::from_secs(1_500) {
        lies.push(format!("the session lasted {:?}", played.lasted));
    }
    if exchanges.iter().any(Exchange::is_torn) && cut.leg != Leg::Client && !played.client.aborted {
        lies.push("half a message, and then an orderly end".into());
    }
    match (cut.plan.fault, cut.leg) {
        (Fault::Pause(time), _) if time < Duration::from_secs(10) && said != should => {
            lies.push(format!("a short pause changed what was said:\n{}", said.escape_ascii()));
        }
        (fault, _) if fault.alters() => {}
        (_, Leg::Client) if !should.starts_with(said) => {
            lies.push(format!("a client that leaves changed what was said:\n{}", said.escape_ascii()));
        }
        (_, Leg::Client) => {}
        (_, Leg::Upstream(_)) => {
            let (_, recorded, _) = self::exchanges(&recorded.client);
            let mut logged_in = false;
            for (exchange, recorded) in exchanges.iter().zip(&recorded) {
                let (Some(reply), Some(should)) = (&exchange.reply, &recorded.reply) else { continue };
                logged_in |= reply.starts_with("+OK maildrop has");
                // Numbers in it may follow from what failed before; they are compared with the mailbox.
                let both_good = reply.starts_with("+OK") && should.starts_with("+OK");
                let consequence = ["command not valid in this state", "too many bad commands", "unknown command"];
                let follows = !logged_in && consequence.iter().any(|text| reply.contains(text));
                if reply != should && !reply.starts_with("-ERR [SYS/TEMP]") && !both_good && !follows {
                    lies.push(format!("{}: {reply}, not {should}", exchange.command));
                }
            }
        }
    }
    lies
}

/// The same session, told to the judge of all runs.
fn history(recording: &Recording, alters: bool, played: &Played, exchanges: &[Exchange]) -> Vec<Finding> {
    let mut history = History::default();
    let uids = || recording.account.mailboxes[0].messages.iter().map(|message| u64::from(message.uid));
    for (uid, (_, shown)) in uids().zip(&recording.contents) {
        history.delivered(uid, "tim", shown.clone());
        history.named(uid, &format!("{uid:08x}00000064"));
    }
    if let Some(uid) = recording.expunged {
        history.removed(uid.into());
    }
    let session = history.began("tim");
    let id = |exchange: &Exchange, name| exchange.number(name).and_then(|index| uids().nth(index));
    let mut is_marked = false;
    for exchange in exchanges {
        if exchange.is("QUIT") {
            history.quitting(session);
            history.quit(session, quit(recording, exchange));
        }
        let (Some(reply), true) = (&exchange.reply, exchange.is_complete()) else { break };
        match &exchange.body {
            // An octet that was changed within a message is part of it, see above.
            Some(_) if alters && !exchange.is("UIDL") => {}
            // What is marked in this session is not listed in it.
            Some(body) if exchange.is("UIDL") && !is_marked => {
                let lines = std::str::from_utf8(&body.octets).expect("a listing is ASCII").lines();
                let ids: Vec<&str> = lines.filter_map(|line| Some(line.split_once(' ')?.1)).collect();
                history.listed(session, &ids);
            }
            Some(body) => {
                if let Some(uid) = id(exchange, "RETR") {
                    history.fetched(session, uid, &body.octets);
                } else if let (Some(uid), Some(lines)) = (id(exchange, "TOP"), exchange.lines()) {
                    history.peeked(session, uid, lines, &body.octets);
                }
            }
            None => {}
        }
        if let (Some(uid), true) = (id(exchange, "RETR"), reply.ends_with("removed by another client")) {
            history.told_gone(session, uid);
        } else if let (Some(uid), true) = (id(exchange, "DELE"), exchange.is_ok()) {
            history.deleted(session, uid);
            is_marked = true;
        } else if exchange.is("RSET") && exchange.is_ok() {
            history.reset(session);
            is_marked = false;
        }
    }
    let left = played.inbox.iter().filter(|message| !is_hidden(message)).map(|message| u64::from(message.uid));
    history.check(&[("tim", left.filter(|left| uids().any(|uid| uid == *left)).collect())])
}

/// What the answer to QUIT promises.
fn quit(recording: &Recording, exchange: &Exchange) -> Quit {
    match &exchange.reply {
        _ if recording.keeps => Quit::Nothing,
        Some(reply) if reply.starts_with("+OK") => Quit::Done,
        Some(reply) if reply.ends_with("nothing deleted") => Quit::Nothing,
        Some(_) => Quit::Refused,
        None => Quit::Unanswered,
    }
}

struct Judge<'a> {
    recording: &'a Recording,
    cut: Cut,
    recorded: &'a Played,
    played: &'a Played,
    /// Indices of messages whose DELE was answered `+OK`.
    deleted: BTreeSet<usize>,
    /// … of which RETR sent everything.
    retrieved: BTreeSet<usize>,
    lies: Vec<String>,
}

impl Judge<'_> {
    fn messages(&self) -> &[Message] {
        &self.recording.account.mailboxes[0].messages
    }

    fn exchange(&mut self, exchange: &Exchange, logged_in: bool) {
        let Some(reply) = &exchange.reply else { return };
        let refused = || self.played.upstream.iter().any(|tape| memmem::find(&tape.heard, b" NO ").is_some());
        // A name or a password that was changed on its way to us is a wrong one.
        let altered = self.cut.leg == Leg::Client && self.cut.plan.fault.alters();
        if reply.contains("[AUTH]") && !refused() && !altered {
            self.lies.push(format!("nobody has refused the password: {reply}"));
        }
        if let Some(number) = reply.strip_suffix(" has been removed by another client") {
            let number = number.strip_prefix("-ERR message ").and_then(|number| number.parse::<usize>().ok());
            if number.is_none_or(|number| self.is_there(self.messages()[number - 1].uid)) {
                self.lies.push(format!("it is still there: {reply}"));
            }
        }
        if !logged_in || !exchange.is_ok() {
            return;
        }
        for (name, removes) in [("DELE", true), ("RETR", false), ("TOP", false)] {
            let Some(index) = exchange.number(name) else { continue };
            if removes {
                self.deleted.insert(index);
            } else if let (Some(body), true) = (&exchange.body, index < self.messages().len()) {
                self.message(exchange, body, index);
            }
        }
        if exchange.is("RSET") {
            self.deleted.clear();
            self.retrieved.clear();
        }
        self.listing(exchange, reply);
    }

    /// Numbers and sizes are those of the mailbox.
    fn listing(&mut self, exchange: &Exchange, reply: &str) {
        let kept = || self.messages().iter().enumerate().filter(|(index, _)| !self.deleted.contains(index));
        let (count, octets) = (kept().count(), kept().map(|(_, message)| message.reported).sum::<u64>());
        let id = |message: &Message| format!("{:08x}{:08x}", message.uid, 100);
        let lines = |text: &dyn Fn(&Message) -> String| -> String {
            kept().map(|(index, message)| format!("{} {}\r\n", index + 1, text(message))).collect()
        };
        let size = |message: &Message| message.reported.to_string();
        let one = |name: &str| exchange.number(name).and_then(|index| Some((index, self.messages().get(index)?)));
        let mut expected = None;
        if exchange.is("QUIT") {
            expected = Some(format!("+OK POP3 server signing off ({count} messages left)"));
        } else if let Some((_, message)) = one("RETR") {
            expected = Some(format!("+OK {} octets", message.content.len()));
        } else if exchange.is("STAT") {
            expected = Some(format!("+OK {count} {octets}"));
        } else if reply.starts_with("+OK maildrop has") {
            expected = Some(format!("+OK maildrop has {count} messages ({octets} octets)"));
        } else if let Some((index, message)) = one("LIST") {
            expected = Some(format!("+OK {} {}", index + 1, size(message)));
        } else if let Some((index, message)) = one("UIDL") {
            expected = Some(format!("+OK {} {}", index + 1, id(message)));
        }
        let body = match &exchange.body {
            Some(_) if exchange.is("LIST") => Some(lines(&size)),
            Some(_) if exchange.is("UIDL") => Some(lines(&id)),
            _ => None,
        };
        if expected.is_some_and(|expected| expected != reply) {
            self.lies.push(format!("{}: {reply}", exchange.command));
        }
        if let (Some(expected), Some(Body { octets, whole: true })) = (body, &exchange.body)
            && octets != expected.as_bytes()
        {
            self.lies.push(format!("{}: {}", exchange.command, octets.escape_ascii()));
        }
    }

    /// A message is whole, or it has no dot.
    fn message(&mut self, exchange: &Exchange, body: &Body, index: usize) {
        let lines = exchange.lines();
        let shown = |content: &[u8]| match lines {
            Some(lines) => top(content, lines),
            None => stuffed(content),
        };
        let expected = match lines {
            Some(lines) => top(&self.recording.contents[index].0, lines),
            None => self.recording.contents[index].1.clone(),
        };
        let from_server = matches!(self.cut.leg, Leg::Upstream(_)) && self.cut.plan.towards == Towards::Popgate;
        let right = match body.whole {
            true if body.octets == expected => true,
            true if !from_server => false,
            true => match self.cut.plan.fault {
                Fault::Garbage => {
                    let content = &self.recording.contents[index].0;
                    let differs = expected.iter().zip(&body.octets).take_while(|(one, other)| one == other).count();
                    (differs.saturating_sub(16)..(differs + 2).min(content.len())).any(|at| {
                        let mut changed = content.clone();
                        changed[at] = garbled(changed[at]);
                        body.octets == shown(&changed)
                    })
                }
                Fault::Twice | Fault::Doubled => {
                    self.as_tolerated(index).iter().any(|content| body.octets == shown(content))
                }
                _ => false,
            },
            // What came in before anybody could know that it is wrong has been passed on; but no dot.
            false => expected.starts_with(&body.octets) || from_server && self.cut.plan.fault.alters(),
        };
        if !right {
            let came = body.octets.len();
            let end = if body.whole { "with" } else { "without" };
            self.lies.push(format!("{}: {came} octets {end} a dot that are not the message", exchange.command));
        }
        if body.whole && exchange.number("RETR").is_some() {
            self.retrieved.insert(index);
        }
    }

    /// What a message is by a literal, of all of it or of a part, behind which stands what some servers put there: an empty
    /// line or a space. The scripted server does not; but if one or two octets came twice, the last ones of the message or of
    /// the part are what is left over, and they may be just that. As many octets were announced as were asked for, so this is
    /// what an honest server would say that has a message of these octets, and is tolerated on purpose (C.12).
    fn as_tolerated(&self, index: usize) -> Vec<Vec<u8>> {
        let Leg::Upstream(number) = self.cut.leg else { return Vec::new() };
        let heard = &self.played.upstream[number].heard;
        let literals = memmem::find_iter(heard, b"BODY[]").filter_map(|at| literal(&heard[at + b"BODY[]".len()..]));
        let tolerated = literals.filter(|(_, _, behind)| {
            [&b"\r\n)"[..], b"\r\n ", b" )", b"  "].iter().any(|stray| behind.starts_with(stray))
        });
        let contents = tolerated.filter_map(|(offset, octets, _)| {
            let mut content = self.recording.contents[index].0.clone();
            content.get_mut(offset..offset + octets.len())?.copy_from_slice(octets);
            Some(content)
        });
        contents.collect()
    }

    /// Deleted is what the client was told, and nothing else.
    fn mailbox(&mut self, quit: Option<&Exchange>) {
        let confirmed = quit.is_some_and(Exchange::is_ok);
        for (index, message) in self.recording.account.mailboxes[0].messages.iter().enumerate() {
            let uid = message.uid;
            let asked = self.deleted.contains(&index) && quit.is_some();
            let there = self.is_there(uid);
            if self.recording.expunged == Some(uid) {
                continue;
            }
            if !there && !asked {
                self.lies.push(format!("{uid} is gone, and nobody asked for it"));
            }
            if there && asked && confirmed && !self.recording.keeps {
                self.lies.push(format!("+OK to QUIT, but {uid} is still there"));
            }
            // A client that leaves behind its QUIT has asked nevertheless. If the line is reset while the replies to what it sent
            // together with that are handed over, nobody knows that it has them, and nothing is removed.
            let is_reset = self.cut.plan.fault == Fault::Reset && self.recording.script.ends_with(" | QUIT");
            let knows = !is_reset || quit.is_some_and(|quit| quit.reply.is_some());
            if there && asked && self.cut.leg == Leg::Client && knows && !self.recording.keeps {
                self.lies.push(format!("QUIT was read and everything answered before, but {uid} is still there"));
            }
            let now = self.played.inbox.iter().find(|now| now.uid == uid);
            if now.is_none() && !self.recorded.trash.is_empty() {
                let content = message.content.octets();
                if !self.played.trash.iter().any(|moved| moved.content.octets() == content) {
                    self.lies.push(format!("{uid} is neither here nor in the trash"));
                }
            }
            let Some(now) = now else { continue };
            // A flag that is changed on its way to the server is a keyword; `\Deleted` comes of no such change.
            let is_strange = |flag: &str| flag == "\\Deleted" || !self.cut.plan.fault.alters();
            if !asked && now.flags.iter().any(|flag| flag != "\\Seen" && !message.has(flag) && is_strange(flag)) {
                self.lies.push(format!("{uid} has the flags {:?}", now.flags));
            }
            if now.has("\\Seen") && !self.retrieved.contains(&index) {
                self.lies.push(format!("{uid} is seen, and nobody has seen it"));
            }
        }
    }

    /// Whether a POP3 client would find it in the mailbox.
    fn is_there(&self, uid: u32) -> bool {
        self.played.inbox.iter().any(|message| message.uid == uid && !is_hidden(message))
    }
}

/// Behind `BODY[]`: where a literal begins in its message, its octets, and what stands behind it.
fn literal(text: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let end = memmem::find(text, b"\r\n")?;
    let (part, length) = std::str::from_utf8(&text[..end]).ok()?.strip_suffix('}')?.split_once(" {")?;
    let offset = match part {
        "" => 0,
        _ => part.strip_prefix('<')?.strip_suffix('>')?.parse().ok()?,
    };
    let (octets, behind) = text[end + 2..].split_at_checked(length.parse().ok()?)?;
    Some((offset, octets, behind))
}

/// Deleted by popgate on a server that cannot expunge single messages.
pub(super) fn is_hidden(message: &Message) -> bool {
    message.has("$POP3Deleted")
}
