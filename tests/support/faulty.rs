//! popgate's end of an in-memory line that goes wrong at one octet, and a tape of all that went over it. Nothing here is
//! left to chance: the same plan on the same dialogue does the same.

use std::{
    fmt, io,
    ops::RangeInclusive,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use popgate::net::Wire;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// What goes wrong with a line, where, and in which direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) towards: Towards,
    pub(crate) place: Place,
    pub(crate) fault: Fault,
}

/// Seen from popgate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Towards {
    /// What popgate reads.
    Popgate,
    /// What popgate writes.
    Peer,
}

/// Where the fault is, in the octets of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Behind so many octets.
    Octet(usize),
    /// Behind so many octets of the how many-th TLS record (RFC 8446 §5.1), from 0.
    Record(usize, usize),
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Fault {
    /// This direction ends in good order; the other one goes on.
    End,
    /// Both directions are reset.
    Reset,
    /// Nothing comes through in this direction any more. Nobody is told.
    Stall,
    /// For so long nothing comes through; then all of it does.
    Pause(Duration),
    /// The next octet is another one.
    Garbage,
    /// The chunk that came last comes once more.
    Twice,
    /// The same, and both are read as one. Only popgate reads.
    Doubled,
}

impl Fault {
    /// Whether octets arrive that were not sent.
    pub(crate) const fn alters(self) -> bool {
        matches!(self, Self::Garbage | Self::Twice | Self::Doubled)
    }
}

/// What a garbage octet becomes. No digit becomes one, and no other octet of a number either.
pub(crate) const fn garbled(octet: u8) -> u8 {
    octet ^ 0x55
}

/// What went over a line, as popgate saw it.
#[derive(Clone, Default)]
pub(crate) struct Tape {
    /// What popgate read, whatever the peer had sent.
    pub(crate) heard: Vec<u8>,
    /// What popgate wrote and was rid of, whether it arrived or not.
    pub(crate) said: Vec<u8>,
    /// popgate broke the line on purpose.
    pub(crate) aborted: bool,
    /// The fault has happened.
    pub(crate) struck: bool,
    /// If it has not by now, it will not.
    pub(crate) healed: bool,
    /// Nothing is noted yet, and nothing goes wrong: octets are counted from when it wakes.
    pub(crate) asleep: bool,
}

impl Tape {
    fn hear(&mut self, octets: &[u8]) {
        if !self.asleep {
            self.heard.extend_from_slice(octets);
        }
    }

    fn say(&mut self, octets: &[u8]) {
        if !self.asleep {
            self.said.extend_from_slice(octets);
        }
    }
}

/// popgate's end of a line.
pub(crate) struct Faulty<L> {
    /// `None` when it is broken.
    line: Option<L>,
    plan: Option<Plan>,
    ruler: Ruler,
    /// Read from the peer, and not yet by popgate.
    ahead: Vec<u8>,
    /// The last chunk of the direction that is to fail, up to the place of the fault.
    last: Vec<u8>,
    /// On its way to the peer once more.
    again: Vec<u8>,
    pause: Option<Pin<Box<Sleep>>>,
    /// How much was written into a line that carries nothing.
    swallowed: usize,
    tape: Arc<Mutex<Tape>>,
}

impl<L: Wire> Faulty<L> {
    /// This end of a line, to be used by popgate; `None` for a plan makes it a good one.
    pub(crate) fn new(line: L, plan: Option<Plan>) -> (Self, Arc<Mutex<Tape>>) {
        let tape = Arc::<Mutex<Tape>>::default();
        let plain = plan.is_some_and(|plan| matches!(plan.place, Place::Octet(_)));
        let faulty = Self {
            line: Some(line),
            plan,
            ruler: Ruler { plain, ..Ruler::default() },
            ahead: Vec::new(),
            last: Vec::new(),
            again: Vec::new(),
            pause: None,
            swallowed: 0,
            tape: Arc::clone(&tape),
        };
        (faulty, tape)
    }

