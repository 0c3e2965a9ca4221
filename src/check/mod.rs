//! `popgate check`: the configuration as it holds, and what its upstreams are like, without a client and without changing
//! anything. Reading the command line and printing are left to the process.

use std::{mem, net::IpAddr, ops::Range, sync::Arc, time::Duration};

use tokio::{net::lookup_host, time::timeout};

pub use self::{report::Report, table::Table};
use crate::{
    config::{self, Config, Setting},
    gateway::{Domain, Route, Routes},
    mail::{Credentials, Deletion, Snapshot, UidValidity},
    net::{
        Endpoint,
        tcp::Tcp,
        tls::{self, Connector},
    },
    pop3::unique_id::Template,
    upstream::imap::{self, Examined, Imap, Offer, Security, Step},
};

mod report;
mod table;
mod words;

/// What is being done, for whoever waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// This has begun.
    Begun(String),
    /// It went well.
    Done,
    /// It did not.
    Failed,
}

/// Why nothing can be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// No upstream is for this user.
    #[error("--user: found {0:?}, whose domain is in no route; needed: upstream.url for users of all other domains")]
    Nobody(String),
}

/// Looks at everything; at the maildrop of `who`, if somebody is to log in.
pub async fn check(
    config: &Config,
    settings: Vec<Setting>,
    who: Option<Credentials>,
    mut progress: impl FnMut(&Progress) + Send,
) -> Result<Report, Error> {
    let mut sites = sites(config);
    if let Some(who) = who {
        let Some((index, user)) = choose(config, &who.user) else { return Err(Error::Nobody(who.user)) };
        sites[index].who = Some(Credentials { user, ..who });
    }
    let mut upstreams = Vec::new();
    for site in &sites {
        upstreams.push(site.look(&mut progress).await?);
    }
    Ok(Report {
        usable: upstreams.iter().all(|upstream| upstream.usable),
        configuration: settings.into_iter().map(Into::into).collect(),
        dangerous: config.dangerous.clone(),
        warnings: config.warnings.clone(),
        upstreams,
    })
}

/// An upstream.
struct Site<'a> {
    /// Whose users it serves; empty: everybody else's.
    domains: &'a [Domain],
    upstream: &'a config::Upstream,
    /// Who is to log in there, by the name that it knows.
    who: Option<Credentials>,
}

/// All upstreams, the one for everybody else first.
fn sites(config: &Config) -> Vec<Site<'_>> {
    let default = config.upstream.iter().map(|upstream| (&[][..], upstream));
    let routes = config.routes.iter().map(|route| (&route.domains[..], &route.upstream));
    default.chain(routes).map(|(domains, upstream)| Site { domains, upstream, who: None }).collect()
}

/// Which of the upstreams a session of this user would go to, and under which name.
fn choose(config: &Config, user: &str) -> Option<(usize, String)> {
    let mut sites = sites(config).into_iter().enumerate().peekable();
    let route = |(index, site): (usize, Site<'_>)| Route::new(index, site.upstream.maildrops.clone());
    let mut routes =
        Routes::new(sites.next_if(|(_, site)| site.domains.is_empty()).map(route), config.append_domain.clone());
    for (index, site) in sites {
        routes.add(site.domains.to_vec(), route((index, site)));
    }
    routes.choose(user).map(|(route, name)| (*route.upstream(), name))
}

impl Site<'_> {
    async fn look(&self, progress: &mut (impl FnMut(&Progress) + Send)) -> Result<report::Upstream, Error> {
        let config::Upstream { server, ca, maildrops, .. } = self.upstream;
        let imap::Settings { security, endpoint, mailbox, .. } = server;
        let connector = match security {
            Security::Plain => None,
            Security::Implicit | Security::StartTls => Some(Connector::new(ca.as_deref())?),
        };
        let imap = Imap::new(server.clone(), Arc::new(Tcp), connector);
        let addresses = resolve(endpoint).await;
        let mut begun = false;
        let mut survey = imap
            .survey(self.who.as_ref(), &mut |step| {
                if mem::replace(&mut begun, true) {
                    progress(&Progress::Done);
                }
                progress(&Progress::Begun(match step {
                    Step::Connect => format!("connecting to {endpoint}"),
                    Step::LogIn => "logging in".to_owned(),
                    Step::List => format!("listing {mailbox}"),
                }));
            })
            .await;
        progress(if survey.fault.is_none() { &Progress::Done } else { &Progress::Failed });
        let tls = survey.tls.take().map(report::Tls::from);
        let fault = survey.fault.take().map(|fault| report::Trouble::new(fault, tls.as_ref()));
        let takes = |offer: &Offer| offer.password.is_some() || offer.token.is_some();
        Ok(report::Upstream {
            url: url(*security, endpoint),
            domains: self.domains.iter().map(ToString::to_string).collect(),
            usable: fault.is_none() && survey.offered.as_ref().is_some_and(takes),
            addresses,
            paths: words::paths(&survey, server, maildrops),
            warnings: words::warnings(&survey, server, maildrops, tls.as_ref()),
            maildrop: survey.mailbox.as_ref().zip(self.who.as_ref()).map(|(mailbox, who)| self.maildrop(mailbox, who)),
            capabilities: report::Capabilities {
                before_login: survey.offered.map(|offer| offer.capabilities),
                after_login: survey.granted,
            },
            tls,
            fault,
        })
    }

    fn maildrop(&self, examined: &Examined, who: &Credentials) -> report::Maildrop {
        let Examined { snapshot, unlisted, hidden, .. } = examined;
        let count = snapshot.len();
        let messages = |indices: Range<usize>| {
            indices.filter_map(|index| message(snapshot, index, &self.upstream.maildrops.unique_ids)).collect()
        };
        report::Maildrop {
            user: who.user.clone(),
            mailbox: self.upstream.server.mailbox.clone(),
            messages: count,
            octets: snapshot.total(),
            uidvalidity: snapshot.uid_validity().map(UidValidity::value),
            first: messages(0..count.min(SHOWN)),
            last: messages(count.saturating_sub(SHOWN).max(SHOWN)..count),
            dele_accepted: snapshot.deletion() == Deletion::Allowed,
            dele: words::dele(examined),
            unlisted: unlisted.iter().map(|uid| uid.value()).collect(),
            hidden: *hidden,
        }
    }
}

fn message(snapshot: &Snapshot, index: usize, unique_ids: &Template) -> Option<report::Message> {
    let message = snapshot.message(index)?;
    let unique_id = snapshot.uid_validity().map(|validity| {
        let mut octets = Vec::new();
        unique_ids.write(message.uid, validity, &mut octets);
        String::from_utf8_lossy(&octets).into_owned()
    });
    Some(report::Message { number: index + 1, octets: message.octets, unique_id })
}

/// Where a name leads. That it leads nowhere is found out again when the server is dialled, and said there.
async fn resolve(endpoint: &Endpoint) -> Vec<IpAddr> {
    let mut addresses = match timeout(RESOLVE, lookup_host((endpoint.host.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        _ => Vec::new(),
    };
    addresses.dedup();
    addresses
}

fn url(security: Security, endpoint: &Endpoint) -> String {
    let scheme = match security {
        Security::Implicit => "imaps",
        Security::StartTls => "imap+starttls",
        Security::Plain => "imap",
    };
    format!("{scheme}://{endpoint}")
}

/// As long as connecting may take.
const RESOLVE: Duration = Duration::from_secs(10);

/// So many messages from each end of the maildrop.
const SHOWN: usize = 3;
