//! Logging in: which mechanism, and what it says.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    Server,
    capability::{ByPassword, Capabilities},
    conn::{COMMAND, Conn},
    dial::{self, Greeted},
    fault::{Outcome, Phase, Trouble},
    name,
    tap::Login,
};
use crate::{
    mail::{Credentials, Proof, TokenMechanism},
    net::Endpoint,
    upstream::{Fault, sparing::Pass},
};

/// A line on which `who` is logged in.
pub(super) async fn login(server: &Server, pass: Option<Pass<'_>>, who: &Credentials) -> Result<Conn, Fault> {
    let knocked = knock(server).await;
    if let Some(pass) = pass
        && let Some(reached) = knocked.as_ref().map_or_else(Trouble::tells_of_a_server, |_| Some(true))
    {
        pass.learn(reached);
    }
    let (conn, offered) = knocked.map_err(|trouble| before_login(trouble, server))?;
    let (conn, _) = enter(server, conn, &offered, who).await?;
    Ok(conn)
}

/// A line on which the server has said what it can do, and the words in which it did.
pub(super) async fn knock(server: &Server) -> Result<(Conn, String), Trouble> {
    let Greeted { mut conn, capabilities } = dial::connect(server).await?;
    let offered = match capabilities {
        Some(offered) => offered,
        None => dial::ask_capabilities(&mut conn).await?,
    };
    Ok((conn, offered))
}

/// Nobody has looked at the credentials yet, so that no refusal can be theirs.
pub(super) fn before_login(trouble: Trouble, server: &Server) -> Fault {
    trouble.into_fault(Phase::Open, server.trusted())
}

/// The same line with `who` logged in, and what the server says now that it can do.
pub(super) async fn enter(
    server: &Server,
    mut conn: Conn,
    offered: &str,
    who: &Credentials,
) -> Result<(Conn, String), Fault> {
    let trusted = server.trusted();
    let fault = |trouble: Trouble| trouble.into_fault(Phase::Login, trusted);
    let before = Capabilities::read(offered);
    let login = command(who, before, &server.settings.endpoint).map_err(fault)?;
    let introduction = who.address.filter(|_| before.id).map(introduction);
    let entered = conn.log_in(introduction.as_deref(), login);
    let entered = dial::within(COMMAND, "it checked the credentials", entered).await;
    if let Err((trouble, explained)) = entered.map_err(|silent| (silent, None)).and_then(|entered| entered) {
        let challenge = explained.and_then(|challenge| STANDARD.decode(challenge).ok());
        // If the server asked once more than there is to say about a password, it has not looked at it.
        let unseen = challenge.is_some() && matches!(who.proof, Proof::Password(_));
        let phase = if unseen { Phase::Open } else { Phase::Login };
        // What follows from its words follows from all of them.
        let verdict = trouble.verdict(phase);
        let told = discreet(trouble, &who.proof).into_fault(phase, trusted);
        return Err(Fault { verdict, challenge: challenge.filter(|_| !unseen), ..told });
    }
    // What the server offers before log-in is not what it offers this user (Gmail).
    let mut names = conn.aside().capabilities.take();
    if names.is_none() {
        conn.run("CAPABILITY").await.map_err(|trouble| trouble.into_fault(Phase::Open, trusted))?;
        names = conn.aside().capabilities.take();
    }
    let names = names.unwrap_or_default();
    conn.capabilities = Capabilities::read(&names);
    // Gmail says so both times, and once is enough: on it hangs whether what is deleted goes to the trash or for good.
    conn.capabilities.gmail |= before.gmail;
    Ok((conn, names))
}

/// Some servers repeat what they did not understand. What they say goes to the log; what was said to them must not.
fn discreet(trouble: Trouble, proof: &Proof) -> Trouble {
    let secret = proof.expose();
    // The text may be cut, so that the beginning must do.
    let secret = &secret[..secret.len().min(8)];
    let tells = |octets: &[u8]| !secret.is_empty() && octets.windows(secret.len()).any(|octets| octets == secret);
    let encoded = |octet: char| octet.is_ascii_alphanumeric() || matches!(octet, '+' | '/' | '=');
    let tells_encoded = |word: &str| STANDARD.decode(&word[..word.len() / 4 * 4]).is_ok_and(|octets| tells(&octets));
    let discreet = |outcome: Outcome| match &outcome.text {
        text if tells(text.as_bytes()) || text.split(|octet| !encoded(octet)).any(tells_encoded) => {
            Outcome { text: "(it repeats the credentials)".to_owned(), ..outcome }
        }
        _ => outcome,
    };
    match trouble {
        Trouble::No(outcome) => Trouble::No(discreet(outcome)),
        Trouble::Bad(outcome) => Trouble::Bad(discreet(outcome)),
        Trouble::Bye(outcome) => Trouble::Bye(discreet(outcome)),
        trouble => trouble,
    }
}

