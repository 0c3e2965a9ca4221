//! What the server says it can do (RFC 3501 §7.2.1), as far as it decides what popgate does.

use crate::mail::TokenMechanism;

/// The capabilities that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// RFC 3501 §6.2.1.
    pub(super) starttls: bool,
    /// RFC 4959: the first SASL response may stand on the command line.
    pub(super) sasl_ir: bool,
    /// SASL PLAIN (RFC 4616).
    pub(super) plain: bool,
    /// Google's and Microsoft's bearer tokens.
    pub(super) xoauth2: bool,
    /// RFC 7628.
    pub(super) oauthbearer: bool,
    /// LOGIN would be refused (RFC 3501 §6.2.3).
    pub(super) login_disabled: bool,
    /// RFC 7888: literals of any size need not be waited for.
    pub(super) literal_plus: bool,
    /// RFC 7888: literals of up to 4,096 octets need not be waited for.
    pub(super) literal_minus: bool,
    /// UID EXPUNGE (RFC 4315, in IMAP4rev2).
    pub(super) uid_expunge: bool,
    /// UID MOVE (RFC 6851, in IMAP4rev2).
    pub(super) uid_move: bool,
    /// SEARCH RETURN (RFC 4731, in IMAP4rev2).
    pub(super) esearch: bool,
    /// RFC 2971.
    pub(super) id: bool,
    /// LIST RETURN (SPECIAL-USE) (RFC 6154, RFC 5258).
    pub(super) special_use: bool,
    /// Gmail, where `\Deleted` means what the user's settings make of it.
    pub(super) gmail: bool,
}

/// How a password is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByPassword {
    /// `AUTHENTICATE PLAIN` with the message on the same line (RFC 4959).
    PlainAtOnce,
    /// `AUTHENTICATE PLAIN`, and the message when the server asks for it.
    Plain,
    /// `LOGIN`.
    Login,
}

impl Capabilities {
    /// How a password is sent to this server; `None` if it takes none.
    pub(super) const fn by_password(self) -> Option<ByPassword> {
        match self {
            Self { plain: true, sasl_ir: true, .. } => Some(ByPassword::PlainAtOnce),
            Self { plain: true, .. } => Some(ByPassword::Plain),
            Self { login_disabled: true, .. } => None,
            _ => Some(ByPassword::Login),
        }
    }

    /// By which mechanism a token is sent to it, the client's own if it can be; `None` if it takes none.
    pub(super) const fn by_token(self, chosen: TokenMechanism) -> Option<TokenMechanism> {
        match (chosen, self.xoauth2, self.oauthbearer) {
            (TokenMechanism::XOAuth2, true, _) | (_, true, false) => Some(TokenMechanism::XOAuth2),
            (_, _, true) => Some(TokenMechanism::OAuthBearer),
            (_, false, false) => None,
        }
    }

    /// Reads a list of names.
    pub(super) fn read(names: &str) -> Self {
        let mut these = Self::default();
        for name in names.split(' ') {
            match name.to_ascii_uppercase().as_str() {
                "IMAP4REV2" => {
                    these.uid_expunge = true;
                    these.uid_move = true;
                    these.esearch = true;
                    these.literal_minus = true;
                    these.sasl_ir = true;
                    these.special_use = true;
                }
                "STARTTLS" => these.starttls = true,
                "SASL-IR" => these.sasl_ir = true,
                "AUTH=PLAIN" => these.plain = true,
                "AUTH=XOAUTH2" => these.xoauth2 = true,
                "AUTH=OAUTHBEARER" => these.oauthbearer = true,
                "LOGINDISABLED" => these.login_disabled = true,
                "LITERAL+" => these.literal_plus = true,
                "LITERAL-" => these.literal_minus = true,
                "UIDPLUS" => these.uid_expunge = true,
                "MOVE" => these.uid_move = true,
                "ESEARCH" => these.esearch = true,
                "ID" => these.id = true,
                "SPECIAL-USE" => these.special_use = true,
                "X-GM-EXT-1" => these.gmail = true,
                _ => {}
            }
        }
        these
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_two_includes_what_were_extensions() {
        let these = Capabilities::read("IMAP4rev2 AUTH=PLAIN");
        assert!(these.uid_expunge && these.uid_move && these.esearch && these.plain && !these.literal_plus);
        let these = Capabilities::read("imap4rev1 sasl-ir uidplus auth=xoauth2 X-UNKNOWN=1");
        assert!(these.sasl_ir && these.uid_expunge && these.xoauth2 && !these.uid_move && !these.plain);
    }
}