    /// The plan, if it is for this direction.
    fn plan(&self, towards: Towards) -> Option<Plan> {
        let is_due = || {
            let tape = self.tape.lock().unwrap();
            !tape.asleep && (tape.struck || !tape.healed)
        };
        self.plan.filter(|plan| plan.towards == towards && is_due())
    }

    fn has_struck(&self) -> bool {
        self.tape.lock().unwrap().struck
    }

    /// The fault that holds in this direction from now on, if any.
    fn holds(&self, towards: Towards) -> Option<Fault> {
        self.plan(towards).filter(|_| self.has_struck()).map(|plan| plan.fault)
    }

    /// The fault happens.
    fn strike(&mut self, plan: Plan, cx: &mut Context<'_>) {
        self.tape.lock().unwrap().struck = true;
        match (plan.fault, plan.towards) {
            (Fault::Reset, _) => {
                self.line = None;
                self.ahead.clear();
            }
            (Fault::Pause(time), _) => self.pause = Some(Box::pin(sleep(time))),
            (Fault::End, Towards::Peer) => {
                if let Some(line) = &mut self.line {
                    // In-memory lines end at once.
                    let _ = Pin::new(line).poll_shutdown(cx);
                }
            }
            (Fault::Twice, Towards::Peer) => self.again = std::mem::take(&mut self.last),
            (Fault::Twice, Towards::Popgate) => {
                let behind = std::mem::replace(&mut self.ahead, std::mem::take(&mut self.last));
                self.ahead.extend(behind);
            }
            (Fault::End | Fault::Stall | Fault::Garbage | Fault::Doubled, _) => {}
        }
    }

