//! POP3 clients: what they do, how patiently, and what they tell the history of it. A client believes what it is told.

use std::{future::pending, time::Duration};

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

/// How a client goes about it.
pub(super) struct Temper {
    pub(super) behaviour: Behaviour,
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
}

/// The line ended, or the client has hung up.
pub(super) struct Gone;

impl Client<'_> {
    /// One session. `Ok(true)`: everything was as it should be when nothing is wrong.
    pub(super) async fn run(&mut self) -> Result<bool, Gone> {
        self.hear().await?;
        self.ask(&format!("USER {}", self.user)).await?;
        let session = self.shared.history(|history| history.began(self.user));
        let reply = self.ask("PASS secret").await?;
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

    async fn list(&mut self, session: SessionId) -> Result<Vec<u64>, Gone> {
        if self.chance.percent(30) {
            self.ask("STAT").await?;
            if self.ask("LIST").await?.starts_with("+OK") {
                self.body().await?;
            }
        }
        if !self.ask("UIDL").await?.starts_with("+OK") {
            return Err(Gone);
        }
        let body = self.body().await?;
        let text = String::from_utf8_lossy(&body);
        let unique_ids: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        Ok(self.shared.history(|history| history.listed(session, &unique_ids)))
    }

    /// Whether the message came whole.
    async fn retr(&mut self, session: SessionId, number: usize, id: u64) -> Result<bool, Gone> {
        self.say(format!("RETR {number}\r\n").as_bytes()).await?;
        self.message(session, id).await
    }

    /// Hears what RETR is answered.
    async fn message(&mut self, session: SessionId, id: u64) -> Result<bool, Gone> {
        let reply = self.hear().await?;
        if !reply.starts_with("+OK") {
            if reply.contains("removed by another client") {
                self.shared.history(|history| history.told_gone(session, id));
            }
            return Ok(false);
        }
        let body = self.body().await?;
        self.shared.history(|history| history.fetched(session, id, &body));
        self.shared.count(|counts| counts.fetches += 1);
        Ok(true)
    }

    async fn top(&mut self, session: SessionId, number: usize, id: u64) -> Result<(), Gone> {
        let lines = self.chance.pick(&[0, 5, 100, 99_999_999]);
        if self.ask(&format!("TOP {number} {lines}")).await?.starts_with("+OK") {
            let body = self.body().await?;
            self.shared.history(|history| history.peeked(session, id, &body));
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
        if self.temper.patience == Some(0) {
            self.say(b"QUIT\r\n").await?; // Half of it: that is no QUIT.
        }
        self.shared.history(|history| history.quitting(session));
        let said = self.say(b"QUIT\r\n").await;
        self.farewell(session, said).await
    }

    async fn farewell(&mut self, session: SessionId, said: Result<(), Gone>) -> Result<Quit, Gone> {
        let heard = match said {
            Ok(()) if self.temper.patience.is_some() && self.chance.percent(50) => Err(Gone),
            Ok(()) => self.hear().await,
            Err(gone) => Err(gone),
        };
        let answer = match &heard {
            Ok(reply) if reply.starts_with("+OK") => Quit::Done,
            Ok(reply) if reply.contains("nothing deleted") => Quit::Nothing,
            Ok(_) => Quit::Refused,
            Err(Gone) => Quit::Unanswered,
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
        let mut writer = self.writer.take().ok_or(Gone)?;
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
        match quits {
            true => self.farewell(session, heard).await.map(|answer| answer == Quit::Done),
            false => heard.map(|()| false),
        }
    }

    async fn pipelined(&mut self, session: SessionId, ids: &[u64]) -> Result<(), Gone> {
        for id in ids {
            self.message(session, *id).await?;
            if !self.hear().await?.starts_with("+OK") {
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
        let writer = self.writer.as_mut().ok_or(Gone)?;
        if waited.is_err() {
            let _ = writer.write_all(&octets[..octets.len() / 2]).await;
            return Err(Gone);
        }
        writer.write_all(octets).await.map_err(|_| Gone)
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
            _ => Err(Gone),
        }
    }

    /// Before each line: time passes, and patience with it.
    async fn wait(&mut self) -> Result<(), Gone> {
        if let Some(patience) = &mut self.temper.patience {
            *patience = patience.checked_sub(1).ok_or(Gone)?;
        }
        if let Some((often, long)) = self.temper.slow
            && self.chance.percent(often)
        {
            sleep(long).await;
        }
        Ok(())
    }
}
