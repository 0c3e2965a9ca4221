//! Why a handshake with a server failed, and whether it may go better another time.

use std::io;

use rustls::AlertDescription;

/// Why there is no TLS to a server.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFault {
    /// The server's certificate proves nothing, or there is no version or cipher that both sides have. Trying again changes
    /// nothing.
    #[error("{0}")]
    Unacceptable(String),
    /// The server gave up, or what came was no handshake: it may not be well, or somebody changed octets on the way.
    #[error("{0}")]
    Failed(String),
    /// The line broke.
    #[error("{0}")]
    Broken(#[source] io::Error),
}

impl From<io::Error> for HandshakeFault {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(reason) if is_lasting(reason) => Self::Unacceptable(plain(&reason.to_string())),
            Some(reason) => Self::Failed(plain(&reason.to_string())),
            None => Self::Broken(error),
        }
    }
}

/// Whether somebody must change something before this can go better.
const fn is_lasting(reason: &rustls::Error) -> bool {
    use AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};
    match reason {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::NoCertificatesPresented
        | rustls::Error::UnsupportedNameType
        | rustls::Error::PeerIncompatible(_) => true,
        // The server says that there is nothing both sides have (RFC 8446 §6.2).
        rustls::Error::AlertReceived(alert) => {
            matches!(alert, HandshakeFailure | InsufficientSecurity | ProtocolVersion)
        }
        _ => false,
    }
}

/// A reason for the log. It may quote the server's certificate, in which anything may stand.
fn plain(reason: &str) -> String {
    let plain = |c: char| if matches!(c, ' '..='~') { c.to_string() } else { c.escape_default().to_string() };
    reason.chars().take(REASON).map(plain).collect()
}

/// Longer reasons are cut.
const REASON: usize = 300;
