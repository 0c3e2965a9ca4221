//! From a configured server to a greeting over a line that can be trusted: connect, TLS, STARTTLS.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use super::{
    Security, Server,
    capability::Capabilities,
    conn::{COMMAND, Conn},
    fault::Trouble,
};
use crate::net::{Wire, tls::HandshakeFault};

/// A line on which the server has greeted, and TLS is up if it is to be.
pub(super) struct Greeted {
    pub(super) conn: Conn,
    /// What the server said it can do, as words, if it did.
    pub(super) capabilities: Option<String>,
}

/// Connects and waits for the greeting, each within its time.
pub(super) async fn connect(server: &Server) -> Result<Greeted, Trouble> {
    let wire =
        within(TCP, "connecting", server.dial.dial(&server.settings.endpoint)).await?.map_err(Trouble::Unreachable)?;
    let wire = match server.settings.security {
        Security::Implicit => secure(server, wire).await?,
        Security::StartTls | Security::Plain => wire,
    };
    let mut conn = Conn::new(wire);
    within(GREETING, "its greeting was awaited", conn.greeting()).await??;
    let capabilities = conn.aside().capabilities.take();
    if server.settings.security != Security::StartTls {
        return Ok(Greeted { conn, capabilities });
    }
    // Whatever was said in the clear is forgotten (RFC 3501 §6.2.1).
    let conn = start_tls(server, conn, capabilities).await?;
    Ok(Greeted { conn, capabilities: None })
}

/// Asks for the capabilities.
pub(super) async fn ask_capabilities(conn: &mut Conn) -> Result<String, Trouble> {
    checked(conn, "CAPABILITY").await?;
    Ok(conn.aside().capabilities.take().unwrap_or_default())
}

/// Waits for `future`, but not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    what: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Trouble> {
    timeout(limit, future).await.map_err(|_| Trouble::Silent(what))
}

async fn start_tls(server: &Server, mut conn: Conn, offered: Option<String>) -> Result<Conn, Trouble> {
    const MISSING: Trouble = Trouble::Unfit("the server does not offer STARTTLS, which is required");
    if offered.is_some_and(|offered| !Capabilities::read(&offered).starttls) {
        return Err(MISSING);
    }
    checked(&mut conn, "STARTTLS").await.map_err(|trouble| match trouble {
        Trouble::No(_) | Trouble::Bad(_) => MISSING,
        trouble => trouble,
    })?;
    let wire = conn.into_wire();
    let wire = wire.ok_or(Trouble::Unfit("something was sent in the clear behind the answer to STARTTLS"))?;
    Ok(Conn::new(secure(server, wire).await?))
}

async fn secure(server: &Server, wire: Box<dyn Wire>) -> Result<Box<dyn Wire>, Trouble> {
    let tls = server.tls.as_ref().ok_or(Trouble::Unfit("TLS is required, and nothing is there to do it"))?;
    match within(TLS, "TLS was started", tls.connect(wire, &server.settings.endpoint.host)).await? {
        Ok(wire) => Ok(wire),
        Err(HandshakeFault::Unacceptable(why)) => Err(Trouble::Unacceptable(why)),
        Err(HandshakeFault::Failed(why)) => Err(Trouble::NoTls(why)),
        Err(HandshakeFault::Broken(error)) => Err(Trouble::Unreachable(error)),
    }
}

/// A command before log-in, and its tagged OK.
pub(super) async fn checked(conn: &mut Conn, command: &str) -> Result<(), Trouble> {
    within(COMMAND, "a command was open", conn.run(command)).await??;
    Ok(())
}

const TCP: Duration = Duration::from_secs(10);
const TLS: Duration = Duration::from_secs(10);
const GREETING: Duration = Duration::from_secs(10);
