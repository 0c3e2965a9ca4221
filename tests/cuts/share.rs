//! Which cuts there are, and a share of them in which no kind of cut is left out.

use std::collections::BTreeSet;

use super::{
    Case, FAULTS, Recorded,
    recordings::Tls,
    session::{Cut, Leg},
};
use crate::support::faulty::{Fault, Place, Plan, Tape, Towards, clear, records};

/// All cuts that differ only in their place.
pub(super) struct Kind<'a> {
    recorded: &'a Recorded,
    /// An index into `played`.
    order: usize,
    leg: Leg,
    towards: Towards,
    fault: Fault,
    for_good: bool,
    places: Places,
}

/// Where one direction of a line is cut.
#[derive(Clone)]
struct Places {
    /// Before the first of so many octets in the clear and behind each.
    clear: usize,
    /// At the ends of each TLS record, in its header and within; these are the lengths.
    records: Vec<usize>,
}

impl Kind<'_> {
    /// How many cuts are of this kind.
    pub(super) fn count(&self) -> usize {
        self.places.clear + 1 + self.places.records.len() * WITHIN
    }
}

impl<'a> Kind<'a> {
    /// The cut at the how many-th place.
    fn case(&self, number: usize) -> Case<'a> {
        let Places { clear, records } = &self.places;
        let place = match number.checked_sub(clear + 1) {
            None => Place::Octet(number),
            Some(number) => {
                let (record, length) = (number / WITHIN, records[number / WITHIN]);
                Place::Record(record, [0, 3, 5, length / 2, length - 1][number % WITHIN])
            }
        };
        let plan = Plan { towards: self.towards, place, fault: self.fault };
        let cut = Cut { leg: self.leg, plan, for_good: self.for_good };
        Case { recorded: self.recorded, order: self.order, cut }
    }

    /// All of them.
    pub(super) fn cases(&self) -> impl Iterator<Item = Case<'a>> {
        (0..self.count()).map(|number| self.case(number))
    }

    /// So many of them, at least one: drawn one from each of as many stretches, the first and the last of all among them
    /// if there is more than one. The same every time. Where the clear ends and TLS begins is always among them.
    fn draw(&self, number: usize, seed: u64) -> impl Iterator<Item = Case<'a>> {
        let (count, number) = (self.count(), self.count().min(number));
        let stretches = (0..number).map(|stretch| {
            let (from, to) = (count * stretch / number, count * (stretch + 1) / number);
            match stretch {
                0 if number > 1 => 0,
                _ if number > 1 && stretch + 1 == number => count - 1,
                _ => from + mixed(seed + stretch as u64) as usize % (to - from),
            }
        });
        let Places { clear, records } = &self.places;
        let turn = (*clear > 0 && !records.is_empty()).then_some(*clear);
        let drawn: BTreeSet<usize> = stretches.chain(turn).collect();
        drawn.into_iter().map(|number| self.case(number))
    }
}

/// Every kind of cut of a session.
pub(super) fn kinds(recorded: &Recorded) -> Vec<Kind<'_>> {
    // What is said below TLS is never the same, so that the order in which a server answers makes no difference there; and
    // beside TLS with the client it makes none that is not seen without.
    let has_tls = recorded.recording.tls != Tls::Nowhere;
    let orders = recorded.played.iter().take(if has_tls { 1 } else { usize::MAX });
    let mut kinds = Vec::new();
    for (order, (_, played)) in orders.enumerate() {
        let upstream = played.upstream.iter().enumerate().map(|(number, tape)| (Leg::Upstream(number), tape));
        for (leg, tape) in [(Leg::Client, &played.client_wire)].into_iter().chain(upstream) {
            for towards in [Towards::Popgate, Towards::Peer] {
                let places = places(tape, towards);
                for (fault, for_good) in FAULTS {
                    let is_none = for_good && leg == Leg::Client || fault == Fault::Doubled && towards == Towards::Peer;
                    if !is_none {
                        let places = places.clone();
                        kinds.push(Kind { recorded, order, leg, towards, fault, for_good, places });
                    }
                }
            }
        }
    }
    kinds
}

fn places(tape: &Tape, towards: Towards) -> Places {
    let octets = if towards == Towards::Popgate { &tape.heard } else { &tape.said };
    Places { clear: clear(octets), records: records(octets) }
}

/// About so many of the cuts of one session: of each kind its part of them, but a few of each if there can be, and one in any
/// case.
pub(super) fn share<'a>(kinds: &[Kind<'a>], number: usize) -> Vec<Case<'a>> {
    let all: usize = kinds.iter().map(Kind::count).sum();
    let least = (number / kinds.len()).clamp(1, 3);
    let draw = |(at, kind): (usize, &Kind<'a>)| {
        // Unlike in any other session, so that what is one in each is not the same one in all.
        let seed = mixed(all as u64) ^ (at as u64) << 32;
        kind.draw(least.max(kind.count() * number / all), seed).collect::<Vec<_>>()
    };
    kinds.iter().enumerate().flat_map(draw).collect()
}

/// A number in which every bit of another one counts (SplitMix64).
const fn mixed(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ seed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ seed >> 31
}

/// A record is cut at so many places.
const WITHIN: usize = 5;
