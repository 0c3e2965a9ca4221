//! How many connections there may be: in all, from one address before it has logged in, and in the middle of a TLS
//! handshake; and how many there can be descriptors for. A permit is taken before anything is spent on a connection and given back when it is dropped.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits of one process.
#[derive(Clone)]
pub struct Limits {
    all: Arc<Semaphore>,
    strangers: Arc<Strangers>,
    handshakes: Arc<Semaphore>,
}

/// Connections that have not logged in, by address.
struct Strangers {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one connection.
pub struct Permit {
    _one_of_all: OwnedSemaphorePermit,
    strangers: Arc<Strangers>,
    stranger: Option<Stranger>,
    handshakes: Arc<Semaphore>,
}

/// The right to one TLS handshake.
pub type Handshake = OwnedSemaphorePermit;

struct Stranger {
    strangers: Arc<Strangers>,
    address: IpAddr,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The process has as many connections as it may.
    #[error("limits.sessions is reached")]
    Sessions,
    /// The address has as many connections that have not logged in as it may.
    #[error("limits.sessions_per_address is reached")]
    Address,
    /// As many handshakes go on as may.
    #[error("limits.handshakes_in_flight is reached")]
    Handshakes,
}

impl Limits {
    /// `sessions` connections in all, `per_address` of them from one address (IPv6: one /64) that have not logged in;
    /// `handshakes` at a time.
    pub fn new(sessions: usize, per_address: usize, handshakes: usize) -> Self {
        let counter = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let strangers = Strangers { most: per_address, counts: Mutex::default() };
        Self { all: counter(sessions), strangers: Arc::new(strangers), handshakes: counter(handshakes) }
    }

    /// A permit for a connection from anywhere, if there is one left.
    pub fn admit(&self) -> Result<Permit, Full> {
        let one_of_all = self.all.clone().try_acquire_owned().map_err(|_| Full::Sessions)?;
        let (strangers, handshakes) = (self.strangers.clone(), self.handshakes.clone());
        Ok(Permit { _one_of_all: one_of_all, strangers, stranger: None, handshakes })
    }
}

impl Permit {
    /// The client is at `address`, as far as anybody can tell, and has not logged in. To be called once that is known:
    /// all clients of a proxy come from the proxy's address, and one of them must not take the places of all.
    pub fn stranger(&mut self, address: IpAddr) -> Result<(), Full> {
        self.stranger = None;
        let address = household(address);
        let mut counts = self.strangers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.strangers.most {
            return Err(Full::Address);
        }
        *count += 1;
        self.stranger = Some(Stranger { strangers: self.strangers.clone(), address });
        Ok(())
    }

    /// The right to begin TLS now, until it is up. Nobody waits for it: those before may all be strangers that say nothing.
    pub fn handshake(&self) -> Result<Handshake, Full> {
        self.handshakes.clone().try_acquire_owned().map_err(|_| Full::Handshakes)
    }

    /// The connection has logged in: it does not count for its address any more. Behind one address may be many.
    pub fn logged_in(&mut self) {
        self.stranger = None;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.strangers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// What this process can have descriptors for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affordable {
    /// So many sessions at a time.
    pub sessions: usize,
    /// So many other lines, even if there are all these sessions.
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
        let sessions = wanted.min(descriptors / DESCRIPTORS_OF_A_SESSION).max(1);
        Self { sessions, spare: descriptors.saturating_sub(sessions * DESCRIPTORS_OF_A_SESSION) }
    }
}

/// What one party can have as many of as it likes counts as one: an IPv6 /64 (RFC 6177).
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// The line to the client and the line to the server.
const DESCRIPTORS_OF_A_SESSION: usize = 2;

/// Ports, standard streams, the runtime's own, files that are read now and then, connections to be turned away.
const OTHER_DESCRIPTORS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_must_have_descriptors() {
        for (descriptors, sessions, spare) in [
            (1024, 480, 0),
            (20_064, 10_000, 0),
            (20_065, 10_000, 1),
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
        assert_eq!(limits.strangers.counts.lock().unwrap().len(), 1);
        assert!(admit("::ffff:192.0.2.1").is_ok() && admit("192.0.2.1").is_ok());
    }

    #[test]
    fn handshakes_are_counted_over_all_connections() {
        let limits = Limits::new(4, 2, 1);
        let (one, other) = (limits.admit().unwrap(), limits.admit().unwrap());
        let handshake = one.handshake().unwrap();
        assert_eq!(other.handshake().err(), Some(Full::Handshakes));
        drop(handshake);
        assert!(other.handshake().is_ok());
    }
}
