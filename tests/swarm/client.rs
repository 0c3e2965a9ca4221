//! POP3 clients: what they do, how patiently, and what they tell the history of it. A client believes what it is told.

use std::{future::pending, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf},
    time::sleep,
};

use super::{chance::Chance, trace::Traced, world::Shared};
use crate::support::checker::{Quit, SessionId};

/// What a client is after.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Behaviour {
    /// Takes everything, one command after the other, and deletes it.
    Take,
    /// Reads some and leaves them on the server.
    Leave,
    /// Sends RETR and DELE for all, and QUIT, in one piece.
    Pipeline,
    /// Looks with TOP, and deletes what it has not read.
    Weed,
    /// Deletes and thinks better of it.
    Repent,
    /// Takes everything once nothing is wrong any more, and must get it.
    Finish,
}

pub(super) const BEHAVIOURS: [Behaviour; 5] =
    [Behaviour::Take, Behaviour::Leave, Behaviour::Pipeline, Behaviour::Weed, Behaviour::Repent];

/// With what a client proves who it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    Pass,
    Plain,
    XOAuth2,
    OAuthBearer,
}

pub(super) const PROOFS: [Proof; 6] =
    [Proof::Pass, Proof::Pass, Proof::Pass, Proof::Plain, Proof::XOAuth2, Proof::OAuthBearer];

/// How a client goes about it.
pub(super) struct Temper {
    pub(super) behaviour: Behaviour,
    pub(super) proof: Proof,
    /// It gives a wrong password first.
    pub(super) is_mistaken: bool,
    /// After so many lines, said or heard, it hangs up in the middle of the next.
    pub(super) patience: Option<u64>,
    /// Before so many lines in a hundred it waits this long.
    pub(super) slow: Option<(u64, Duration)>,
}

/// A client on its line.
pub(super) struct Client<'a> {
    pub(super) reader: BufReader<ReadHalf<Traced>>,
    /// Lent to whoever writes while this client reads.
    pub(super) writer: Option<WriteHalf<Traced>>,
    pub(super) user: &'a str,
    pub(super) temper: Temper,
    pub(super) chance: Chance,
    pub(super) shared: &'a Shared,
    /// What there is, where nobody changes it any more.
    pub(super) inbox: Option<Vec<u64>>,
    /// Once it is about to log in.
    pub(super) session: Option<SessionId>,
}

/// Why there is no line any more.
#[derive(Clone, Copy)]
pub(super) enum Gone {
    /// The client has hung up.
    Left,
    /// popgate has ended it.
    Ended,
}

