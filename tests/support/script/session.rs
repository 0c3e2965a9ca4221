//! One connection to the scripted server: reads commands, groups those of one flight, answers them.

use std::{io, ops::Range, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Account, Line, Mailbox, Order, Received, Server, What,
    command::{Command, Reading, read, unbase64, words},
    mailbox::{Content, Message, ranges},
};

/// Serves one connection to its end.
pub(super) async fn serve(server: &Server, line: Box<dyn Line>) -> io::Result<()> {
    let number = {
        let mut state = server.state();
        state.connections += 1;
        state.connections
    };
    let mut session =
        Session { server, line, number, unread: Vec::new(), account: None, selected: None, at_end: false, mute: false };
    session.greet().await?;
    while !session.at_end {
        let Some(flight) = session.flight().await? else { break };
        session.answer(flight).await?;
    }
    session.line.shutdown().await
}

struct Session<'a> {
    server: &'a Server,
    line: Box<dyn Line>,
    number: usize,
    unread: Vec<u8>,
    /// Index of the account that is logged in.
    account: Option<usize>,
    selected: Option<Selected>,
    at_end: bool,
    /// Nothing is answered any more.
    mute: bool,
}

/// The mailbox as this session was told that it is.
struct Selected {
    name: String,
    /// The UIDs in the order of sequence numbers.
    uids: Vec<u32>,
    uid_validity: Option<u32>,
    read_only: bool,
}

/// The reply to one command.
#[derive(Default)]
struct Reply {
    data: Vec<Part>,
    tagged: Vec<u8>,
    limit: Option<Limit>,
    /// So many octets at a time, so far apart.
    pace: Option<Pace>,
}

type Pace = (usize, Duration);

enum Part {
    Text(Vec<u8>),
    Content(Content, Range<u64>),
}

/// Where a reply ends too early.
#[derive(Clone, Copy)]
struct Limit {
    octets: u64,
    /// Whether the line ends there too.
    closes: bool,
}

/// How the bodies of one FETCH deviate.
#[derive(Clone, Copy, Default)]
struct Bodies {
    literal: i64,
    instead: Option<&'static str>,
    none: bool,
}

impl Bodies {
    const fn are_odd(self) -> bool {
        self.literal != 0 || self.instead.is_some() || self.none
    }
}

type Words<'a> = &'a [Vec<u8>];
/// The text of the tagged OK, or `NO …` or `BAD …`.
type Outcome = Result<String, String>;

