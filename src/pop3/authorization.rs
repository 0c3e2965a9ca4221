//! The AUTHORIZATION state (RFC 1939 §4, RFC 2595, RFC 5034): from the greeting to a mailbox that is open. Who may log in
//! is not decided here; credentials go out, and the outcome comes back.

use std::{mem, sync::Arc};

use super::{
    capa::{self, State},
    command::Command,
    line::{Expects, Input},
    reply::{Code, Reply},
    sasl::{self, Exchange, Failure, Mechanism, Step},
    session::{Channel, Patience, Settings},
    transaction::Transaction,
};
use crate::mail::{Credentials, Proof, Snapshot};

/// A session before log-in.
pub struct Authorization {
    channel: Channel,
    awaits: Awaits,
    /// The name of an accepted USER, for the PASS that may follow.
    user: Option<String>,
    patience: Patience,
    /// How many commands that belong behind a log-in are still taken for having been sent before it failed.
    sent_ahead: u16,
    failures: u8,
    /// Log-ins that were refused, for whatever reason.
    refusals: u8,
}

/// What the next line is.
enum Awaits {
    Command,
    Response(Exchange),
    /// Any line at all, which the client owes to the challenge that explained why its token is refused (RFC 7628 §3.2.3).
    Dismissal(Reply),
}

/// What follows a line.
pub enum Before {
    /// Send the reply and go on.
    Reply(Authorization, Reply),
    /// Send the reply, then begin TLS; but close at once, without the reply, if anything has arrived behind the command:
    /// it may have been put there by somebody on the way (RFC 2595 §4, CVE-2011-0411).
    Secure(Securing, Reply),
    /// Find out whether the credentials are right and open the mailbox.
    Open(Opening, Credentials),
    /// Send the reply, if there is one, and close.
    Close(Option<Reply>),
}

impl Authorization {
    /// A session begins. The reply is the greeting.
    pub fn new(channel: Channel) -> (Self, Reply) {
        let session = Self {
            channel,
            awaits: Awaits::Command,
            user: None,
            patience: Patience::before_login(),
            sent_ahead: 0,
            failures: 0,
            refusals: 0,
        };
        // Nothing before `POP3`, to which some clients object (UW), and no angle brackets, which would mean APOP.
        (session, Reply::ok("POP3 server ready"))
    }

    /// What kind of line comes next.
    pub const fn expects(&self) -> Expects {
        match self.awaits {
            Awaits::Command => Expects::Command,
            Awaits::Response(_) | Awaits::Dismissal(_) => Expects::Response,
        }
    }

    /// Takes what the client sent.
    pub fn line(mut self, input: Input) -> Before {
        match (mem::replace(&mut self.awaits, Awaits::Command), input) {
            (_, Input::Endless | Input::Foreign) => Before::Close(None),
            (Awaits::Command, Input::TooLong) => self.bad(Reply::line_too_long()),
            (Awaits::Command, Input::Line(line)) => match Command::parse(line.expose()) {
                Ok(command) => self.command(command),
                Err(mistake) => self.bad(mistake.into()),
            },
            (Awaits::Response(_) | Awaits::Dismissal(_), Input::TooLong) => Before::Close(Some(Reply::line_too_long())),
            (Awaits::Response(exchange), Input::Line(line)) => self.step(exchange.respond(line.expose())),
            (Awaits::Dismissal(refusal), Input::Line(_)) => self.refuse(refusal),
        }
    }

    fn command(self, command: Command<'_>) -> Before {
        match command {
            Command::Capa => {
                let list = capa::capabilities(self.channel, State::Authorization);
                self.good(list)
            }
            Command::Quit => Before::Close(Some(Reply::ok("POP3 server signing off"))),
            Command::Stls if self.channel.offers_stls() => Before::Secure(Securing(self), Reply::ok("begin TLS")),
            Command::User(_) | Command::Pass(_) | Command::Mechanisms | Command::Auth { .. } if !self.channel.login => {
                let refusal = self.channel.refusal();
                self.bad(refusal)
            }
            Command::User(name) => self.user(name),
            Command::Pass(password) => self.pass(password),
            Command::Mechanisms => self.good(Reply::list("list follows", Mechanism::ALL.map(Mechanism::name))),
            Command::Auth { mechanism, initial } => match Mechanism::named(mechanism) {
                Some(mechanism) => self.step(mechanism.begin(initial)),
                None => self.bad(Reply::err("unsupported authentication mechanism")),
            },
            Command::Stls
            | Command::Noop
            | Command::Stat
            | Command::List(_)
            | Command::Uidl(_)
            | Command::Retr(_)
            | Command::Top(..)
            | Command::Dele(_)
            | Command::Rset => self.misplaced(),
        }
    }

