//! From a configured server to a greeting over a line that can be trusted: connect, TLS, STARTTLS.

use std::{future::Future, time::Duration};

use async_imap::{
    Client,
    error::Error,
    imap_proto::{Response, Status},
};
use tokio::time::timeout;

use super::{
    Security, Server,
    capability::Capabilities,
    conn,
    fault::{Outcome, Trouble},
    tap::{Malformed, Tap},
};
use crate::net::{Wire, tls::HandshakeFault};

/// A line on which the server has greeted, and TLS is up if it is to be.
pub(super) struct Greeted {
    pub(super) client: Client<Tap>,
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
    let mut client = Client::new(Tap::new(wire));
    greeting(&mut client).await?;
    let capabilities = capabilities(&mut client);
    if server.settings.security != Security::StartTls {
        return Ok(Greeted { client, capabilities });
    }
    // Whatever was said in the clear is forgotten (RFC 3501 §6.2.1).
    let client = start_tls(server, client, capabilities).await?;
    Ok(Greeted { client, capabilities: None })
}

/// Asks for the capabilities.
pub(super) async fn ask_capabilities(client: &mut Client<Tap>) -> Result<String, Trouble> {
    checked(client, "CAPABILITY").await?;
    Ok(capabilities(client).unwrap_or_default())
}

/// What the server said last of what it can do; it is forgotten here.
fn capabilities(client: &mut Client<Tap>) -> Option<String> {
    client.get_mut().aside.capabilities.take()
}

/// What async-imap's error means. A refusal is that of the newest tagged response, whose code async-imap drops; but a line
/// that ends refuses nothing, whatever tagged responses to other commands came before.
pub(super) fn refusal(tap: &mut Tap, error: &Error) -> Trouble {
    let (tagged, bye) = (tap.aside.tagged.take(), tap.aside.bye.take());
    if let (Error::No(_) | Error::Bad(_), Some(line)) = (error, tagged)
        && let Ok((_, Response::Done { status, outcome, .. })) = Response::parse(&line)
        && let Err(refusal) = conn::judge(&status, Outcome::of(&outcome))
    {
        return refusal;
    }
    match bye.as_deref().map(Response::parse) {
        Some(Ok((_, Response::Data { outcome, .. }))) => Trouble::Bye(Outcome::of(&outcome)),
        _ => conn::failure(error),
    }
}

/// Waits for `future`, but not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    what: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Trouble> {
    timeout(limit, future).await.map_err(|_| Trouble::Silent(what))
}

async fn greeting(client: &mut Client<Tap>) -> Result<(), Trouble> {
    let greeting = within(GREETING, "its greeting was awaited", client.read_response()).await?;
    let greeting = greeting.map_err(|error| conn::trouble(&error))?.ok_or(Trouble::Lost)?;
    match greeting.parsed() {
        Response::Data { status: Status::Ok, .. } => Ok(()),
        Response::Data { status: Status::Bye, outcome } => Err(Trouble::Bye(Outcome::of(outcome))),
        // Whoever it says we are, it is not who the client says it is; and TLS can no longer be started.
        Response::Data { status: Status::PreAuth, .. } => {
            Err(Trouble::Unfit("the server greets as if somebody had logged in (PREAUTH)"))
        }
        _ => Err(Malformed("no IMAP greeting").into()),
    }
}

async fn start_tls(server: &Server, mut client: Client<Tap>, offered: Option<String>) -> Result<Client<Tap>, Trouble> {
    const MISSING: Trouble = Trouble::Unfit("the server does not offer STARTTLS, which is required");
    if offered.is_some_and(|offered| !Capabilities::read(&offered).starttls) {
        return Err(MISSING);
    }
    checked(&mut client, "STARTTLS").await.map_err(|trouble| match trouble {
        Trouble::No(_) | Trouble::Bad(_) => MISSING,
        trouble => trouble,
    })?;
    let wire = client.into_inner().into_wire();
    let wire = wire.ok_or(Trouble::Unfit("something was sent in the clear behind the answer to STARTTLS"))?;
    Ok(Client::new(Tap::new(secure(server, wire).await?)))
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
pub(super) async fn checked(client: &mut Client<Tap>, command: &str) -> Result<(), Trouble> {
    client.get_mut().begin();
    client.get_mut().aside.tagged = None;
    let outcome = within(conn::COMMAND, "a command was open", client.run_command_and_check_ok(command, None)).await?;
    outcome.map_err(|error| refusal(client.get_mut(), &error))
}

const TCP: Duration = Duration::from_secs(10);
const TLS: Duration = Duration::from_secs(10);
const GREETING: Duration = Duration::from_secs(10);