impl Session<'_> {
    async fn greet(&mut self) -> io::Result<()> {
        let manner = &self.server.manner;
        let code = if manner.tells { format!("[CAPABILITY {}] ", manner.before) } else { String::new() };
        let mut reply = Reply { tagged: format!("* OK {code}ready\r\n").into(), ..Reply::default() };
        if let Some((which, what)) = self.server.deviation("GREETING", false) {
            reply.deviate(&what, "*");
            self.server.strike(which);
            self.at_end = matches!(what, What::Close | What::Bye(_) | What::Cut(_));
        }
        self.send(vec![reply]).await
    }

    /// The next command, and with it those that a server which reorders would answer together with it.
    async fn flight(&mut self) -> io::Result<Option<Vec<Command>>> {
        let Some(first) = self.command().await? else { return Ok(None) };
        let most = match self.server.manner.order {
            Order::Each => 1,
            Order::Fours => 4,
            Order::End | Order::Reversed => usize::MAX,
        };
        let mut flight = vec![first];
        while flight.len() < most && flight.iter().all(reads_only) {
            // What is on its way belongs to the flight: silence for a moment ends it.
            match tokio::time::timeout(Duration::from_millis(1), self.command()).await {
                Ok(Ok(Some(command))) => flight.push(command),
                Ok(Ok(None)) | Err(_) => break,
                Ok(Err(fault)) => return Err(fault),
            }
        }
        Ok(Some(flight))
    }

    /// Reads one command; cancel-safe but for synchronising literals.
    async fn command(&mut self) -> io::Result<Option<Command>> {
        let mut asked = 0;
        loop {
            match read(&self.unread, asked) {
                Reading::Whole(length) => return Ok(Some(self.take(length))),
                Reading::Literal => {
                    self.line.write_all(b"+ go on\r\n").await?;
                    asked += 1;
                }
                Reading::More if self.line.read_buf(&mut self.unread).await? == 0 => return Ok(None),
                Reading::More => {}
            }
        }
    }

    fn take(&mut self, length: usize) -> Command {
        let line: Vec<u8> = self.unread.drain(..length).collect();
        let line = &line[..length - 2];
        let tag = line.iter().position(|octet| *octet == b' ').unwrap_or(line.len());
        let octets = line.get(tag + 1..).unwrap_or_default().to_vec();
        Command { tag: String::from_utf8_lossy(&line[..tag]).into_owned(), octets }
    }

    async fn answer(&mut self, flight: Vec<Command>) -> io::Result<()> {
        let mut replies = Vec::new();
        for command in flight {
            let text = command.text();
            if let Some(turns) = &self.server.manner.turns
                && text.starts_with("UID ")
            {
                turns.take(self.number).await;
            }
            self.server.state().received.push(Received { connection: self.number, text: text.clone() });
            if self.mute || self.at_end {
                continue;
            }
            replies.push(self.reply(&command, &text).await?);
        }
        tokio::time::sleep(self.server.manner.latency).await;
        self.send(replies).await
    }

    async fn reply(&mut self, command: &Command, text: &str) -> io::Result<Reply> {
        let (which, deviation) = self.server.deviation(text, self.account.is_some()).unzip();
        if let (Some(which), Some(What::Act(act)), Some(account)) = (which, &deviation, self.account) {
            let changed = {
                let account = &mut self.server.state().accounts[account];
                let before = account.clone();
                act(account);
                *account != before
            };
            if changed {
                self.server.strike(which);
            }
        }
        let mut reply = Reply::default();
        if self.change(|mailbox, selected| mailbox.uid_validity != selected.uid_validity) == Some(true) {
            // UIDs mean what they meant as long as the mailbox is selected (RFC 3501 §2.3.1.1).
            reply.deviate(&What::Bye("the mailbox was built anew".into()), &command.tag);
            self.at_end = true;
            return Ok(reply);
        }
        let mut comes_of_it = !matches!(deviation, Some(What::Act(_)));
        let bodies = match &deviation {
            Some(What::Literal(by)) => Bodies { literal: *by, ..Bodies::default() },
            Some(What::Body(text)) => Bodies { instead: Some(text), ..Bodies::default() },
            Some(What::Bodiless) => Bodies { none: true, ..Bodies::default() },
            _ => Bodies::default(),
        };
        if !matches!(deviation, Some(What::Say(_) | What::No(_) | What::Bad(_) | What::Bye(_) | What::Close)) {
            let outcome = self.obey(command, &mut reply, bodies).await?;
            // There is no body of a message that has gone.
            comes_of_it &= !bodies.are_odd() || !reply.data.is_empty();
            if text.get(..4).is_some_and(|uid| uid.eq_ignore_ascii_case("UID ")) || text.eq_ignore_ascii_case("NOOP") {
                self.news(&mut reply);
            }
            reply.tagged = match outcome {
                Ok(text) => format!("{} OK {text}\r\n", command.tag).into(),
                Err(text) => format!("{} {text}\r\n", command.tag).into(),
            };
        }
        if let Some(what) = deviation {
            reply.deviate(&what, &command.tag);
            self.at_end |= matches!(what, What::Bye(_) | What::Close | What::Cut(_));
            self.mute |= matches!(what, What::Stall(_));
        }
        if let Some(which) = which.filter(|_| comes_of_it) {
            self.server.strike(which);
        }
        Ok(reply)
    }

    /// Carries a command out.
    async fn obey(&mut self, command: &Command, reply: &mut Reply, bodies: Bodies) -> io::Result<Outcome> {
        let words = words(&command.octets);
        let words: Words<'_> = &words;
        let name = |index: usize| words.get(index).map(|word| text(word).to_ascii_uppercase()).unwrap_or_default();
        let manner = &self.server.manner;
        let can = |capability: &str| manner.after.split(' ').any(|known| known == capability);
        Ok(match (name(0).as_str(), name(1).as_str()) {
            ("CAPABILITY", _) => {
                let known = if self.account.is_some() { &manner.after } else { &manner.before };
                reply.say(format!("* CAPABILITY {known}\r\n"));
                Ok("done".into())
            }
            ("NOOP", _) => Ok("done".into()),
            ("ID", _) => {
                reply.say("* ID (\"name\" \"script\")\r\n");
                Ok("done".into())
            }
            ("LOGOUT", _) => {
                reply.say("* BYE see you\r\n");
                self.at_end = true;
                Ok("done".into())
            }
            ("STARTTLS", _) => return self.start_tls(command, reply).await,
            ("AUTHENTICATE", _) if self.account.is_none() => return self.authenticate(&name(1), words).await,
            ("LOGIN", _) if self.account.is_none() && words.len() == 3 => {
                self.log_in(&text(&words[1]), |account| account.password.as_ref() == Some(&words[2]))
            }
            _ if self.account.is_none() => Err("BAD not before log-in".into()),
            ("ENABLE", _) if can("ENABLE") => Ok("done".into()),
            ("LIST", _) => self.list(words, reply),
            ("SELECT" | "EXAMINE", _) if words.len() > 1 => self.select(&text(&words[1]), name(0) == "EXAMINE", reply),
            _ if self.selected.is_none() => Err("BAD not before SELECT".into()),
            ("UNSELECT", _) if can("UNSELECT") => {
                self.selected = None;
                Ok("done".into())
            }
            ("CLOSE", _) => {
                self.change(|mailbox, _| mailbox.messages.retain(|message| !message.has("\\Deleted")));
                self.selected = None;
                Ok("done".into())
            }
            // With UIDs it is another command whose `UID` has been lost.
            ("EXPUNGE", _) if words.len() == 1 => {
                self.change(|mailbox, _| mailbox.messages.retain(|message| !message.has("\\Deleted")));
                self.news(reply);
                Ok("done".into())
            }
            ("FETCH", _) => self.fetch(&words[1..], false, reply, bodies),
            ("UID", "FETCH") => self.fetch(&words[2..], true, reply, bodies),
            ("UID", "STORE") => self.store(&words[2..], reply),
            ("UID", "EXPUNGE") if can("UIDPLUS") => self.uid_expunge(&words[2..]),
            ("UID", "SEARCH") => self.search(command, &words[2..], reply, can("ESEARCH")),
            ("UID", "COPY") => self.copy(&words[2..], false, reply),
            ("UID", "MOVE") if can("MOVE") => self.copy(&words[2..], true, reply),
            _ => Err("BAD unknown command".into()),
        })
    }

    fn log_in(&mut self, user: &str, right: impl Fn(&Account) -> bool) -> Outcome {
        let found = self.server.state().accounts.iter().position(|account| account.user == user && right(account));
        let Some(found) = found else { return Err("NO [AUTHENTICATIONFAILED] Authentication failed.".into()) };
        self.account = Some(found);
        let manner = &self.server.manner;
        Ok(if manner.tells { format!("[CAPABILITY {}] logged in", manner.after) } else { "logged in".into() })
    }

    async fn authenticate(&mut self, mechanism: &str, words: Words<'_>) -> io::Result<Outcome> {
        if !self.server.manner.before.split(' ').any(|known| known == format!("AUTH={mechanism}")) {
            return Ok(Err("NO [CANNOT] unsupported mechanism".into()));
        }
        let response = match words.get(2) {
            Some(initial) if initial == b"=" => Vec::new(),
            Some(initial) => initial.clone(),
            None => self.ask("").await?,
        };
        let Some(response) = unbase64(&response) else { return Ok(Err("BAD no base64".into())) };
        let fields: Vec<&[u8]> = response.split(|octet| matches!(octet, 0 | 1)).collect();
        match mechanism {
            "PLAIN" => Ok(match fields[..] {
                [_, user, password] => {
                    self.log_in(&text(user), |account| account.password.as_deref() == Some(password))
                }
                _ => Err("BAD malformed response".into()),
            }),
            "LOGIN" => {
                let password = unbase64(&self.ask("UGFzc3dvcmQ6").await?).unwrap_or_default();
                Ok(self.log_in(&text(&response), |account| account.password.as_ref() == Some(&password)))
            }
            _ => {
                let first = text(fields[0]);
                let user =
                    first.strip_prefix("user=").or_else(|| first.split(',').find_map(|part| part.strip_prefix("a=")));
                let bearer = |account: &Account| account.token.as_ref().map(|token| format!("auth=Bearer {token}"));
                let right =
                    |account: &Account| bearer(account).is_some_and(|bearer| fields.contains(&bearer.as_bytes()));
                let outcome = self.log_in(user.unwrap_or_default(), right);
                if outcome.is_err() {
                    // {"status":"401"}: the client answers with a dummy before it is told NO (RFC 7628 §3.2.3).
                    self.ask("eyJzdGF0dXMiOiI0MDEifQ==").await?;
                }
                Ok(outcome)
            }
        }
    }

    /// Sends a continuation and reads the one line that answers it.
    async fn ask(&mut self, challenge: &str) -> io::Result<Vec<u8>> {
        self.line.write_all(format!("+ {challenge}\r\n").as_bytes()).await?;
        self.line.flush().await?;
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
                let text = text(&line);
                self.server.state().received.push(Received { connection: self.number, text });
                return Ok(line);
            }
            if self.line.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn start_tls(&mut self, command: &Command, reply: &mut Reply) -> io::Result<Outcome> {
        let Some(upgrade) = self.server.manner.upgrade.clone() else { return Ok(Err("BAD no TLS here".into())) };
        self.line.write_all(format!("{} OK begin TLS\r\n", command.tag).as_bytes()).await?;
        self.line.flush().await?;
        let plain = std::mem::replace(&mut self.line, Box::new(tokio::io::empty()));
        self.line = upgrade(plain).await?;
        reply.limit = Some(Limit { octets: 0, closes: false });
        Ok(Ok(String::new()))
    }

    fn list(&self, words: Words<'_>, reply: &mut Reply) -> Outcome {
        let special = text(&words[1]).to_ascii_uppercase().contains("SPECIAL-USE");
        let state = self.server.state();
        for mailbox in &state.accounts[self.account.unwrap_or_default()].mailboxes {
            let has = mailbox.attributes.split(' ').any(|attribute| !attribute.contains("Children"));
            if has || !special {
                reply.say(format!("* LIST ({}) \"/\" \"{}\"\r\n", mailbox.attributes, mailbox.name));
            }
        }
        Ok("done".into())
    }

    fn select(&mut self, name: &str, examine: bool, reply: &mut Reply) -> Outcome {
        self.selected = None;
        let mut state = self.server.state();
        let Some(mailbox) = state.accounts[self.account.unwrap_or_default()].mailbox(name) else {
            return Err("NO [NONEXISTENT] no such mailbox".into());
        };
        let mut flags: Vec<&str> = "\\Answered \\Flagged \\Deleted \\Seen \\Draft".split(' ').collect();
        for flag in mailbox.messages.iter().flat_map(|message| &message.flags) {
            if !flags.contains(&flag.as_str()) {
                flags.push(flag);
            }
        }
        reply.say(format!("* FLAGS ({})\r\n", flags.join(" ")));
        reply.say(format!("* OK [PERMANENTFLAGS ({})] limited\r\n", mailbox.permanent));
        reply.say(format!("* {} EXISTS\r\n* 0 RECENT\r\n", mailbox.messages.len()));
        if let Some(validity) = mailbox.uid_validity {
            reply.say(format!("* OK [UIDVALIDITY {validity}] UIDs valid\r\n"));
        }
        if !mailbox.sticky {
            reply.say("* NO [UIDNOTSTICKY] not for long\r\n");
        }
        if mailbox.tells_uid_next {
            reply.say(format!("* OK [UIDNEXT {}] next\r\n", mailbox.uid_next));
        }
        let read_only = examine || mailbox.read_only;
        self.selected = Some(Selected {
            name: mailbox.name.clone(),
            uids: mailbox.uids(),
            uid_validity: mailbox.uid_validity,
            read_only,
        });
        Ok(if read_only { "[READ-ONLY] opened".into() } else { "[READ-WRITE] opened".into() })
    }

    /// Lets a change at the mailbox.
    fn change<T>(&self, act: impl FnOnce(&mut Mailbox, &Selected) -> T) -> Option<T> {
        let selected = self.selected.as_ref()?;
        let mut state = self.server.state();
        let mailbox = state.accounts[self.account?].mailbox(&selected.name)?;
        Some(act(mailbox, selected))
    }

    /// Tells what this session does not know yet: EXPUNGE for what is gone, EXISTS for what arrived.
    fn news(&mut self, reply: &mut Reply) {
        let Some(now) = self.change(|mailbox, _| mailbox.uids()) else { return };
        let Some(selected) = &mut self.selected else { return };
        let before = selected.uids.len();
        for index in (0..before).rev() {
            if now.binary_search(&selected.uids[index]).is_err() {
                reply.say(format!("* {} EXPUNGE\r\n", index + 1));
                selected.uids.remove(index);
            }
        }
        if now.len() > selected.uids.len() {
            reply.say(format!("* {} EXISTS\r\n", now.len()));
        }
        selected.uids = now;
    }

    fn fetch(&self, words: Words<'_>, by_uid: bool, reply: &mut Reply, bodies: Bodies) -> Outcome {
        let [set, items] = words else { return Err("BAD arguments".into()) };
        let items = text(items).to_ascii_uppercase();
        let items: Vec<&str> = items.trim_start_matches('(').trim_end_matches(')').split(' ').collect();
        let uid_last = self.server.manner.uid_last;
        let fetched = self.change(|mailbox, selected| {
            let chosen = chosen(&text(set), by_uid, &selected.uids).ok_or("BAD arguments")?;
            let lowest = self.lowest(chosen.iter().map(|(_, uid)| *uid));
            for (number, uid) in chosen.into_iter().filter(|(_, uid)| lowest.is_none_or(|lowest| *uid >= lowest)) {
                if mailbox.unreadable.contains(&uid) {
                    if !self.server.manner.gives_what_it_can {
                        reply.data.clear();
                    }
                    return Err("NO Server error while fetching messages");
                }
                let Some(message) = mailbox.message(uid) else { continue };
                reply.message(number, message, &items, uid_last, bodies).ok_or("BAD arguments")?;
            }
            Ok(self.dealt_with(lowest))
        });
        fetched.unwrap_or(Err("BAD nothing selected")).map_err(String::from)
    }

    fn store(&mut self, words: Words<'_>, reply: &mut Reply) -> Outcome {
        let [set, item, flags] = words else { return Err("BAD arguments".into()) };
        let (item, flags) = (text(item).to_ascii_uppercase(), text(flags));
        let flags: Vec<&str> = flags.trim_matches(['(', ')']).split(' ').collect();
        let stored = self.change(|mailbox, selected| {
            if selected.read_only {
                return Err("NO Mailbox is read-only".to_string());
            }
            let chosen = chosen(&text(set), true, &selected.uids).ok_or("BAD arguments")?;
            for (number, uid) in chosen {
                for flag in flags.iter().filter(|flag| mailbox.permits(flag)).copied().collect::<Vec<_>>() {
                    match item.as_bytes()[0] {
                        b'+' => mailbox.flag(uid, flag),
                        _ => mailbox
                            .messages
                            .iter_mut()
                            .filter(|message| message.uid == uid)
                            .for_each(|message| message.flags.retain(|known| !known.eq_ignore_ascii_case(flag))),
                    }
                }
                if !item.ends_with(".SILENT")
                    && let Some(message) = mailbox.message(uid)
                {
                    reply.say(format!("* {number} FETCH (UID {uid} FLAGS ({}))\r\n", message.flags.join(" ")));
                }
            }
            Ok("done".to_string())
        });
        stored.unwrap_or_else(|| Err("BAD nothing selected".into()))
    }

    fn uid_expunge(&self, words: Words<'_>) -> Outcome {
        let expunged = self.change(|mailbox, selected| {
            let chosen = chosen(&text(&words[0]), true, &selected.uids)?;
            for (_, uid) in chosen {
                if !selected.read_only && mailbox.message(uid).is_some_and(|message| message.has("\\Deleted")) {
                    mailbox.expunge(uid);
                }
            }
            Some(())
        });
        if expunged.flatten().is_some() { Ok("done".into()) } else { Err("BAD arguments".into()) }
    }

    fn search(&self, command: &Command, words: Words<'_>, reply: &mut Reply, extended: bool) -> Outcome {
        let names: Vec<String> = words.iter().map(|word| text(word).to_ascii_uppercase()).collect();
        let (returns, keys) = match names.first().map(String::as_str) {
            Some("RETURN") if !extended => return Err("BAD no ESEARCH here".into()),
            Some("RETURN") => {
                let options = names.get(1).and_then(|options| options.strip_prefix('(')?.strip_suffix(')'));
                let is_known = |options: &str| options.split_whitespace().all(|one| matches!(one, "ALL" | "COUNT"));
                let Some(options) = options.filter(|options| is_known(options)) else {
                    return Err("BAD unknown result option".into());
                };
                (Some(options.to_owned()), &names[2..])
            }
            _ => (None, &names[..]),
        };
        let found = self.change(|mailbox, selected| {
            let found = mailbox.messages.iter().filter(|message| selected.uids.binary_search(&message.uid).is_ok());
            let mut found: Vec<&Message> = found.collect();
            let named = keys.windows(2).filter(|keys| keys[0] == "UID");
            for keys in named {
                let ranges = ranges(&keys[1], selected.uids.last().copied().unwrap_or(1))?;
                found.retain(|message| ranges.iter().any(|(from, to)| (*from..=*to).contains(&message.uid)));
            }
            let lowest = self.lowest(found.iter().map(|message| message.uid));
            found.retain(|message| lowest.is_none_or(|lowest| message.uid >= lowest));
            let mut keys = keys.iter();
            while let Some(key) = keys.next() {
                match key.as_str() {
                    "ALL" => {}
                    "DELETED" => found.retain(|message| message.has("\\Deleted")),
                    "UNDELETED" => found.retain(|message| !message.has("\\Deleted")),
                    "KEYWORD" => {
                        let keyword = keys.next()?;
                        found.retain(|message| message.has(keyword));
                    }
                    "UNKEYWORD" => {
                        let keyword = keys.next()?;
                        found.retain(|message| !message.has(keyword));
                    }
                    "UID" => drop(keys.next()?),
                    _ => return None,
                }
            }
            Some((found.iter().map(|message| message.uid.to_string()).collect::<Vec<_>>(), self.dealt_with(lowest)))
        });
        let Some((found, done)) = found.flatten() else { return Err("BAD unknown search key".into()) };
        let Some(returns) = returns else {
            reply.say(format!("* SEARCH{}{}\r\n", if found.is_empty() { "" } else { " " }, found.join(" ")));
            return Ok(done);
        };
        let mut line = format!("* ESEARCH (TAG \"{}\") UID", command.tag);
        if returns.contains("COUNT") {
            line.push_str(&format!(" COUNT {}", found.len()));
        }
        if (returns.contains("ALL") || returns.is_empty()) && !found.is_empty() {
            line.push_str(&format!(" ALL {}", found.join(",")));
        }
        reply.say(line + "\r\n");
        Ok(done)
    }

    /// The lowest of these UIDs, which ascend, with which a command deals; `None`: with all.
    fn lowest(&self, mut uids: impl ExactSizeIterator<Item = u32>) -> Option<u32> {
        let beyond = uids.len().checked_sub(self.server.manner.message_limit?).filter(|beyond| *beyond > 0)?;
        uids.nth(beyond)
    }

    /// What is said of a command that has dealt with these.
    fn dealt_with(&self, lowest: Option<u32>) -> String {
        match (lowest, self.server.manner.message_limit) {
            (Some(lowest), Some(limit)) => format!("[MESSAGELIMIT {limit} {lowest}] some"),
            _ => "done".into(),
        }
    }

    fn copy(&self, words: Words<'_>, moves: bool, reply: &mut Reply) -> Outcome {
        let [set, target] = words else { return Err("BAD arguments".into()) };
        let chosen = self.change(|mailbox, selected| {
            let chosen = chosen(&text(set), true, &selected.uids)?;
            Some(chosen.iter().filter_map(|(_, uid)| mailbox.message(*uid).cloned()).collect::<Vec<_>>())
        });
        let Some(chosen) = chosen.flatten() else { return Err("BAD arguments".into()) };
        let mut state = self.server.state();
        let account = &mut state.accounts[self.account.unwrap_or_default()];
        let Some(mailbox) = account.mailbox(&text(target)) else { return Err("NO [TRYCREATE] no such mailbox".into()) };
        let validity = mailbox.uid_validity.unwrap_or(1);
        let mut pairs = (Vec::new(), Vec::new());
        for message in &chosen {
            let uid = mailbox.deliver(message.content.clone());
            message.flags.iter().for_each(|flag| mailbox.flag(uid, flag));
            pairs.0.push(message.uid.to_string());
            pairs.1.push(uid.to_string());
        }
        let code = format!("[COPYUID {validity} {} {}] done", pairs.0.join(","), pairs.1.join(","));
        drop(state);
        if moves {
            self.change(|mailbox, _| chosen.iter().for_each(|message| mailbox.expunge(message.uid)));
            reply.say(format!("* OK {code}\r\n"));
        }
        Ok(if moves || chosen.is_empty() { "done".into() } else { code })
    }

    /// Sends the replies of one flight in the order that the server keeps.
    async fn send(&mut self, mut replies: Vec<Reply>) -> io::Result<()> {
        if replies.len() > 1 && replies.iter().all(|reply| reply.limit.is_none() && reply.pace.is_none()) {
            let mut tagged = Vec::new();
            replies.iter_mut().for_each(|reply| tagged.append(&mut reply.tagged));
            if self.server.manner.order == Order::Reversed {
                replies.reverse();
                replies.iter_mut().for_each(Reply::reverse);
            }
            replies.push(Reply { tagged, ..Reply::default() });
        }
        for reply in replies {
            let (closes, mut left) = reply.limit.map_or((false, u64::MAX), |limit| (limit.closes, limit.octets));
            for part in reply.data.into_iter().chain([Part::Text(reply.tagged)]) {
                left -= self.write(part, left, reply.pace).await?;
            }
            if closes {
                break;
            }
        }
        self.line.flush().await
    }

    /// Writes at most so many octets of a part; how many is given back.
    async fn write(&mut self, part: Part, most: u64, pace: Option<Pace>) -> io::Result<u64> {
        match part {
            Part::Text(mut text) => {
                text.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                self.put(&text, pace).await?;
                Ok(text.len() as u64)
            }
            Part::Content(content, range) => {
                let end = range.end.min(range.start.saturating_add(most));
                let mut at = range.start;
                while at < end {
                    let next = end.min(at + 65_536);
                    self.put(&content.slice(at..next), pace).await?;
                    at = next;
                }
                Ok(end - range.start)
            }
        }
    }

    async fn put(&mut self, octets: &[u8], pace: Option<Pace>) -> io::Result<()> {
        let Some((few, apart)) = pace else { return self.line.write_all(octets).await };
        for octets in octets.chunks(few) {
            tokio::time::sleep(apart).await;
            self.line.write_all(octets).await?;
            self.line.flush().await?;
        }
        Ok(())
    }
}