    fn user(mut self, name: &[u8]) -> Before {
        // Whatever becomes of this one, the password that follows is not meant for the one before.
        self.user = None;
        match sasl::user_name(name) {
            Ok(name) => {
                self.user = Some(name);
                // The same for every name: whether it exists is nobody's business.
                self.good(Reply::ok("send PASS"))
            }
            Err(Failure::Malformed) => self.bad(Reply::err("user name required")),
            Err(failure) => self.refuse(failure.into()),
        }
    }

    fn pass(mut self, password: &[u8]) -> Before {
        let Some(user) = self.user.take() else { return self.bad(Reply::err("send USER first")) };
        match sasl::password(password) {
            Ok(password) => Before::Open(Opening(self), Credentials::new(user, Proof::Password(password))),
            Err(_) => self.bad(Reply::err("password missing or malformed")),
        }
    }

    fn step(mut self, step: Step) -> Before {
        match step {
            Step::Challenge(exchange, challenge) => {
                self.awaits = Awaits::Response(exchange);
                Before::Reply(self, challenge)
            }
            Step::Done(credentials) => Before::Open(Opening(self), credentials),
            Step::Failed(failure @ (Failure::Malformed | Failure::Cancelled)) => self.bad(failure.into()),
            Step::Failed(failure @ (Failure::UserName | Failure::OtherUser)) => self.refuse(failure.into()),
        }
    }

    /// Answers a command that was understood.
    fn good(mut self, reply: Reply) -> Before {
        self.patience.restore();
        self.sent_ahead = 0;
        Before::Reply(self, reply)
    }

    /// Answers a command of another state. One that was sent behind a log-in, in the hope that it would succeed, is not the
    /// client's fault.
    fn misplaced(mut self) -> Before {
        if self.sent_ahead > 0 {
            self.sent_ahead -= 1;
            return Before::Reply(self, Reply::wrong_state());
        }
        self.bad(Reply::wrong_state())
    }

    /// Answers one that was not, or that has no place here.
    fn bad(mut self, reply: Reply) -> Before {
        if self.patience.bear() {
            Before::Reply(self, reply)
        } else {
            Before::Close(Some(Reply::too_many_bad_commands()))
        }
    }

    /// Answers a log-in that failed. Only one whose credentials are at fault counts as a guess; but some servers speak of
    /// trouble that passes when the password is wrong, and nobody gets to try without end.
    fn refuse(mut self, refusal: Reply) -> Before {
        self.failures += u8::from(refusal.code() == Some(Code::Auth));
        self.refusals += 1;
        if self.failures >= GUESSES || self.refusals >= ATTEMPTS {
            return Before::Close(Some(refusal));
        }
        self.patience.restore();
        self.sent_ahead = SENT_AHEAD;
        Before::Reply(self, refusal)
    }
}

/// A session whose `+OK` to STLS is on its way.
pub struct Securing(Authorization);

impl Securing {
    /// TLS is on. Whatever the client said before is forgotten, since it may have been somebody else who said it; how often
    /// it failed is not (RFC 2595 §4).
    pub fn secured(self, channel: Channel) -> Authorization {
        Authorization { channel, user: None, awaits: Awaits::Command, ..self.0 }
    }
}

/// A session whose credentials are being tried.
pub struct Opening(Authorization);

impl Opening {
    /// The mailbox is open and listed. `settings` are what holds for this maildrop.
    pub fn opened(self, settings: Arc<Settings>, snapshot: Arc<Snapshot>) -> (Transaction, Reply) {
        Transaction::new(settings, self.0.channel, snapshot)
    }

    /// It is not. With [`Code::Auth`] this counts as a guess, and the third one closes.
    pub fn refused(self, refusal: Reply) -> Before {
        self.0.refuse(refusal)
    }

    /// It is not, and the upstream told the client program why. The client gets to read that, answers with any one line,
    /// and then it is refused.
    pub fn challenged(mut self, challenge: &[u8], refusal: Reply) -> Before {
        self.0.awaits = Awaits::Dismissal(refusal);
        Before::Reply(self.0, Reply::challenge(challenge))
    }
}

/// How many wrong passwords one connection may try.
const GUESSES: u8 = 3;

/// How often one connection may try to log in at all. Clients that try again after trouble connect anew.
const ATTEMPTS: u8 = 10;

