//! What a client says in the two SASL mechanisms that carry an OAuth2 bearer token. Whether the token is any good is for
//! the upstream to say; the exchange itself, and its tests, are in [`sasl`](super::sasl).

use super::sasl::{Failure, user_name};
use crate::mail::{Credentials, Proof, Secret, TokenMechanism};

/// `user=… ^A auth=Bearer … ^A ^A`.
pub(super) fn xoauth2(response: &[u8]) -> Result<Credentials, Failure> {
    let fields = response.strip_suffix(b"\x01\x01").and_then(|fields| fields.strip_prefix(b"user="));
    let fields = fields.ok_or(Failure::Malformed)?;
    let end = fields.iter().position(|octet| *octet == SEPARATOR).ok_or(Failure::Malformed)?;
    let token = fields[end + 1..].strip_prefix(b"auth=").ok_or(Failure::Malformed)?;
    let proof = Proof::Token { token: bearer(token)?, mechanism: TokenMechanism::XOAuth2 };
    Ok(Credentials::new(user_name(&fields[..end])?, proof))
}

/// `n,a=user, ^A key=value ^A … ^A`, one of the keys being `auth`. The user may be left out in RFC 7628; not here, since
/// a mailbox belongs to somebody.
pub(super) fn oauthbearer(response: &[u8]) -> Result<Credentials, Failure> {
    let fields = response.strip_suffix(b"\x01\x01").ok_or(Failure::Malformed)?;
    let mut fields = fields.split(|octet| *octet == SEPARATOR);
    let header = fields.next().and_then(|header| header.strip_suffix(b",")).ok_or(Failure::Malformed)?;
    // `y`: the client could bind to the channel and takes us for unable, which is true.
    let user = header.strip_prefix(b"n,a=").or_else(|| header.strip_prefix(b"y,a=")).ok_or(Failure::Malformed)?;
    let mut token = None;
    for field in fields {
        let at = field.iter().position(|octet| *octet == b'=').ok_or(Failure::Malformed)?;
        if field[..at].eq_ignore_ascii_case(b"auth") && token.replace(bearer(&field[at + 1..])?).is_some() {
            return Err(Failure::Malformed);
        }
    }
    let token = token.ok_or(Failure::Malformed)?;
    let proof = Proof::Token { token, mechanism: TokenMechanism::OAuthBearer };
    Ok(Credentials::new(user_name(&saslname(user)?)?, proof))
}

/// `Bearer` and a token (RFC 6750 §2.1), of which only what could break out of it is refused.
fn bearer(value: &[u8]) -> Result<Secret<String>, Failure> {
    let (scheme, token) = value.split_at_checked(BEARER.len()).ok_or(Failure::Malformed)?;
    let token = std::str::from_utf8(token).map_err(|_| Failure::Malformed)?;
    if !scheme.eq_ignore_ascii_case(BEARER) || token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic())
    {
        return Err(Failure::Malformed);
    }
    Ok(Secret::new(token.to_owned()))
}

/// Undoes `=2C` and `=3D` (RFC 5801 §4); a bare comma or equals sign has no place in a name.
fn saslname(mut escaped: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut name = Vec::with_capacity(escaped.len());
    while let [octet, rest @ ..] = escaped {
        let (octet, rest) = match (octet, rest) {
            (b'=', [b'2', b'C', rest @ ..]) => (b',', rest),
            (b'=', [b'3', b'D', rest @ ..]) => (b'=', rest),
            (b'=' | b',', _) => return Err(Failure::Malformed),
            (octet, rest) => (*octet, rest),
        };
        name.push(octet);
        escaped = rest;
    }
    Ok(name)
}

/// What stands between the fields.
const SEPARATOR: u8 = 1;

const BEARER: &[u8] = b"Bearer ";