impl Reply {
    fn say(&mut self, octets: impl AsRef<[u8]>) {
        match self.data.last_mut() {
            Some(Part::Text(text)) => text.extend_from_slice(octets.as_ref()),
            _ => self.data.push(Part::Text(octets.as_ref().to_vec())),
        }
    }

    /// One FETCH response.
    fn message(
        &mut self,
        number: usize,
        message: &Message,
        items: &[&str],
        uid_last: bool,
        bodies: Bodies,
    ) -> Option<()> {
        let uid = format!("UID {}", message.uid);
        if items.iter().any(|item| item.starts_with("BODY")) {
            // Responses with a body can be put into another order, see `reverse`.
            self.data.push(Part::Text(Vec::new()));
        }
        self.say(format!("* {number} FETCH ("));
        let mut first = true;
        let mut item = |reply: &mut Self, text: &str| {
            reply.say(if std::mem::take(&mut first) { "" } else { " " });
            reply.say(text);
        };
        if !uid_last {
            item(self, &uid);
        }
        for name in items {
            match *name {
                "UID" => {}
                "RFC822.SIZE" => item(self, &format!("RFC822.SIZE {}", message.reported)),
                "FLAGS" => item(self, &format!("FLAGS ({})", message.flags.join(" "))),
                "INTERNALDATE" => item(self, &format!("INTERNALDATE \"{}\"", message.date)),
                body => {
                    let (range, echo) = window(body.strip_prefix("BODY.PEEK[]")?, message.content.len())?;
                    match bodies {
                        Bodies { none: true, .. } => continue,
                        Bodies { instead: Some(text), .. } => item(self, &format!("BODY[]{echo} {text}")),
                        Bodies { literal, .. } => {
                            let announced = (range.end - range.start).saturating_add_signed(literal);
                            item(self, &format!("BODY[]{echo} {{{announced}}}\r\n"));
                            self.data.push(Part::Content(message.content.clone(), range));
                        }
                    }
                }
            }
        }
        if uid_last {
            item(self, &uid);
        }
        self.say(")\r\n");
        Some(())
    }