/// More commands than any known client sends ahead (mpop: 100). Where they end cannot be seen, so there has to be an end.
const SENT_AHEAD: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Deletion, Secret};

    const PLAIN: Channel = Channel { encrypted: false, stls: true, login: false };
    const TLS: Channel = Channel { encrypted: true, stls: true, login: true };

    /// What a client sees, line for line; credentials are refused with the reply that stands for their password.
    fn dialogue(channel: Channel, lines: &[&str]) -> Vec<String> {
        let settings = Arc::new(Settings { unique_ids: "dovecot".parse().unwrap(), seen: true });
        let (mut session, greeting) = Authorization::new(channel);
        assert_eq!(greeting.octets(), b"+OK POP3 server ready\r\n"); // T001
        let mut seen = Vec::new();
        let mut say = |reply: &Reply| {
            let reply = std::str::from_utf8(reply.octets()).unwrap();
            seen.push(reply.strip_suffix("\r\n").unwrap().replace("\r\n", "|"));
        };
        for line in lines {
            let input = Input::Line(Secret::new(line.as_bytes().to_vec()));
            let mut after = session.line(input);
            session = loop {
                match after {
                    Before::Reply(session, reply) => {
                        say(&reply);
                        break session;
                    }
                    Before::Secure(securing, reply) => {
                        say(&reply);
                        break securing.secured(TLS);
                    }
                    Before::Open(opening, Credentials { user, proof: Proof::Password(password), .. }) => {
                        after = match &password.expose()[..] {
                            b"good" => {
                                let (_, reply) =
                                    opening.opened(settings, Arc::new(Snapshot::new(None, Deletion::Allowed, [])));
                                say(&reply);
                                return seen;
                            }
                            b"temp" => opening.refused(Reply::unavailable()),
                            _ => opening.refused(Reply::denied().noting(&user)),
                        };
                    }
                    Before::Open(opening, _) => after = opening.challenged(b"{}", Reply::denied()),
                    Before::Close(reply) => {
                        if let Some(reply) = reply {
                            say(&reply);
                        }
                        seen.push("!close".into());
                        return seen;
                    }
                }
            };
        }
        seen
    }

    const OK: &str = "+OK send PASS";
    const STATE: &str = "-ERR command not valid in this state";
    const DENIED: &str = "-ERR [AUTH] invalid user name or password: tim";

    #[test]
    fn log_in_by_user_and_pass() {
        let empty = "+OK maildrop has 0 messages (0 octets)";
        let first = "-ERR send USER first";
        let name = "-ERR [AUTH] user name is not acceptable";
        let cases: [(&[&str], &[&str]); 11] = [
            (&["USER tim", "PASS good"], &[OK, empty]),
            (&["PASS x"], &[first]), // T042
            (&["USER", "USER   "], &["-ERR user name required", "-ERR user name required"]), // T043
            (&["USER tim", "PASS "], &[OK, "-ERR password missing or malformed"]),
            (&["USER a", "USER tim", "PASS x"], &[OK, OK, DENIED]), // T044
            (&["USER tim", "PASS x", "USER tim", "PASS good"], &[OK, DENIED, OK, empty]), // T045
            (&["USER tim", "PASS x", "PASS x"], &[OK, DENIED, first]), // T047
            (&["USER t\u{1}m", "PASS x"], &[name, first]),          // T051
            // One user's password does not go out under another's name.
            (&["USER eve", "USER t\u{1}m", "PASS good"], &[OK, name, first]),
            (&["USER eve", "USER", "PASS good"], &[OK, "-ERR user name required", first]),
            (
                // T046; trouble that passes is no guess.
                &["USER tim", "PASS 1", "USER tim", "PASS 2", "USER tim", "PASS temp", "USER tim", "PASS 3", "CAPA"],
                &[
                    OK,
                    DENIED,
                    OK,
                    DENIED,
                    OK,
                    "-ERR [SYS/TEMP] mail service temporarily unavailable, try again later",
                    OK,
                    DENIED,
                    "!close",
                ],
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(dialogue(TLS, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn nobody_tries_without_end() {
        // Also where the server says "try again" to a wrong password.
        let seen = dialogue(TLS, &["USER tim", "PASS temp"].repeat(15));
        assert_eq!(seen.iter().filter(|reply| reply.starts_with("-ERR [SYS/TEMP]")).count(), 10);
        assert_eq!(seen.last().map(String::as_str), Some("!close"));
    }

    #[test]
    fn log_in_by_auth() {
        let malformed = "-ERR malformed response";
        let list = "+OK list follows|PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|.";
        let cases: [(&[&str], &[&str]); 8] = [
            (&["AUTH PLAIN AHRpbQB4"], &[DENIED]),
            (&["AUTH PLAIN", "AHRpbQB4"], &["+ ", DENIED]), // T061
            (&["USER tim", "AUTH PLAIN", "*", "PASS x"], &[OK, "+ ", "-ERR authentication cancelled", DENIED]), // T063
            (
                &["USER tim", "AUTH PLAIN AGV2ZQB4", "PASS x"],
                &[OK, "-ERR [AUTH] invalid user name or password: eve", DENIED],
            ),
            (&["AUTH PLAIN !!!", "AUTH PLAIN QQ=Q", "AUTH PLAIN a b"], &[malformed; 3]), // T064
            (&["AUTH FOO", "AUTH", "AUTH "], &["-ERR unsupported authentication mechanism", list, list]), // T065
            (
                // T069, T071: one line of any kind is awaited, a command too.
                &["AUTH XOAUTH2 dXNlcj11QHgBYXV0aD1CZWFyZXIgVAEB", "QUIT", "NOOP"],
                &["+ e30=", "-ERR [AUTH] invalid user name or password", STATE],
            ),
            (&["AUTH PLAIN ZXZlAHRpbQB4"; 3], &["-ERR [AUTH] acting for another user is not supported"; 3]), // T077
        ];
        for (lines, expected) in cases {
            let seen = dialogue(TLS, lines);
            assert_eq!(seen[..expected.len()], *expected, "{lines:?}");
        }
        assert_eq!(dialogue(TLS, &["AUTH PLAIN ZXZlAHRpbQB4"; 3]).last().map(String::as_str), Some("!close"));
    }

    #[test]
    fn without_tls_no_credentials_are_looked_at() {
        // T036, T043
        let refused = "-ERR [SYS/PERM] TLS required, use STLS or port 995";
        for line in ["USER tim", "USER", "PASS x", "AUTH", "AUTH FOO", "AUTH PLAIN AHRpbQB4"] {
            assert_eq!(dialogue(PLAIN, &[line]), [refused], "{line}");
        }
        let hopeless = Channel { stls: false, ..PLAIN };
        assert_eq!(
            dialogue(hopeless, &["USER tim"]),
            ["-ERR [SYS/PERM] login without TLS is not allowed from your network"]
        );
        assert_eq!(dialogue(hopeless, &["STLS"]), [STATE]);
    }

    #[test]
    fn stls() {
        // T030, T032, T033, T035
        let open = Channel { login: true, ..PLAIN };
        assert_eq!(
            dialogue(open, &["STLS x", "USER eve", "STLS", "PASS x", "STLS"]),
            ["-ERR unexpected argument", OK, "+OK begin TLS", "-ERR send USER first", STATE]
        );
    }

    #[test]
    fn only_so_many_bad_commands() {
        // T003 to T006
        assert_eq!(dialogue(TLS, &["quit"]), ["+OK POP3 server signing off", "!close"]);
        let later = ["NOOP", "STAT", "LIST", "RETR 1", "DELE 1", "UIDL", "TOP 1 1", "RSET"];
        assert_eq!(dialogue(TLS, &later), [STATE; 8]);
        let mut expected = vec!["-ERR unknown command"; 9];
        expected.extend(["-ERR too many bad commands", "!close"]);
        assert_eq!(dialogue(TLS, &[""; 12]), expected);
        let spread = [[""; 9].as_slice(), &["CAPA"], &[""; 9]].concat();
        assert_eq!(dialogue(TLS, &spread).len(), spread.len());
    }

    #[test]
    fn what_was_sent_behind_a_failed_pass_does_not_count() {
        let closes = |then: &[&str]| {
            let lines = [["USER tim", "PASS x"].as_slice(), then].concat();
            dialogue(TLS, &lines).last().is_some_and(|last| last == "!close")
        };
        assert!(!closes(&["RETR 1"; 200]));
        assert!(closes(&["RETR 1"; 1010]), "nobody sends so much ahead");
        assert!(closes(&["unkn"; 10]), "nonsense is nonsense");
        assert!(closes(&[["USER tim"].as_slice(), &["RETR 1"; 10]].concat()), "this is not behind the PASS");
    }

    #[test]
    fn what_is_no_line() {
        let session = || Authorization::new(TLS).0;
        assert!(matches!(session().line(Input::Foreign), Before::Close(None))); // T018
        assert!(matches!(session().line(Input::Endless), Before::Close(None))); // T015
        assert!(matches!(session().line(Input::TooLong), Before::Reply(..)));
        let line = Input::Line(Secret::new(b"AUTH PLAIN".to_vec()));
        let Before::Reply(session, _) = session().line(line) else { panic!() };
        assert_eq!(session.expects(), Expects::Response);
        assert!(matches!(session.line(Input::TooLong), Before::Close(Some(_)))); // T072
    }
}