/// The command for these credentials on this server.
fn command(who: &Credentials, offered: Capabilities, server: &Endpoint) -> Result<Login, Trouble> {
    match &who.proof {
        Proof::Password(password) => match offered.by_password() {
            Some(ByPassword::PlainAtOnce | ByPassword::Plain) => {
                let mut message = Zeroizing::new(Vec::with_capacity(2 + who.user.len() + password.expose().len()));
                message.push(0);
                message.extend_from_slice(who.user.as_bytes());
                message.push(0);
                message.extend_from_slice(password.expose());
                Ok(sasl("PLAIN", &message, offered, b"*"))
            }
            Some(ByPassword::Login) => plain_login(who.user.as_bytes(), password.expose(), offered),
            None => Err(Trouble::Unfit("the server takes no password: no AUTH=PLAIN, and LOGIN is disabled")),
        },
        Proof::Token { token, mechanism } => {
            let mechanism = offered
                .by_token(*mechanism)
                .ok_or(Trouble::Unfit("the server takes no token: neither XOAUTH2 nor OAUTHBEARER"))?;
            Ok(bearer(&who.user, token.expose(), mechanism, offered, server))
        }
    }
}

/// Where the client is (RFC 2971). The name is Dovecot's, which believes it of those in its `login_trusted_networks`; others
/// have learnt it since.
fn introduction(address: IpAddr) -> String {
    // An IPv4 client on an IPv6 socket is an IPv4 client.
    format!("ID (\"x-originating-ip\" \"{}\")", address.to_canonical())
}

/// `AUTHENTICATE`, with the message on the same line where the server allows it (RFC 4959). Here and below, secrets are put
/// together in one piece of memory: what grows leaves copies behind.
fn sasl(mechanism: &str, message: &[u8], offered: Capabilities, surrender: &'static [u8]) -> Login {
    let encoded = Zeroizing::new(STANDARD.encode(message));
    if offered.sasl_ir {
        let command = ["AUTHENTICATE ", mechanism, " ", &encoded].concat();
        return Login::new(command.into_bytes(), [], surrender);
    }
    Login::new(format!("AUTHENTICATE {mechanism}").into_bytes(), [encoded.as_bytes().to_vec()], surrender)
}

/// A refused token is explained in a challenge; XOAUTH2 wants an empty line then, OAUTHBEARER a lone ^A (RFC 7628 §3.2.3).
fn bearer(user: &str, token: &str, mechanism: TokenMechanism, offered: Capabilities, server: &Endpoint) -> Login {
    let (name, message, surrender) = match mechanism {
        TokenMechanism::XOAuth2 => {
            ("XOAUTH2", ["user=", user, "\x01auth=Bearer ", token, "\x01\x01"].concat(), &b""[..])
        }
        TokenMechanism::OAuthBearer => {
            let user = user.replace('=', "=3D").replace(',', "=2C");
            let Endpoint { host, port } = server;
            let public = format!("n,a={user},\x01host={host}\x01port={port}\x01auth=Bearer ");
            ("OAUTHBEARER", [&public, token, "\x01\x01"].concat(), &b"AQ=="[..])
        }
    };
    sasl(name, Zeroizing::new(message).as_bytes(), offered, surrender)
}

/// `LOGIN`, for servers without SASL PLAIN. Strings that are not printable ASCII go as literals.
fn plain_login(user: &[u8], password: &[u8], offered: Capabilities) -> Result<Login, Trouble> {
    // The lexer lets none of these through; they could not be sent at all.
    if user.iter().chain(password).any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
        return Err(Trouble::Unfit("the credentials hold octets that LOGIN cannot carry"));
    }
    let mut lines = vec![b"LOGIN".to_vec()];
    for argument in [user, password] {
        append(&mut lines, b" ");
        match std::str::from_utf8(argument) {
            Ok(text) if argument.iter().all(|octet| matches!(octet, b' '..=b'~')) => {
                append(&mut lines, Zeroizing::new(name::quoted(text)).as_bytes());
            }
            _ => {
                let waits = !(offered.literal_plus || offered.literal_minus && argument.len() <= 4096);
                append(&mut lines, format!("{{{}{}}}", argument.len(), if waits { "" } else { "+" }).as_bytes());
                if waits {
                    lines.push(Vec::new());
                } else {
                    append(&mut lines, b"\r\n");
                }
                append(&mut lines, argument);
            }
        }
    }
    let mut lines = lines.into_iter();
    let command = lines.next().unwrap_or_default();
    Ok(Login::new(command, lines, b"*"))
}