    /// Turns the order of the FETCH responses round.
    fn reverse(&mut self) {
        let mut responses: Vec<Vec<Part>> = Vec::new();
        for part in self.data.drain(..) {
            match (&part, responses.last_mut()) {
                (Part::Text(text), _) if text.starts_with(b"* ") => responses.push(vec![part]),
                (_, Some(response)) => response.push(part),
                (_, None) => responses.push(vec![part]),
            }
        }
        self.data = responses.into_iter().rev().flatten().collect();
    }

    fn deviate(&mut self, what: &What, tag: &str) {
        let mut instead = |octets: Vec<u8>, closes: bool| {
            self.data.clear();
            self.limit = closes.then_some(Limit { octets: u64::MAX, closes });
            self.tagged = octets;
        };
        match what {
            What::Say(octets) => instead(tagged(octets, tag), false),
            What::No(text) => instead(format!("{tag} NO {text}\r\n").into(), false),
            What::Bad(text) => instead(format!("{tag} BAD {text}\r\n").into(), false),
            What::Bye(text) => instead(format!("* BYE {text}\r\n").into(), true),
            What::Close => instead(Vec::new(), true),
            What::Mute => instead(Vec::new(), false),
            What::Before(octets) => self.data.insert(0, Part::Text(tagged(octets, tag))),
            What::Tagged(octets) => self.tagged = tagged(octets, tag),
            What::Cut(octets) => self.limit = Some(Limit { octets: *octets, closes: true }),
            What::Stall(octets) => self.limit = Some(Limit { octets: *octets, closes: false }),
            What::Drip(octets, apart) => self.pace = Some((*octets, *apart)),
            What::Literal(_) | What::Body(_) | What::Bodiless | What::Act(_) => {}
        }
    }
}

