//! UID sets that cover what they are meant to cover and nothing else.

use std::fmt::Write;

use crate::mail::Uid;

/// A set for one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UidSet {
    /// As an argument: `5,9:12`.
    pub(super) text: String,
    /// What it covers.
    pub(super) uids: Vec<Uid>,
}

/// Sets of `wanted`, which ascends. A range is written only over messages that are all wanted: `known` are all messages
/// that exist in the mailbox, ascending, shown or not; what lies between them does not exist and never will
/// (RFC 3501 §2.3.1.1).
pub(super) fn sets(wanted: &[Uid], known: &[Uid]) -> Vec<UidSet> {
    let mut sets: Vec<UidSet> = Vec::new();
    let mut rest = wanted;
    while let Some(first) = rest.first() {
        let run = run(rest, known, first).min(COUNT);
        let room = sets.last().map_or(0, |set| COUNT - set.uids.len());
        let (uids, more) = rest.split_at(if room == 0 { run } else { run.min(room) });
        rest = more;
        let item = match uids {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}:{last}"),
            [] => continue,
        };
        match sets.last_mut().filter(|set| room > 0 && set.text.len() + 1 + item.len() <= LENGTH) {
            Some(set) => {
                let _ = write!(set.text, ",{item}"); // Writing to a String cannot fail.
                set.uids.extend_from_slice(uids);
            }
            None => sets.push(UidSet { text: item, uids: uids.to_vec() }),
        }
    }
    sets
}

/// How many of `wanted`, from its first, follow one another among the known messages.
fn run(wanted: &[Uid], known: &[Uid], first: &Uid) -> usize {
    match known.binary_search(first) {
        Ok(at) => wanted.iter().zip(&known[at..]).take_while(|(wanted, known)| wanted == known).count(),
        Err(_) => 1,
    }
}

/// A command line should stay below 8,192 octets (RFC 7162 §4); the rest of it takes little.
const LENGTH: usize = 7_900;

/// Messages a command: what an UPDATE that breaks off leaves in doubt is no more than this.
const COUNT: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uids(numbers: impl IntoIterator<Item = u32>) -> Vec<Uid> {
        numbers.into_iter().filter_map(Uid::new).collect()
    }

    #[test]
    fn ranges_cover_only_what_is_wanted() {
        let known = uids([5, 7, 9, 12, 13, 20]);
        for (wanted, text) in [
            (&[5, 9][..], "5,9"),
            (&[5, 7, 9], "5:9"),
            (&[7, 9, 13], "7:9,13"),
            (&[5, 7, 9, 12, 13, 20], "5:20"),
            (&[6, 7, 9], "6,7:9"),
        ] {
            let sets = sets(&uids(wanted.iter().copied()), &known);
            assert_eq!(sets.iter().map(|set| set.text.as_str()).collect::<Vec<_>>(), [text]);
        }
        assert_eq!(sets(&[], &known), []);
    }

    #[test]
    fn commands_stay_short() {
        let all = uids(1..=1_000_000);
        let sets = sets(&all, &all);
        assert_eq!(sets.len(), 1_000);
        assert_eq!((sets[0].text.as_str(), sets[999].text.as_str()), ("1:1000", "999001:1000000"));
        let known = uids(4_000_000_000..4_000_010_000);
        let odd: Vec<_> = known.iter().copied().step_by(2).collect();
        assert!(super::sets(&odd, &known).iter().all(|set| set.text.len() <= LENGTH && set.uids.len() <= COUNT));
    }

    proptest! {
        #[test]
        fn sets_are_exact(known in proptest::collection::btree_set(1_u32..3_000, 0..2_500), picks in any::<u64>()) {
            let known = uids(known);
            let wanted: Vec<_> = known.iter().copied().filter(|uid| picks >> (uid.value() % 61) & 1 == 1).collect();
            let sets = sets(&wanted, &known);
            let covered = |uid: &Uid| sets.iter().flat_map(|set| set.text.split(',')).any(|item| {
                let (first, last) = item.split_once(':').unwrap_or((item, item));
                (first.parse::<u32>().unwrap()..=last.parse().unwrap()).contains(&uid.value())
            });
            for uid in &known {
                prop_assert_eq!(covered(uid), wanted.contains(uid));
            }
            let listed: Vec<_> = sets.iter().flat_map(|set| set.uids.iter().copied()).collect();
            prop_assert_eq!(listed, wanted);
        }
    }
}
