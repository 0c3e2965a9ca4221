//! How many connections there may be: in all, from one network before they have logged in, and in the middle of a TLS
//! handshake; and how many there can be descriptors for. A permit is taken before anything is spent on a connection and given back when it is dropped.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits of one process.
#[derive(Clone)]
pub struct Limits {
    sessions: usize,
    all: Arc<Semaphore>,
    strangers: Arc<Strangers>,
    handshakes: Arc<Semaphore>,
    ledger: Arc<Ledger>,
}

/// What has become of connections since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// They have a permit now.
    pub open: usize,
    /// They were given a permit.
    pub admitted: u64,
    /// They were given none: [`Full::Sessions`].
    pub full: u64,
    /// They were given up for [`Full::Address`], once it was known where their client is.
    pub address: u64,
    /// They were given up for [`Full::Handshakes`].
    pub handshakes: u64,
}

#[derive(Default)]
struct Ledger {
    admitted: AtomicU64,
    full: AtomicU64,
    address: AtomicU64,
    handshakes: AtomicU64,
}

/// Connections that have not logged in.
struct Strangers {
    /// So many of them from the smallest network that an address is in.
    most: usize,
    networks: Mutex<HashMap<IpNet, Network>>,
}

/// A network from which there are such connections.
struct Network {
    strangers: usize,
    handshakes: Arc<Semaphore>,
}

/// The right to one connection.
pub struct Permit {
    _one_of_all: OwnedSemaphorePermit,
    strangers: Arc<Strangers>,
    stranger: Option<Stranger>,
    handshakes: Arc<Semaphore>,
    ledger: Arc<Ledger>,
}

/// The right to one TLS handshake.
pub struct Handshake {
    _one_of_all: OwnedSemaphorePermit,
    _turns: Vec<OwnedSemaphorePermit>,
}

struct Stranger {
    strangers: Arc<Strangers>,
    address: IpAddr,
    /// Of its networks.
    handshakes: Vec<Arc<Semaphore>>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The process has as many connections as it may.
    #[error("limits.sessions is reached")]
    Sessions,
    /// The address, or a network around it, has as many connections that have not logged in as it may.
    #[error("limits.sessions_per_address is reached")]
    Address,
    /// As many handshakes go on as may.
    #[error("limits.handshakes_in_flight is reached")]
    Handshakes,
}

impl Limits {
    /// `sessions` connections in all, `per_address` of them from one address that have not logged in (IPv6: from one /64,
    /// and four times as many from one /48); `handshakes` at a time.
    pub fn new(sessions: usize, per_address: usize, handshakes: usize) -> Self {
        let sessions = sessions.min(Semaphore::MAX_PERMITS);
        let strangers = Strangers { most: per_address, networks: Mutex::default() };
        Self {
            sessions,
            all: Arc::new(Semaphore::new(sessions)),
            strangers: Arc::new(strangers),
            handshakes: Arc::new(Semaphore::new(handshakes.min(Semaphore::MAX_PERMITS))),
            ledger: Arc::default(),
        }
    }

    /// A permit for a connection from anywhere, if there is one left.
    pub fn admit(&self) -> Result<Permit, Full> {
        let one_of_all = self.all.clone().try_acquire_owned().map_err(|_| self.ledger.note(Full::Sessions))?;
        self.ledger.admitted.fetch_add(1, Relaxed);
        let (strangers, handshakes, ledger) = (self.strangers.clone(), self.handshakes.clone(), self.ledger.clone());
        Ok(Permit { _one_of_all: one_of_all, strangers, stranger: None, handshakes, ledger })
    }

    /// What has become of connections.
    pub fn counts(&self) -> Counts {
        let Ledger { admitted, full, address, handshakes } = &*self.ledger;
        Counts {
            open: self.sessions - self.all.available_permits(),
            admitted: admitted.load(Relaxed),
            full: full.load(Relaxed),
            address: address.load(Relaxed),
            handshakes: handshakes.load(Relaxed),
        }
    }
}

impl Ledger {
    fn note(&self, full: Full) -> Full {
        let count = match full {
            Full::Sessions => &self.full,
            Full::Address => &self.address,
            Full::Handshakes => &self.handshakes,
        };
        count.fetch_add(1, Relaxed);
        full
    }
}

impl Permit {
    /// The client is at `address`, as far as anybody can tell, and has not logged in. To be called once that is known:
    /// all clients of a proxy come from the proxy's address, and one of them must not take the places of all.
    pub fn stranger(&mut self, address: IpAddr) -> Result<(), Full> {
        self.stranger = None;
        self.stranger = Some(self.strangers.clone().admit(address).map_err(|full| self.ledger.note(full))?);
        Ok(())
    }