/// Whether a command changes nothing, so that its data may come in any order.
fn reads_only(command: &Command) -> bool {
    command.octets.to_ascii_uppercase().starts_with(b"UID FETCH ")
}

/// The messages of a set as pairs of sequence number and UID.
fn chosen(set: &str, by_uid: bool, uids: &[u32]) -> Option<Vec<(usize, u32)>> {
    let last = if by_uid { uids.last().copied() } else { Some(uids.len() as u32) };
    let ranges = ranges(set, last.unwrap_or(1))?;
    let numbered = uids.iter().enumerate().map(|(index, uid)| (index + 1, *uid));
    let within = |key: u32| ranges.iter().any(|(from, to)| (*from..=*to).contains(&key));
    Some(numbered.filter(|(number, uid)| within(if by_uid { *uid } else { *number as u32 })).collect())
}

/// The octets that `<offset.length>` asks for, and how the response echoes it.
fn window(partial: &str, total: u64) -> Option<(Range<u64>, String)> {
    if partial.is_empty() {
        return Some((0..total, String::new()));
    }
    let (offset, length) = partial.strip_prefix('<')?.strip_suffix('>')?.split_once('.')?;
    let (offset, length): (u64, u64) = (offset.parse().ok()?, length.parse().ok()?);
    let from = offset.min(total);
    Some((from..from.saturating_add(length).min(total), format!("<{offset}>")))
}

fn tagged(octets: &[u8], tag: &str) -> Vec<u8> {
    octets.iter().flat_map(|octet| if *octet == b'$' { tag.as_bytes().to_vec() } else { vec![*octet] }).collect()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