/// Adds to the last line, wiping what the line leaves behind when it moves.
fn append(lines: &mut [Vec<u8>], octets: &[u8]) {
    if let Some(line) = lines.last_mut() {
        let mut longer = Vec::with_capacity(line.len() + octets.len());
        longer.extend_from_slice(line);
        longer.extend_from_slice(octets);
        drop(Zeroizing::new(std::mem::replace(line, longer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Secret;

    fn password(user: &str, password: &[u8]) -> Credentials {
        Credentials::new(user.to_owned(), Proof::Password(Secret::new(password.to_vec())))
    }

    fn lines(who: &Credentials, offered: &str) -> Result<Vec<String>, String> {
        let server = Endpoint { host: "imap.example.com".to_owned(), port: 993 };
        let login = command(who, Capabilities::read(offered), &server).map_err(|trouble| trouble.to_string())?;
        let lines = [&login.command].into_iter().chain(&login.answers);
        Ok(lines.map(|line| String::from_utf8_lossy(line.expose()).into_owned()).collect())
    }

    #[test]
    fn passwords_go_by_plain_or_by_login() {
        let tim = password("tim", b"sec ret");
        for (who, offered, expected) in [
            (&tim, "AUTH=PLAIN SASL-IR", &["AUTHENTICATE PLAIN AHRpbQBzZWMgcmV0"][..]),
            (&tim, "AUTH=PLAIN", &["AUTHENTICATE PLAIN", "AHRpbQBzZWMgcmV0"]),
            (&tim, "IMAP4rev1", &["LOGIN \"tim\" \"sec ret\""]),
            (&password("tim", br#"a"b\c"#), "", &[r#"LOGIN "tim" "a\"b\\c""#]),
            (&password("tim", "pä".as_bytes()), "", &["LOGIN \"tim\" {3}", "pä"]),
            (&password("tim", "pä".as_bytes()), "LITERAL+", &["LOGIN \"tim\" {3+}\r\npä"]),
            (&password("jürgen", "pä".as_bytes()), "", &["LOGIN {7}", "jürgen {3}", "pä"]),
            (&password("jürgen", b"x"), "LITERAL-", &["LOGIN {7+}\r\njürgen \"x\""]),
        ] {
            assert_eq!(lines(who, offered).unwrap(), expected, "{offered}");
        }
        let long = password("tim", "ä".repeat(2049).as_bytes());
        assert_eq!(lines(&long, "LITERAL-").unwrap().len(), 2, "4,098 octets must be waited for");
        assert!(lines(&tim, "LOGINDISABLED").is_err());
        assert!(lines(&password("tim", b"a\r\nA2 DELETE INBOX"), "").is_err());
    }

    #[test]
    fn an_address_is_said_in_its_own_form() {
        for (address, expected) in
            [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:DB8:0::7", "2001:db8::7")]
        {
            let expected = format!("ID (\"x-originating-ip\" \"{expected}\")");
            assert_eq!(introduction(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn tokens_go_by_the_mechanism_that_is_offered() {
        let token = |mechanism| {
            let proof = Proof::Token { token: Secret::new("T".to_owned()), mechanism };
            Credentials::new("u@x".to_owned(), proof)
        };
        let xoauth2 = "AUTHENTICATE XOAUTH2 dXNlcj11QHgBYXV0aD1CZWFyZXIgVAEB";
        for (mechanism, offered, expected) in [
            (TokenMechanism::XOAuth2, "AUTH=XOAUTH2 SASL-IR", xoauth2),
            (TokenMechanism::OAuthBearer, "AUTH=XOAUTH2 SASL-IR", xoauth2),
            (TokenMechanism::XOAuth2, "AUTH=XOAUTH2 AUTH=OAUTHBEARER SASL-IR", xoauth2),
            (
                TokenMechanism::OAuthBearer,
                "AUTH=XOAUTH2 AUTH=OAUTHBEARER SASL-IR",
                "AUTHENTICATE OAUTHBEARER bixhPXVAeCwBaG9zdD1pbWFwLmV4YW1wbGUuY29tAXBvcnQ9OTkzAWF1dGg9QmVhcmVyIFQBAQ==",
            ),
        ] {
            assert_eq!(lines(&token(mechanism), offered).unwrap(), [expected]);
        }
        assert!(lines(&token(TokenMechanism::XOAuth2), "AUTH=PLAIN").is_err());
    }
}