    /// What is due on the way to the peer at this moment, whether popgate writes or not; `next` is what it is about to write.
    fn attend(&mut self, next: &[u8], cx: &mut Context<'_>) -> Poll<()> {
        if let Some(plan) = self.plan(Towards::Peer)
            && !self.has_struck()
            && plan.fault != Fault::Garbage
            && self.ruler.find(plan.place, next) == Some(0)
        {
            self.strike(plan, cx);
        }
        while let (false, Some(line)) = (self.again.is_empty(), &mut self.line) {
            match ready!(Pin::new(line).poll_write(cx, &self.again)) {
                Ok(written) => drop(self.again.drain(..written)),
                Err(_) => self.again.clear(),
            }
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn line(&mut self) -> io::Result<Pin<&mut L>> {
        self.line.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl<L: Wire> AsyncRead for Faulty<L> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.plan(Towards::Peer).is_some() {
            // A pause on the other way is none here.
            let _ = this.attend(&[], cx);
        }
        loop {
            if let (Some(pause), true) = (&mut this.pause, this.plan.is_some_and(|p| p.towards == Towards::Popgate)) {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match this.holds(Towards::Popgate) {
                Some(Fault::End) => return Poll::Ready(Ok(())),
                Some(Fault::Stall) => return Poll::Pending,
                _ => {}
            }
            let due = this.plan(Towards::Popgate).filter(|_| !this.has_struck());
            let find = due.and_then(|plan| this.ruler.find(plan.place, &this.ahead));
            if let (Some(plan), Some(at)) = (due, find)
                && (at == 0 || plan.fault == Fault::Doubled)
                && (plan.fault != Fault::Garbage || !this.ahead.is_empty())
            {
                this.strike(plan, cx);
                match plan.fault {
                    Fault::Garbage => this.ahead[0] = garbled(this.ahead[0]),
                    Fault::Doubled => {
                        let again = [&this.last, &this.ahead[..at]].concat();
                        this.ahead.splice(at..at, again);
                    }
                    _ => {}
                }
                continue;
            }
            if !this.ahead.is_empty() {
                let most = find.filter(|at| *at > 0).unwrap_or(usize::MAX);
                let octets: Vec<u8> = this.ahead.drain(..this.ahead.len().min(buf.remaining()).min(most)).collect();
                if due.is_some() {
                    this.ruler.pass(&octets);
                    this.last.extend_from_slice(&octets);
                }
                buf.put_slice(&octets);
                this.tape.lock().unwrap().hear(&octets);
                return Poll::Ready(Ok(()));
            }
            let mut room = [0; 8192];
            let mut read = ReadBuf::new(&mut room);
            ready!(this.line()?.poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ahead.extend_from_slice(read.filled());
            this.last.clear();
        }
    }
}

impl<L: Wire> AsyncWrite for Faulty<L> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(plan) = this.plan(Towards::Peer) else {
            let written = ready!(this.line()?.poll_write(cx, buf))?;
            this.tape.lock().unwrap().say(&buf[..written]);
            return Poll::Ready(Ok(written));
        };
        ready!(this.attend(buf, cx));
        let struck = this.has_struck();
        let swallows = struck && matches!(plan.fault, Fault::End | Fault::Stall);
        let written = if swallows {
            if this.swallowed > ROOM {
                return Poll::Pending;
            }
            this.swallowed += buf.len();
            buf.len()
        } else {
            let find = this.ruler.find(plan.place, buf).filter(|_| !struck);
            match find {
                Some(0) if plan.fault == Fault::Garbage && !buf.is_empty() => {
                    let written = ready!(this.line()?.poll_write(cx, &[garbled(buf[0])]))?;
                    this.tape.lock().unwrap().struck = written > 0;
                    written
                }
                find => {
                    let most = find.filter(|at| *at > 0).unwrap_or(buf.len());
                    ready!(this.line()?.poll_write(cx, &buf[..most]))?
                }
            }
        };
        this.tape.lock().unwrap().say(&buf[..written]);
        if !struck {
            this.ruler.pass(&buf[..written]);
            this.last = buf[..written].to_vec();
            let _ = this.attend(&[], cx);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.plan(Towards::Peer).is_some() {
            let _ = self.attend(&[], cx);
        }
        self.line()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.plan(Towards::Peer).is_some() {
            ready!(self.attend(&[], cx));
        }
        match self.holds(Towards::Peer) {
            Some(Fault::Stall) => Poll::Ready(Ok(())),
            _ => self.line()?.poll_shutdown(cx),
        }
    }
}

impl<L: Wire> Wire for Faulty<L> {
    fn abort(&mut self) {
        self.tape.lock().unwrap().aborted = true;
        if let Some(mut line) = self.line.take() {
            line.abort();
        }
    }
}

impl<L> fmt::Debug for Faulty<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// How far one direction has come, in octets and in TLS records.
#[derive(Clone, Default)]
struct Ruler {
    /// There are no records.
    plain: bool,
    /// The first one has begun. What is said before it is in the clear.
    secured: bool,
    octets: usize,
    record: usize,
    inside: usize,
    /// How long the record is, header included; known when its header has passed.
    length: Option<usize>,
    header: [u8; HEADER],
}

impl Ruler {
    /// How many of these octets pass before the place is reached; `None` if they do not reach it.
    fn find(&self, place: Place, octets: &[u8]) -> Option<usize> {
        match place {
            Place::Octet(octet) => octet.checked_sub(self.octets).filter(|at| *at <= octets.len()),
            Place::Record(record, inside) => {
                let mut ruler = self.clone();
                for at in 0..=octets.len() {
                    // Where the first one begins is known by its first octet.
                    let begins = || octets.get(at).is_some_and(|octet| CONTENT_TYPES.contains(octet));
                    if (ruler.record, ruler.inside) == (record, inside) && (ruler.secured || begins()) {
                        return Some(at);
                    }
                    ruler.pass(octets.get(at..=at).unwrap_or_default());
                }
                None
            }
        }
    }

    fn pass(&mut self, octets: &[u8]) {
        self.octets += octets.len();
        if self.plain {
            return;
        }
        for octet in octets {
            self.secured |= CONTENT_TYPES.contains(octet);
            if !self.secured {
                continue;
            }
            if let Some(place) = self.header.get_mut(self.inside) {
                *place = *octet;
            }
            self.inside += 1;
            if self.inside == HEADER {
                self.length = Some(HEADER + usize::from(u16::from_be_bytes([self.header[3], self.header[4]])));
            }
            if Some(self.inside) == self.length {
                (self.record, self.inside, self.length) = (self.record + 1, 0, None);
            }
        }
    }
}

/// How many of these octets are in the clear, before the first TLS record.
pub(crate) fn clear(octets: &[u8]) -> usize {
    octets.iter().position(|octet| CONTENT_TYPES.contains(octet)).unwrap_or(octets.len())
}

/// The lengths of the TLS records in these octets, headers included.
pub(crate) fn records(octets: &[u8]) -> Vec<usize> {
    let octets = &octets[clear(octets)..];
    let mut ruler = Ruler::default();
    let mut lengths = Vec::new();
    for octet in octets {
        let inside = ruler.inside;
        ruler.pass(&[*octet]);
        if ruler.inside == 0 {
            lengths.push(inside + 1);
        }
    }
    lengths
}

/// What a TLS record begins with, and no line of text.
const CONTENT_TYPES: RangeInclusive<u8> = 0x14..=0x17;

/// The header of a TLS record.
const HEADER: usize = 5;

/// How much a dead line takes before it takes no more, as the buffers of TCP would.
const ROOM: usize = 65_536;

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{Instant, timeout},
    };

    use super::*;

    /// What arrives of `abcdef` in two chunks of three; whether the end came with it.
    async fn arrives(towards: Towards, place: Place, fault: Fault) -> (String, &'static str) {
        let (near, far) = tokio::io::duplex(64);
        let (faulty, _) = Faulty::new(near, Some(Plan { towards, place, fault }));
        let (mut from, mut to): (Box<dyn AsyncRead + Unpin>, Box<dyn AsyncWrite + Unpin>) = match towards {
            Towards::Popgate => (Box::new(faulty), Box::new(far)),
            Towards::Peer => (Box::new(far), Box::new(faulty)),
        };
        let mut came = Vec::new();
        let mut end = "open";
        for chunk in ["abc", "def", ""] {
            let _ = to.write_all(chunk.as_bytes()).await;
            let mut room = [0; 64];
            while let Ok(read) = timeout(Duration::from_secs(9), from.read(&mut room)).await {
                match read {
                    Ok(0) => end = "end",
                    Ok(read) => came.extend_from_slice(&room[..read]),
                    Err(_) => end = "reset",
                }
                if end != "open" {
                    break;
                }
            }
        }
        (String::from_utf8_lossy(&came).into_owned(), end)
    }

    #[tokio::test(start_paused = true)]
    async fn every_fault_in_both_directions() {
        for (towards, broken) in [(Towards::Popgate, "reset"), (Towards::Peer, "end")] {
            for (place, fault, came, end) in [
                (Place::Octet(2), Fault::End, "ab", "end"),
                (Place::Octet(3), Fault::End, "abc", "end"),
                (Place::Octet(0), Fault::Reset, "", broken),
                (Place::Octet(4), Fault::Reset, "abcd", broken),
                (Place::Octet(3), Fault::Stall, "abc", "open"),
                (Place::Octet(2), Fault::Pause(Duration::from_secs(5)), "abcdef", "open"),
                (Place::Octet(0), Fault::Garbage, "4bcdef", "open"),
                (Place::Octet(5), Fault::Garbage, "abcde3", "open"),
                (Place::Octet(6), Fault::Garbage, "abcdef", "open"),
                (Place::Octet(2), Fault::Twice, "ababcdef", "open"),
                (Place::Octet(3), Fault::Twice, "abcabcdef", "open"),
                (Place::Octet(5), Fault::Twice, "abcdedef", "open"),
            ] {
                let arrived = arrives(towards, place, fault).await;
                assert_eq!(arrived, (came.into(), end), "{towards:?} {place:?} {fault:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_doubled_is_read_as_one() {
        for (octet, came) in [(0, "abc"), (2, "ababc"), (3, "abcabc"), (4, "abc")] {
            let (near, mut far) = tokio::io::duplex(64);
            let plan = Plan { towards: Towards::Popgate, place: Place::Octet(octet), fault: Fault::Doubled };
            let (mut faulty, _) = Faulty::new(near, Some(plan));
            far.write_all(b"abc").await.unwrap();
            let mut room = [0; 64];
            let read = faulty.read(&mut room).await.unwrap();
            assert_eq!(&room[..read], came.as_bytes(), "{octet}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_as_long_as_it_says() {
        for towards in [Towards::Popgate, Towards::Peer] {
            let begun = Instant::now();
            let (near, mut far) = tokio::io::duplex(64);
            let fault = Fault::Pause(Duration::from_secs(70));
            let (mut faulty, tape) = Faulty::new(near, Some(Plan { towards, place: Place::Octet(1), fault }));
            let mut room = [0; 2];
            match towards {
                Towards::Popgate => {
                    far.write_all(b"ab").await.unwrap();
                    faulty.read_exact(&mut room).await.unwrap();
                }
                Towards::Peer => {
                    faulty.write_all(b"ab").await.unwrap();
                    far.read_exact(&mut room).await.unwrap();
                }
            }
            assert_eq!((&room, begun.elapsed().as_secs()), (b"ab", 70), "{towards:?}");
            assert!(tape.lock().unwrap().struck);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_before_is_not_counted() {
        for towards in [Towards::Popgate, Towards::Peer] {
            let (near, mut far) = tokio::io::duplex(64);
            let plan = Plan { towards, place: Place::Octet(1), fault: Fault::Garbage };
            let (mut faulty, tape) = Faulty::new(near, Some(plan));
            let mut came = [0; 2];
            for (asleep, expected) in [(true, b"ab"), (false, b"a7")] {
                tape.lock().unwrap().asleep = asleep;
                match towards {
                    Towards::Popgate => {
                        far.write_all(b"ab").await.unwrap();
                        faulty.read_exact(&mut came).await.unwrap();
                    }
                    Towards::Peer => {
                        faulty.write_all(b"ab").await.unwrap();
                        far.read_exact(&mut came).await.unwrap();
                    }
                }
                assert_eq!(&came, expected, "{towards:?}");
            }
            let tape = tape.lock().unwrap();
            assert_eq!(tape.heard.len() + tape.said.len(), 2, "{towards:?}");
        }
    }

    #[test]
    fn places_in_records_are_found() {
        let octets = [b"\x16\x03\x01\x00\x02hi".as_slice(), b"\x17\x03\x03\x00\x00", b"\x17\x03\x03\x00\x01x"].concat();
        assert_eq!(records(&octets), [7, 5, 6]);
        let ruler = Ruler::default();
        for (record, inside, at) in [(0, 0, 0), (0, 6, 6), (1, 0, 7), (2, 0, 12), (2, 5, 17), (3, 0, 18)] {
            assert_eq!(ruler.find(Place::Record(record, inside), &octets), Some(at));
        }
        assert_eq!(ruler.find(Place::Record(3, 1), &octets), None);
        let behind_text = [b"* OK\r\n".as_slice(), &octets].concat();
        assert_eq!((clear(&behind_text), records(&behind_text)), (6, vec![7, 5, 6]));
        assert_eq!(ruler.find(Place::Record(0, 0), &behind_text), Some(6));
        assert_eq!(ruler.find(Place::Record(0, 0), &behind_text[..6]), None);
        assert_eq!(ruler.find(Place::Record(1, 0), &behind_text), Some(13));
    }
}
