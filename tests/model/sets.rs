//! Small sets as bits: of digests, of tickets.

use std::fmt;

/// A set of numbers below eight.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Set(u8);

impl Set {
    pub(crate) fn of(numbers: &[usize]) -> Set {
        numbers
            .iter()
            .fold(Set::default(), |set, number| set.with(*number))
    }

    pub(crate) fn has(self, number: usize) -> bool {
        self.0 & (1 << number) != 0
    }

    pub(crate) fn with(self, number: usize) -> Set {
        Set(self.0 | 1 << number)
    }

    pub(crate) fn without(self, number: usize) -> Set {
        Set(self.0 & !(1 << number))
    }

    pub(crate) fn insert(&mut self, number: usize) {
        *self = self.with(number);
    }

    pub(crate) fn remove(&mut self, number: usize) {
        *self = self.without(number);
    }

    pub(crate) fn and(self, other: Set) -> Set {
        Set(self.0 & other.0)
    }

    pub(crate) fn or(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub(crate) fn minus(self, other: Set) -> Set {
        Set(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |number| self.has(*number))
    }

    /// The greatest member alone.
    pub(crate) fn greatest(self) -> Set {
        self.iter()
            .last()
            .map_or(Set::default(), |number| Set::of(&[number]))
    }

    /// The set after `number` is no more and all greater ones move down.
    pub(crate) fn closed_up(self, number: usize) -> Set {
        let below = (1u8 << number) - 1;
        Set(self.0 & below | (self.0 >> 1) & !below)
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[test]
fn self_test_of_sets() {
    let set = Set::of(&[0, 2, 5]);
    assert!(set.has(2) && !set.without(2).has(2) && set.with(1).has(1));
    assert_eq!(set.closed_up(2), Set::of(&[0, 4]));
    assert_eq!(set.closed_up(1), Set::of(&[0, 1, 4]));
    assert_eq!(set.greatest(), Set::of(&[5]));
    assert_eq!(Set::default().greatest(), Set::default());
    assert_eq!(
        set.minus(Set::of(&[5])).or(Set::of(&[1])),
        Set::of(&[0, 1, 2])
    );
    assert_eq!(set.and(Set::of(&[5, 6])), Set::of(&[5]));
}