    /// The right to begin TLS, until it is up. Who comes from where many have begun already waits for one of them: whoever
    /// lets handshakes lie there must not have those of everybody, and where there is an office, all have their turn. For
    /// those of others nobody waits: they may all be strangers that do not go on. Cancel-safe.
    pub async fn handshake(&self) -> Result<Handshake, Full> {
        let mut turns = Vec::new();
        for handshakes in self.stranger.iter().flat_map(|stranger| &stranger.handshakes) {
            turns.push(handshakes.clone().acquire_owned().await.map_err(|_| Full::Handshakes)?);
        }
        let handshake = self.handshakes.clone().try_acquire_owned();
        let one_of_all = handshake.map_err(|_| self.ledger.note(Full::Handshakes))?;
        Ok(Handshake { _one_of_all: one_of_all, _turns: turns })
    }

    /// The connection has logged in: it does not count for its address any more. Behind one address may be many.
    pub fn logged_in(&mut self) {
        self.stranger = None;
    }
}

impl Strangers {
    fn admit(self: Arc<Self>, address: IpAddr) -> Result<Stranger, Full> {
        let mut known = self.known();
        let is_full = |(network, share): (IpNet, usize)| {
            known.get(&network).map_or(0, |network| network.strangers) >= self.most.saturating_mul(share)
        };
        if networks(address).zip(SHARES).any(is_full) {
            return Err(Full::Address);
        }
        let count = |(network, share): (IpNet, usize)| {
            let handshakes = || Arc::new(Semaphore::new(HANDSHAKES * share));
            let network = known.entry(network).or_insert_with(|| Network { strangers: 0, handshakes: handshakes() });
            network.strangers += 1;
            network.handshakes.clone()
        };
        let handshakes = networks(address).zip(SHARES).map(count).collect();
        drop(known);
        Ok(Stranger { strangers: self, address, handshakes })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpNet, Network>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut known = self.strangers.known();
        for network in networks(self.address) {
            if let Some(left) = known.get_mut(&network) {
                left.strangers -= 1;
                if left.strangers == 0 {
                    known.remove(&network);
                }
            }
        }
    }
}

/// What this process can have descriptors for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affordable {
    /// So many sessions at a time.
    pub sessions: usize,
    /// So many other lines, even if there are all these sessions. It is some where sessions are fewer than wanted, too.
    pub spare: usize,
}

impl Affordable {
    /// As many sessions as `wanted`, or as many as there can be. The process's own limit of descriptors is raised as far
    /// as the system allows: the low one that processes begin with is there for programs that use select(2).
    pub fn of(wanted: usize) -> Self {
        match rlimit::increase_nofile_limit(u64::MAX) {
            Ok(descriptors) => Self::with(usize::try_from(descriptors).unwrap_or(usize::MAX), wanted),
            // Whoever does not tell how many there are will say when there are no more.
            Err(_) => Self { sessions: wanted, spare: usize::MAX },
        }
    }

    fn with(descriptors: usize, wanted: usize) -> Self {
        let descriptors = descriptors.saturating_sub(OTHER_DESCRIPTORS);
        let most = (descriptors - descriptors / RESERVE) / DESCRIPTORS_OF_A_SESSION;
        let sessions = wanted.min(most).max(1);
        Self { sessions, spare: descriptors.saturating_sub(sessions * DESCRIPTORS_OF_A_SESSION) }
    }
}

/// What an address is counted as, the smallest first: an IPv4 address; an IPv6 /64, which one subscriber has (RFC 6177),
/// and /48, which one can have for the asking.
pub fn networks(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let address = address.to_canonical();
    let lengths: &[u8] = if address.is_ipv4() { &[32] } else { &[64, 48] };
    lengths.iter().filter_map(move |length| IpNet::new(address, *length).ok()).map(|network| network.trunc())
}

/// How many times as many may come from each of these networks: in a /48 there may be several subscribers.
const SHARES: [usize; 2] = [1, 4];

/// How many handshakes there are at a time from the smallest of these networks. They are short, so that few are enough
/// for many clients one after the other.
const HANDSHAKES: usize = 8;

/// The line to the client and the line to the server.
const DESCRIPTORS_OF_A_SESSION: usize = 2;

/// One descriptor in so many is for other lines at least: they spare servers and clients more than the last sessions would.
const RESERVE: usize = 8;

