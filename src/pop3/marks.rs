//! A set of message indices as a bitmap, which takes no memory before its first member: most sessions mark nothing.

/// The set.
#[derive(Clone, Default)]
pub(super) struct Marks(Vec<u64>);

impl Marks {
    /// Adds `index`.
    pub(super) fn insert(&mut self, index: usize) {
        let word = index / BITS;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % BITS);
    }

    /// Takes `index` out, if it is in.
    pub(super) fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / BITS) {
            *word &= !(1 << (index % BITS));
        }
    }

    /// Whether `index` is in.
    pub(super) fn contains(&self, index: usize) -> bool {
        self.0.get(index / BITS).is_some_and(|word| word & (1 << (index % BITS)) != 0)
    }

    /// Takes everything out and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many are in.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The members, ascending.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0)
            .flat_map(|(at, word)| (0..BITS).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at * BITS + bit))
    }
}

const BITS: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_back_in_order_and_leave_when_removed() {
        let mut marks = Marks::default();
        for index in [200, 0, 63, 64, 5] {
            marks.insert(index);
        }
        marks.remove(5);
        marks.remove(9999);
        assert_eq!(marks.indices().collect::<Vec<_>>(), [0, 63, 64, 200]);
        assert_eq!(marks.len(), 4);
        assert!(marks.contains(64) && !marks.contains(5) && !marks.contains(9999));
        marks.clear();
        assert_eq!(marks.len(), 0);
    }
}
