//! The server's half of four SASL mechanisms (RFC 4422): PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), XOAUTH2
//! (Google's and Microsoft's) and OAUTHBEARER (RFC 7628). It ends in credentials; nothing is verified here, and what the
//! last two look like is in [`bearer`].

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    bearer,
    reply::{Code, Reply},
};
use crate::mail::{Credentials, Proof, Secret};

/// A mechanism on offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mechanism {
    Plain,
    Login,
    XOAuth2,
    OAuthBearer,
}

impl Mechanism {
    /// All of them, in the order in which they are listed.
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::XOAuth2, Self::OAuthBearer];

    /// The name as it is listed.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }

    /// The mechanism with this name.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Begins an exchange, with the initial response as the client wrote it (RFC 5034 §4; `=` stands for an empty one).
    pub(super) fn begin(self, initial: Option<&[u8]>) -> Step {
        match initial {
            Some(b"=") => self.respond(b""),
            Some(initial) => decode(initial).map_or_else(Step::Failed, |response| self.respond(&response)),
            None => Step::Challenge(Exchange(Stage::First(self)), Reply::challenge(self.prompt())),
        }
    }

    const fn prompt(self) -> &'static [u8] {
        match self {
            // Clients wait for these words, although the draft says that they are free.
            Self::Login => b"Username:",
            Self::Plain | Self::XOAuth2 | Self::OAuthBearer => b"",
        }
    }

    /// Takes the first response.
    fn respond(self, response: &[u8]) -> Step {
        let credentials = match self {
            Self::Login => {
                return user_name(response).map_or_else(Step::Failed, |user| {
                    Step::Challenge(Exchange(Stage::Password { user }), Reply::challenge(b"Password:"))
                });
            }
            Self::Plain => plain(response),
            Self::XOAuth2 => bearer::xoauth2(response),
            Self::OAuthBearer => bearer::oauthbearer(response),
        };
        credentials.map_or_else(Step::Failed, Step::Done)
    }
}

/// An exchange that waits for a response.
pub(super) struct Exchange(Stage);

enum Stage {
    /// The first response is to come.
    First(Mechanism),
    /// The second one of LOGIN.
    Password { user: String },
}

/// What follows a response.
pub(super) enum Step {
    Challenge(Exchange, Reply),
    Done(Credentials),
    Failed(Failure),
}

/// Why an exchange came to nothing before anybody was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Not base64, or not what the mechanism says. Nothing was checked, so this is not the credentials' fault.
    #[error("malformed response")]
    Malformed,
    /// The client sent `*`.
    #[error("authentication cancelled")]
    Cancelled,
    /// A user name that is not UTF-8 or has control characters in it (RFC 6856 §2.2).
    #[error("user name is not acceptable")]
    UserName,
    /// The password of one user is not taken for another one.
    #[error("acting for another user is not supported")]
    OtherUser,
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Malformed | Failure::Cancelled => Self::err(failure),
            Failure::UserName | Failure::OtherUser => Self::coded(Code::Auth, failure),
        }
    }
}

impl Exchange {
    /// Takes the next line of the client.
    pub(super) fn respond(self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Failed(Failure::Cancelled);
        }
        let response = match decode(line) {
            Ok(response) => response,
            Err(failure) => return Step::Failed(failure),
        };
        match self.0 {
            Stage::First(mechanism) => mechanism.respond(&response),
            Stage::Password { user } => password(&response)
                .map_or_else(Step::Failed, |password| Step::Done(Credentials::new(user, Proof::Password(password)))),
        }
    }
}

/// A user name that may stand in [`Credentials`], from wherever the client wrote it.
pub(super) fn user_name(octets: &[u8]) -> Result<String, Failure> {
    let user = std::str::from_utf8(octets).map_err(|_| Failure::UserName)?;
    if user.is_empty() {
        return Err(Failure::Malformed);
    }
    if user.chars().any(char::is_control) {
        return Err(Failure::UserName);
    }
    Ok(user.to_owned())
}

/// A password that may stand in [`Credentials`]. It need not be UTF-8: the server that knows it decides. An empty one is
/// not passed on, since some directories take it for an anonymous log-in that succeeds.
pub(super) fn password(octets: &[u8]) -> Result<Secret<Vec<u8>>, Failure> {
    if octets.is_empty() || octets.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
        return Err(Failure::Malformed);
    }
    Ok(Secret::new(octets.to_vec()))
}

/// `[authzid] NUL authcid NUL passwd`.
fn plain(response: &[u8]) -> Result<Credentials, Failure> {
    let mut fields = response.split(|octet| *octet == 0);
    let (Some(for_user), Some(user), Some(secret), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(Failure::Malformed);
    };
    let password = password(secret)?;
    if !for_user.is_empty() && for_user != user {
        return Err(Failure::OtherUser);
    }
    Ok(Credentials::new(user_name(user)?, Proof::Password(password)))
}