/// Ports, standard streams, the runtime's own, files that are read now and then, connections to be turned away,
/// those of the administrator.
const OTHER_DESCRIPTORS: usize = 64;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::unconstrained;

    use super::*;

    #[test]
    fn sessions_must_have_descriptors() {
        for (descriptors, sessions, spare) in [
            (1024, 420, 120),
            (22_920, 9_999, 2_858),
            (22_922, 10_000, 2_858),
            (32_768, 10_000, 12_704),
            (67, 1, 1),
            (64, 1, 0),
            (0, 1, 0),
        ] {
            assert_eq!(Affordable::with(descriptors, 10_000), Affordable { sessions, spare }, "{descriptors}");
        }
        assert_eq!(Affordable::of(1).sessions, 1);
    }

    #[test]
    fn permits_are_counted_and_given_back() {
        let limits = Limits::new(4, 2, 1);
        let admit = |address: &str| {
            let mut permit = limits.admit()?;
            permit.stranger(address.parse().unwrap()).map(|()| permit)
        };
        let mut one = admit("2001:db8::1").unwrap();
        let two = admit("2001:db8::2").unwrap();
        assert_eq!(admit("2001:db8::3").err(), Some(Full::Address));
        let _other = admit("2001:db8:0:1::3").unwrap();
        one.logged_in();
        let three = admit("2001:db8::3").unwrap();
        assert_eq!(admit("192.0.2.1").err(), Some(Full::Sessions));
        drop((two, three));
        assert_eq!(limits.strangers.known().len(), 2, "the /64 and the /48 of one");
        assert!(admit("::ffff:192.0.2.1").is_ok() && admit("192.0.2.1").is_ok());
        // Whoever had a permit and lost it for his address was admitted, too.
        assert_eq!(limits.counts(), Counts { open: 2, admitted: 7, full: 1, address: 1, handshakes: 0 });
    }

    #[test]
    fn who_has_a_48_does_not_have_all_places() {
        let limits = Limits::new(1000, 2, 1);
        let admit = |address: String| {
            let mut permit = limits.admit().unwrap();
            permit.stranger(address.parse().unwrap()).map(|()| permit)
        };
        let inside: Vec<_> = (0..20).filter_map(|subnet| admit(format!("2001:db8:0:{subnet}::1")).ok()).collect();
        assert_eq!(inside.len(), 8);
        assert!(admit("2001:db8:1::1".to_owned()).is_ok());
        drop(inside);
        assert!(limits.strangers.known().is_empty());
    }

    #[test]
    fn a_network_is_what_one_party_has() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64 2001:db8:1::/48"),
        ] {
            let networks: Vec<_> = networks(address.parse().unwrap()).map(|network| network.to_string()).collect();
            assert_eq!(networks.join(" "), expected);
        }
    }

    #[tokio::test]
    async fn handshakes_are_counted_over_all_connections() {
        let limits = Limits::new(4, 2, 1);
        let (one, other) = (limits.admit().unwrap(), limits.admit().unwrap());
        let handshake = one.handshake().await.unwrap();
        assert_eq!(other.handshake().await.err(), Some(Full::Handshakes));
        drop(handshake);
        assert!(other.handshake().await.is_ok());
        assert_eq!(limits.counts(), Counts { open: 2, admitted: 2, handshakes: 1, ..Counts::default() });
    }

    #[tokio::test]
    async fn who_lets_handshakes_lie_there_waits_for_them_alone() {
        let limits = Limits::new(1000, 1000, 1000);
        let admit = |address: String| {
            let mut permit = limits.admit().unwrap();
            permit.stranger(address.parse().unwrap()).unwrap();
            permit
        };
        let begin = |address| {
            let permit = admit(address);
            let handshake = unconstrained(permit.handshake()).now_or_never()?.ok()?;
            Some((permit, handshake))
        };
        for (whose, most) in
            [("192.0.2.1", HANDSHAKES), ("2001:db8::1", HANDSHAKES), ("2001:db8:1:N::1", 4 * HANDSHAKES)]
        {
            let address = |number: usize| whose.replace('N', &number.to_string());
            let begun: Vec<_> = (0..100).filter_map(|number| begin(address(number))).collect();
            assert_eq!(begun.len(), most, "{whose}");
            assert!(begin("192.0.2.2".to_owned()).is_some() && begin("2001:db8:2::1".to_owned()).is_some());
            let (next, ()) =
                tokio::join!(async { admit(address(200)).handshake().await.is_ok() }, async { drop(begun) });
            assert!(next);
        }
    }
}