impl Client<'_> {
    /// One session. `Ok(true)`: everything was as it should be when nothing is wrong.
    pub(super) async fn run(&mut self) -> Result<bool, Gone> {
        self.hear().await?;
        let session = self.shared.history(|history| history.began(self.user));
        self.session = Some(session);
        if self.temper.is_mistaken && self.pass("wrong").await?.starts_with("+OK") {
            self.shared.history(|history| history.let_in(session));
        }
        let reply = self.log_in().await?;
        if !reply.starts_with("+OK") {
            if reply.contains("[AUTH]") {
                self.shared.history(|history| history.accused(session, &reply));
            }
            self.ask("QUIT").await?;
            return Ok(false);
        }
        self.shared.count(|counts| counts.logins += 1);
        let ids = self.list(session).await?;
        match self.temper.behaviour {
            Behaviour::Take => {
                for (index, id) in ids.iter().enumerate() {
                    if self.retr(session, index + 1, *id).await? {
                        self.dele(session, index + 1, *id).await?;
                    }
                }
                self.quit(session).await.map(|_| true)
            }
            Behaviour::Finish => {
                let mut good = true;
                for (index, id) in ids.iter().enumerate() {
                    good &= self.retr(session, index + 1, *id).await?;
                    if self.chance.percent(50) {
                        good &= self.dele(session, index + 1, *id).await? || !self.shared.plan.accepts;
                    }
                }
                Ok(self.quit(session).await? == Quit::Done && good)
            }
            Behaviour::Leave => {
                for (index, id) in ids.iter().enumerate() {
                    if self.chance.percent(40) {
                        self.retr(session, index + 1, *id).await?;
                    }
                }
                self.quit(session).await.map(|_| true)
            }
            Behaviour::Weed => {
                for (index, id) in ids.iter().enumerate() {
                    if self.chance.percent(50) {
                        self.top(session, index + 1, *id).await?;
                    }
                    if self.chance.percent(30) {
                        self.dele(session, index + 1, *id).await?;
                    }
                }
                self.quit(session).await.map(|_| true)
            }
            Behaviour::Repent => {
                for (index, id) in ids.iter().enumerate() {
                    if self.chance.percent(40) {
                        self.dele(session, index + 1, *id).await?;
                    }
                }
                if self.ask("RSET").await?.starts_with("+OK") {
                    self.shared.history(|history| history.reset(session));
                }
                if let Some(id) = ids.first().filter(|_| self.chance.percent(50)) {
                    self.dele(session, 1, *id).await?;
                }
                self.quit(session).await.map(|_| true)
            }
            Behaviour::Pipeline => self.pipeline(session, &ids).await,
        }
    }

    /// Logs in with what is right; the last line that is said to that.
    async fn log_in(&mut self) -> Result<String, Gone> {
        let (password, token) = (password(self.user), token(self.user));
        let (mechanism, response) = match self.temper.proof {
            Proof::Pass => return self.pass(&password).await,
            Proof::Plain => ("PLAIN", format!("\0{}\0{password}", self.user)),
            Proof::XOAuth2 => ("XOAUTH2", format!("user={}\x01auth=Bearer {token}\x01\x01", self.user)),
            Proof::OAuthBearer => ("OAUTHBEARER", format!("n,a={},\x01auth=Bearer {token}\x01\x01", self.user)),
        };
        let reply = self.ask(&format!("AUTH {mechanism} {}", STANDARD.encode(response))).await?;
        // Why a token is refused is said before it is.
        if reply.starts_with('+') && !reply.starts_with("+OK") { self.ask("").await } else { Ok(reply) }
    }

    async fn pass(&mut self, password: &str) -> Result<String, Gone> {
        self.ask(&format!("USER {}", self.user)).await?;
        self.ask(&format!("PASS {password}")).await
    }

    async fn list(&mut self, session: SessionId) -> Result<Vec<u64>, Gone> {
        let (mut stat, mut sizes) = (None, None);
        if self.chance.percent(30) {
            let reply = self.ask("STAT").await?;
            let mut numbers = reply.split(' ').skip(1).map_while(|number| number.parse().ok());
            stat = numbers.next().zip(numbers.next());
            if self.ask("LIST").await?.starts_with("+OK") {
                sizes =
                    Some(second_words(&self.body().await?).iter().flat_map(|size| size.parse()).collect::<Vec<_>>());
            }
        }
        if !self.ask("UIDL").await?.starts_with("+OK") {
            return Err(Gone::Left);
        }
        let unique_ids = second_words(&self.body().await?);
        let unique_ids: Vec<&str> = unique_ids.iter().map(String::as_str).collect();
        Ok(self.shared.history(|history| {
            let ids = history.listed(session, &unique_ids);
            if let Some((count, octets)) = stat {
                history.summed(session, &ids, count, octets);
            }
            if let Some(sizes) = &sizes {
                history.measured(session, &ids, sizes);
            }
            if let Some(inbox) = &self.inbox {
                history.compared(session, &ids, inbox);
            }
            ids
        }))
    }

    /// Whether the message came whole.
    async fn retr(&mut self, session: SessionId, number: usize, id: u64) -> Result<bool, Gone> {
        self.say(format!("RETR {number}\r\n").as_bytes()).await?;
        let heard = self.message(session, id).await;
        self.may_be_seen(heard, &[id]);
        heard
    }

    /// Hears what RETR is answered.
    async fn message(&mut self, session: SessionId, id: u64) -> Result<bool, Gone> {
        let reply = self.hear().await?;
        if !self.granted(session, id, &reply) {
            return Ok(false);
        }
        let body = self.body().await?;
        self.shared.history(|history| {
            history.fetched(session, id, &body);
            history.announced(session, id, reply.split(' ').nth(1).and_then(|octets| octets.parse().ok()).unwrap_or(0));
        });
        self.shared.count(|counts| counts.fetches += 1);
        Ok(true)
    }

    /// After RETR of the first of these messages, and of the others where they were asked for in one piece. What popgate had
    /// handed over to the line when the client left it was sent, for all that popgate knows; what it broke off was not.
    fn may_be_seen(&self, heard: Result<bool, Gone>, ids: &[u64]) {
        let sent = match heard {
            Ok(true) => &ids[..1],
            Err(Gone::Left) => ids,
            Ok(false) | Err(Gone::Ended) => &[],
        };
        if self.shared.plan.marks {
            self.shared.history(|history| sent.iter().for_each(|id| history.seen(*id)));
        }
    }

    /// Whether a message follows this reply to RETR or TOP.
    fn granted(&self, session: SessionId, id: u64, reply: &str) -> bool {
        if reply.contains("removed by another client") {
            self.shared.history(|history| history.told_gone(session, id));
        }
        reply.starts_with("+OK")
    }

    async fn top(&mut self, session: SessionId, number: usize, id: u64) -> Result<(), Gone> {
        let lines = self.chance.pick(&[0, 5, 100, 99_999_999]);
        let reply = self.ask(&format!("TOP {number} {lines}")).await?;
        if self.granted(session, id, &reply) {
            let body = self.body().await?;
            self.shared.history(|history| history.peeked(session, id, lines, &body));
            self.shared.count(|counts| counts.peeks += 1);
        }
        Ok(())
    }

    async fn dele(&mut self, session: SessionId, number: usize, id: u64) -> Result<bool, Gone> {
        let accepted = self.ask(&format!("DELE {number}")).await?.starts_with("+OK");
        if accepted && self.shared.plan.records {
            self.shared.history(|history| history.deleted(session, id));
        }
        Ok(accepted)
    }

    async fn quit(&mut self, session: SessionId) -> Result<Quit, Gone> {
        self.shared.history(|history| history.quitting(session));
        let said = self.say(b"QUIT\r\n").await;
        if said.is_err() {
            // Not all of it: that is no QUIT.
            self.shared.history(|history| history.quit(session, Quit::Nothing));
        }
        said?;
        self.farewell(session).await
    }

    /// QUIT has been said.
    async fn farewell(&mut self, session: SessionId) -> Result<Quit, Gone> {
        let heard = match self.temper.patience {
            Some(_) if self.chance.percent(50) => Err(Gone::Left),
            _ => self.hear().await,
        };
        let answer = match &heard {
            Ok(reply) if reply.starts_with("+OK") => Quit::Done,
            Ok(reply) if reply.contains("nothing deleted") => Quit::Nothing,
            Ok(_) => Quit::Refused,
            Err(_) => Quit::Unanswered,
        };
        self.shared.history(|history| history.quit(session, answer));
        heard.map(|_| answer)
    }

    /// Everything at once. What a DELE whose answer never came has done is not known.
    async fn pipeline(&mut self, session: SessionId, ids: &[u64]) -> Result<bool, Gone> {
        let mut commands: String =
            (1..=ids.len()).map(|number| format!("RETR {number}\r\nDELE {number}\r\n")).collect();
        let quits = self.temper.patience.is_none() || self.chance.percent(50);
        commands += if quits { "QUIT\r\n" } else { "NOOP\r\n" };
        self.shared.history(|history| {
            if self.shared.plan.records {
                ids.iter().for_each(|id| history.deleted(session, *id));
            }
            if quits {
                history.quitting(session);
            }
        });
        // It reads while it writes, or two full lines would wait for one another.
        let mut writer = self.writer.take().ok_or(Gone::Left)?;
        let write = async {
            let _ = writer.write_all(commands.as_bytes()).await;
            pending::<()>().await;
        };
        let heard = tokio::select! {
            biased;
            heard = self.pipelined(session, ids) => heard,
            () = write => Ok(()),
        };
        self.writer = Some(writer);
        match (heard, quits) {
            (Ok(()), true) => self.farewell(session).await.map(|answer| answer == Quit::Done),
            (Ok(()), false) => Ok(false),
            (Err(gone), true) => {
                // Nothing is changed before everything that the client is owed has been handed over. So popgate has not come to
                // the QUIT if it has ended the line before that: a message that breaks off ends the session, whatever was
                // said behind it.
                let answer = if matches!(gone, Gone::Ended) { Quit::Nothing } else { Quit::Unanswered };
                self.shared.history(|history| history.quit(session, answer));
                Err(gone)
            }
            (Err(gone), false) => Err(gone),
        }
    }

    async fn pipelined(&mut self, session: SessionId, ids: &[u64]) -> Result<(), Gone> {
        for (index, id) in ids.iter().enumerate() {
            let heard = self.message(session, *id).await;
            self.may_be_seen(heard, &ids[index..]);
            heard?;
            let deleted = self.hear().await;
            self.may_be_seen(deleted.as_ref().map(|_| false).map_err(|gone| *gone), &ids[index..]);
            if !deleted?.starts_with("+OK") {
                self.shared.history(|history| history.refused(session, *id));
            }
        }
        Ok(())
    }

    async fn ask(&mut self, command: &str) -> Result<String, Gone> {
        self.say(format!("{command}\r\n").as_bytes()).await?;
        self.hear().await
    }

    async fn say(&mut self, octets: &[u8]) -> Result<(), Gone> {
        let waited = self.wait().await;
        let writer = self.writer.as_mut().ok_or(Gone::Left)?;
        if waited.is_err() {
            let _ = writer.write_all(&octets[..octets.len() / 2]).await;
            return Err(Gone::Left);
        }
        writer.write_all(octets).await.map_err(|_| Gone::Ended)
    }

    /// The next line, without its end.
    async fn hear(&mut self) -> Result<String, Gone> {
        let mut line = Vec::new();
        self.read(&mut line).await?;
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// A multi-line reply to its dot, as it is on the wire.
    async fn body(&mut self) -> Result<Vec<u8>, Gone> {
        let mut body = Vec::new();
        loop {
            let start = body.len();
            self.read(&mut body).await?;
            if &body[start..] == b".\r\n" && (start == 0 || body[..start].ends_with(b"\r\n")) {
                body.truncate(start);
                return Ok(body);
            }
        }
    }

    async fn read(&mut self, line: &mut Vec<u8>) -> Result<(), Gone> {
        self.wait().await?;
        match self.reader.read_until(b'\n', line).await {
            Ok(1..) if line.ends_with(b"\n") => Ok(()),
            _ => Err(Gone::Ended),
        }
    }

    /// Before each line: time passes, and patience with it.
    async fn wait(&mut self) -> Result<(), Gone> {
        if let Some(patience) = &mut self.temper.patience {
            *patience = patience.checked_sub(1).ok_or(Gone::Left)?;
        }
        if let Some((often, long)) = self.temper.slow
            && self.chance.percent(often)
        {
            sleep(long).await;
        }
        Ok(())
    }
}

/// What nobody but this user has, and no log.
pub(super) fn password(user: &str) -> String {
    format!("{} {user}", SECRETS[0])
}

/// The same for log-ins by token.
pub(super) fn token(user: &str) -> String {
    format!("{}.{user}", SECRETS[1])
}

/// What all passwords begin with, and all tokens.
pub(super) const SECRETS: [&str; 2] = ["Kanarienvogel", "ya29.Kanarienschein"];

/// The second word of each line.
fn second_words(lines: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(lines);
    text.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}