/// Base64 without any licence (RFC 4648 §3.5), into memory that is overwritten afterwards.
pub(super) fn decode(line: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut octets = Zeroizing::new(vec![0; line.len().div_ceil(4) * 3]);
    let length = STANDARD.decode_slice(line, &mut octets).map_err(|_| Failure::Malformed)?;
    octets.truncate(length);
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome in words.
    fn told(step: &Step) -> String {
        match step {
            Step::Challenge(_, reply) => String::from_utf8(reply.octets().to_vec()).unwrap(),
            Step::Failed(failure) => failure.to_string(),
            Step::Done(Credentials { user, proof: Proof::Password(password), .. }) => {
                format!("{user} by password {}", password.expose().escape_ascii())
            }
            Step::Done(Credentials { user, proof: Proof::Token { token, mechanism }, .. }) => {
                format!("{user} by {mechanism:?} {}", token.expose())
            }
        }
    }

    #[test]
    fn first_responses() {
        use Mechanism::{Login, OAuthBearer, Plain, XOAuth2};
        let malformed = "malformed response";
        let cases: [(Mechanism, &[u8], &str); 37] = [
            (Plain, b"\0tim\0sec ret", "tim by password sec ret"), // T060
            (Plain, b"tim\0tim\0x", "tim by password x"),
            (Plain, b"\0tim\0p\xe4", r"tim by password p\xe4"),
            (Plain, b"eve\0tim\0x", "acting for another user is not supported"), // T077
            (Plain, b"\0t\x01m\0x", "user name is not acceptable"),
            (Plain, b"\0t\xc2\x85m\0x", "user name is not acceptable"),
            (Plain, b"\0t\xffm\0x", "user name is not acceptable"),
            (Plain, b"\0\0x", malformed),
            (Plain, b"\0tim\0", malformed),
            (Plain, b"\0tim\0a\nb", malformed), // T051
            (Plain, b"\0tim\0a\rb", malformed),
            (Plain, b"\0tim\0a\0b", malformed),
            (Plain, b"tim\0x", malformed),
            (Plain, b"malformed", malformed), // T064
            (Plain, b"", malformed),
            (Login, b"tim", "+ UGFzc3dvcmQ6\r\n"),
            (Login, b"", malformed),
            (Login, b"t\tm", "user name is not acceptable"),
            (XOAuth2, b"user=u@x\x01auth=Bearer T\x01\x01", "u@x by XOAuth2 T"), // T067
            (XOAuth2, b"user=u@x\x01auth=bearer T\x01\x01", "u@x by XOAuth2 T"),
            (XOAuth2, b"user=u\n\x01auth=Bearer T\x01\x01", "user name is not acceptable"),
            (XOAuth2, b"user=\x01auth=Bearer T\x01\x01", malformed),
            (XOAuth2, b"user=u\x01auth=Bearer \x01\x01", malformed),
            (XOAuth2, b"user=u\x01auth=Bearer T U\x01\x01", malformed),
            (XOAuth2, b"user=u\x01auth=Bearer T\x01x\x01\x01", malformed),
            (XOAuth2, b"user=u\x01auth=Basic T\x01\x01", malformed),
            (XOAuth2, b"user=u\x01auth=Bearer T\x01", malformed),
            (XOAuth2, b"", malformed),
            (OAuthBearer, b"n,a=u@x,\x01host=h\x01port=995\x01auth=Bearer T\x01\x01", "u@x by OAuthBearer T"), // T070
            (OAuthBearer, b"y,a=a=2Cb=3Dc,\x01auth=Bearer T\x01\x01", "a,b=c by OAuthBearer T"),
            (OAuthBearer, b"n,a=a=2cb,\x01auth=Bearer T\x01\x01", malformed),
            (OAuthBearer, b"n,,\x01auth=Bearer T\x01\x01", malformed),
            (OAuthBearer, b"p=tls-unique,a=u,\x01auth=Bearer T\x01\x01", malformed),
            (OAuthBearer, b"n,a=u,\x01auth=Bearer T\x01auth=Bearer U\x01\x01", malformed),
            (OAuthBearer, b"n,a=u,\x01host=h\x01\x01", malformed),
            (OAuthBearer, b"n,a=u,\x01auth=Bearer T\x01\x01\x01", malformed),
            (OAuthBearer, b"\x01", malformed),
        ];
        for (mechanism, response, expected) in cases {
            let told_of = |step: &Step| format!("{} {:?}: {}", mechanism.name(), response.escape_ascii(), told(step));
            let expected = format!("{} {:?}: {expected}", mechanism.name(), response.escape_ascii());
            let encoded = if response.is_empty() { "=".to_owned() } else { STANDARD.encode(response) };
            assert_eq!(told_of(&mechanism.begin(Some(encoded.as_bytes()))), expected);
            // And in two steps, T061, T068.
            let Step::Challenge(exchange, _) = mechanism.begin(None) else { panic!("{expected}") };
            assert_eq!(told_of(&exchange.respond(STANDARD.encode(response).as_bytes())), expected);
        }
    }

    #[test]
    fn base64_is_strict_and_a_star_cancels() {
        // T063, T064
        for line in ["!!!", "QQ=Q", "QQ", "QR==", "Q Q=", "dGlt ", "=", "===="] {
            let Step::Challenge(exchange, _) = Mechanism::Login.begin(None) else { panic!() };
            assert_eq!(told(&exchange.respond(line.as_bytes())), "malformed response", "{line}");
        }
        let Step::Challenge(exchange, _) = Mechanism::Plain.begin(None) else { panic!() };
        assert_eq!(told(&exchange.respond(b"*")), "authentication cancelled");
        assert_eq!(told(&Mechanism::Plain.begin(Some(b"*"))), "malformed response");
    }

    #[test]
    fn login_asks_twice() {
        // T066
        let step = Mechanism::named(b"login").unwrap().begin(None);
        assert_eq!(told(&step), "+ VXNlcm5hbWU6\r\n");
        let Step::Challenge(exchange, _) = step else { panic!() };
        let step = exchange.respond(b"dGlt");
        assert_eq!(told(&step), "+ UGFzc3dvcmQ6\r\n");
        let Step::Challenge(exchange, _) = step else { panic!() };
        assert_eq!(told(&exchange.respond(b"c2VjIHJldA==")), "tim by password sec ret");
        assert_eq!(Mechanism::named(b"FOO"), None);
    }
}
