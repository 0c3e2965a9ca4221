//! A wire that shows what goes over it: octets pass as they are, and a copy of each line goes to the screen. Passwords
//! stay here: what is copied has dots in their place.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use popgate::net::Wire;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dialogue::{Leg, Line, Screen, Speaker};

/// One of popgate's wires.
#[derive(Debug)]
pub(crate) struct Tap {
    wire: Box<dyn Wire>,
    ear: Ear,
}

/// What hears both directions.
#[derive(Debug)]
struct Ear {
    leg: Leg,
    session: usize,
    screen: Screen,
    /// What each speaker has said of a line that is not complete.
    begun: [Vec<u8>; 2],
    /// The client's next line is a password, or something like one.
    awaits_secret: bool,
}

impl Tap {
    /// Taps a wire of the session with this number.
    pub(crate) fn new(wire: Box<dyn Wire>, leg: Leg, session: usize, screen: Screen) -> Self {
        Self { wire, ear: Ear { leg, session, screen, begun: Default::default(), awaits_secret: false } }
    }
}

impl Ear {
    /// popgate has read this.
    fn read(&mut self, octets: &[u8]) {
        // To POP3 clients popgate is the server; to the IMAP server it is the client.
        self.hear(if self.leg == Leg::Pop3 { Speaker::Client } else { Speaker::Server }, octets);
    }

    /// popgate has written this.
    fn written(&mut self, octets: &[u8]) {
        self.hear(if self.leg == Leg::Pop3 { Speaker::Server } else { Speaker::Client }, octets);
    }

    fn hear(&mut self, speaker: Speaker, octets: &[u8]) {
        for piece in octets.split_inclusive(|octet| *octet == b'\n') {
            let begun = &mut self.begun[speaker as usize];
            begun.extend_from_slice(piece);
            if begun.ends_with(b"\n") {
                let mut octets = std::mem::take(begun);
                octets.truncate(octets.len() - if octets.ends_with(b"\r\n") { 2 } else { 1 });
                match speaker {
                    Speaker::Server => self.awaits_secret = octets == b"+" || octets.starts_with(b"+ "),
                    Speaker::Client if std::mem::take(&mut self.awaits_secret) => octets = MASK.into(),
                    Speaker::Client => self.awaits_secret = mask(self.leg, &mut octets),
                }
                self.screen.line(Line { session: self.session, leg: self.leg, speaker, octets });
            }
        }
    }
}

/// Puts dots in the place of what only the two ends of the line should know. Whether the next line needs them is given
/// back: a client need not wait for the `+` that asks for it.
fn mask(leg: Leg, line: &mut Vec<u8>) -> bool {
    let words: Vec<&[u8]> = line.split(|octet| *octet == b' ').collect();
    // In IMAP the tag comes first.
    let command = usize::from(leg == Leg::Imap);
    let open = match words.get(command).map(|word| word.to_ascii_uppercase()).as_deref() {
        Some(b"PASS") => command + 1,
        // The mechanism, or the user, is no secret.
        Some(b"AUTH" | b"AUTHENTICATE" | b"APOP" | b"LOGIN") => command + 2,
        _ => return false,
    };
    let more = words.len() <= open || line.ends_with(b"}");
    if words.len() > open {
        *line = [&words[..open], &[MASK.as_bytes()]].concat().join(&b' ');
    }
    more
}

const MASK: &str = "••••••••";

impl Wire for Tap {
    fn abort(&mut self) {
        self.wire.abort();
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        self.ear.read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.wire).poll_write(cx, octets))?;
        self.ear.written(&octets[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::dialogue::Event, *};

    #[test]
    fn passwords_are_masked_wherever_they_may_stand() {
        for (leg, line, shown, more) in [
            (Leg::Pop3, "USER tim", "USER tim", false),
            (Leg::Pop3, "PASS sec ret", "PASS ••••••••", false),
            (Leg::Pop3, "pass secret", "pass ••••••••", false),
            (Leg::Pop3, "AUTH PLAIN", "AUTH PLAIN", true),
            (Leg::Pop3, "AUTH PLAIN AHRpbQBzZWNyZXQ=", "AUTH PLAIN ••••••••", false),
            (Leg::Pop3, "RETR 1", "RETR 1", false),
            (Leg::Imap, "A1 AUTHENTICATE PLAIN AHRpbQBzZWNyZXQ=", "A1 AUTHENTICATE PLAIN ••••••••", false),
            (Leg::Imap, "A1 LOGIN \"tim\" \"sec ret\"", "A1 LOGIN \"tim\" ••••••••", false),
            (Leg::Imap, "A1 LOGIN \"tim\" {7+}", "A1 LOGIN \"tim\" ••••••••", true),
            (Leg::Imap, "A1 SELECT INBOX", "A1 SELECT INBOX", false),
        ] {
            let mut octets = line.as_bytes().to_vec();
            assert_eq!(mask(leg, &mut octets), more, "{line}");
            assert_eq!(String::from_utf8(octets).unwrap(), shown);
        }
    }

    #[tokio::test]
    async fn the_answer_to_a_challenge_is_masked_and_crumbs_are_lines() {
        let (screen, mut events) = tokio::sync::mpsc::unbounded_channel();
        let (begun, screen) = (Default::default(), Screen(screen));
        let mut ear = Ear { leg: Leg::Pop3, session: 1, screen, begun, awaits_secret: false };
        ear.read(b"AUTH LOGIN\r");
        ear.read(b"\ndGl");
        ear.read(b"t\r\n");
        ear.written(b"+ \r\n+ \r\n");
        ear.read(b"c2VjcmV0\r\nCAPA\r\n");
        drop(ear);
        let mut lines = Vec::new();
        while let Some(Event::Line(line)) = events.recv().await {
            lines.push(String::from_utf8(line.octets).unwrap());
        }
        assert_eq!(lines, ["AUTH LOGIN", MASK, "+ ", "+ ", MASK, "CAPA"]);
    }
}
