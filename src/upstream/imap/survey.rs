//! What a server is like, found out by going the way of a log-in step by step, without changing anything there. What was
//! learnt before the way came to an end is kept. What it means for clients is left out.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    Imap, OnDelete, Server,
    capability::{ByPassword, Capabilities},
    dial,
    fault::Phase,
    listing::{self, Access, Listing},
    login,
    removal::Removal,
};
use crate::{
    mail::{Credentials, Snapshot, TokenMechanism, Uid},
    net::tls::{Connector, Handshake},
    upstream::Fault,
};

/// What was found out.
#[derive(Debug, Default)]
pub struct Survey {
    /// The handshake, if there was one, successful or not.
    pub tls: Option<Handshake>,
    /// What the server offers to everybody.
    pub offered: Option<Offer>,
    /// The capabilities after log-in.
    pub granted: Option<Vec<String>>,
    /// The mailbox, if somebody was to log in and all went well.
    pub mailbox: Option<Examined>,
    /// Why it went no further.
    pub fault: Option<Fault>,
}

/// What a server offers before log-in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Its capabilities, of which it may have others after log-in.
    pub capabilities: Vec<String>,
    /// How a password would be sent; `None` if it takes none.
    pub password: Option<ByPassword>,
    /// By which mechanism a token would be sent; `None` if it takes none.
    pub token: Option<TokenMechanism>,
    /// How messages will be removed, if what is known before log-in tells.
    pub removal: Option<Removal>,
}

/// A mailbox, opened by EXAMINE and listed.
#[derive(Debug)]
pub struct Examined {
    /// What a session would work with. Whether messages may be removed is as far as EXAMINE shows: it does not say
    /// whether the user may write to the mailbox.
    pub snapshot: Snapshot,
    /// How messages would be removed.
    pub removal: Removal,
    /// Messages that are not shown because their size cannot be had.
    pub unlisted: Vec<Uid>,
    /// How many messages are not shown because of their flags.
    pub hidden: usize,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// To connect, TLS and the greeting included.
    Connect,
    /// To log in.
    LogIn,
    /// To open the mailbox and to list it.
    List,
}

impl Survey {
    /// Whether the server has this capability, as far as is known.
    pub fn has(&self, capability: &str) -> bool {
        let offered = self.offered.as_ref().map(|offer| &offer.capabilities);
        self.granted
            .as_ref()
            .or(offered)
            .is_some_and(|these| these.iter().any(|it| it.eq_ignore_ascii_case(capability)))
    }
}

impl Imap {
    /// Finds out what the server is like; for `who`, if somebody is to log in. `progress` hears of each step before it is
    /// taken.
    pub async fn survey(&self, who: Option<&Credentials>, progress: &mut (dyn FnMut(Step) + Send)) -> Survey {
        let (tls, testimony) = self.0.tls.as_ref().map(Connector::witnessed).unzip();
        let server = Server {
            settings: self.0.settings.clone(),
            dial: self.0.dial.clone(),
            tls,
            budget: self.0.budget.clone(),
            sparing: None,
            expunge_refused: AtomicBool::new(false),
            hides: AtomicBool::new(false),
        };
        let mut survey = Survey::default();
        survey.fault = explore(&server, who, progress, &mut survey).await.err();
        survey.tls = testimony.and_then(|testimony| testimony.handshake());
        survey
    }
}

async fn explore(
    server: &Server,
    who: Option<&Credentials>,
    progress: &mut (dyn FnMut(Step) + Send),
    survey: &mut Survey,
) -> Result<(), Fault> {
    progress(Step::Connect);
    let (mut conn, offered) = login::knock(server).await.map_err(|trouble| login::before_login(trouble, server))?;
    survey.offered = Some(Offer::of(server, &offered));
    let Some(who) = who else {
        // A courtesy, which keeps the server's log free of complaints.
        let _ = timeout(FAREWELL, dial::checked(&mut conn, "LOGOUT")).await;
        return Ok(());
    };
    progress(Step::LogIn);
    let (conn, granted) = login::enter(server, conn, &offered, who).await?;
    survey.granted = Some(words(&granted));
    progress(Step::List);
    let listing = listing::open(server, conn, Access::Look, &mut None).await;
    let Listing { conn, snapshot, ground, unlisted, .. } =
        listing.map_err(|trouble| trouble.into_fault(Phase::Open, server.trusted()))?;
    let hidden = ground.hidden.len() - unlisted.len();
    survey.mailbox =
        Some(Examined { snapshot: Arc::unwrap_or_clone(snapshot), removal: ground.removal, unlisted, hidden });
    conn.leave().await;
    Ok(())
}

impl Offer {
    fn of(server: &Server, offered: &str) -> Self {
        let capabilities = Capabilities::read(offered);
        let gmail = capabilities.gmail && server.settings.on_delete.is_none();
        let removal = match server.settings.on_delete {
            Some(OnDelete::Ignore) => Some(Removal::Nothing),
            // What is offered to everybody is offered to users; what is not, may be.
            _ if capabilities.uid_expunge && !gmail => Some(Removal::Expunge),
            _ => None,
        };
        Self {
            capabilities: words(offered),
            password: capabilities.by_password(),
            token: capabilities.by_token(TokenMechanism::XOAuth2),
            removal,
        }
    }
}

fn words(capabilities: &str) -> Vec<String> {
    capabilities.split_ascii_whitespace().map(str::to_owned).collect()
}

/// LOGOUT is not worth a wait.
const FAREWELL: Duration = Duration::from_secs(2);
