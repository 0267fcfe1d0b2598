//! Sets of numbers that mostly come in order.

/// Ranges, sorted, apart from each other, each from its first number to the one behind its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    /// False when it was there. In order this extends the last range.
    pub fn insert(&mut self, number: u64) -> bool {
        if let Some((_, end)) = self.0.last_mut().filter(|(_, end)| *end == number) {
            *end += 1;
            return true;
        }
        let at = self.0.partition_point(|(start, _)| *start <= number);
        if at > 0 && number < self.0[at - 1].1 {
            return false;
        }
        let joins_before = at > 0 && self.0[at - 1].1 == number;
        let joins_after = self
            .0
            .get(at)
            .is_some_and(|(start, _)| *start == number + 1);
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 += 1,
            (false, true) => self.0[at].0 -= 1,
            (false, false) => self.0.insert(at, (number, number + 1)),
        }
        true
    }

    /// Whether `insert` would need one range more.
    pub fn opens_a_piece(&self, number: u64) -> bool {
        let at = self.0.partition_point(|(start, _)| *start <= number);
        let within_or_behind = at > 0 && number <= self.0[at - 1].1;
        let before = self
            .0
            .get(at)
            .is_some_and(|(start, _)| *start == number + 1);
        !within_or_behind && !before
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Ranges it takes to hold them.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }

    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|(start, _)| *start)
    }

    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, end)| end - 1)
    }

    /// How many of them `other` has as well.
    pub fn shared_with(&self, other: &Intervals) -> u64 {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut shared = 0;
        while let (Some((start, end)), Some((other_start, other_end))) =
            (mine.peek(), theirs.peek())
        {
            shared += end.min(other_end).saturating_sub(*start.max(other_start));
            match end < other_end {
                true => mine.next(),
                false => theirs.next(),
            };
        }
        shared
    }

    /// Takes over all of `other`.
    pub fn merge(&mut self, other: &Intervals) {
        let mut all: Vec<(u64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        self.0.clear();
        for (start, end) in all {
            match self.0.last_mut().filter(|(_, last)| start <= *last) {
                Some((_, last)) => *last = end.max(*last),
                None => self.0.push((start, end)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Random;

    #[test]
    fn they_are_sets() {
        let seed = std::env::var("FOREBAY_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(7);
        println!("FOREBAY_SEED={seed}");
        let mut random = Random(seed);
        for _ in 0..200 {
            let (mut ours, mut theirs) = (Intervals::default(), Intervals::default());
            let (mut set, mut other) = (BTreeSet::new(), BTreeSet::new());
            for _ in 0..60 {
                let number = random.next_u64() % 50;
                let (pieces, opens) = (ours.pieces(), ours.opens_a_piece(number));
                assert_eq!(ours.insert(number), set.insert(number));
                assert_eq!(ours.pieces() > pieces, opens);
                let number = random.next_u64() % 50;
                assert_eq!(theirs.insert(number), other.insert(number));
            }
            assert_eq!(ours.count(), set.len() as u64);
            assert_eq!(
                (ours.first(), ours.last()),
                (set.first().copied(), set.last().copied())
            );
            assert_eq!(
                ours.shared_with(&theirs),
                set.intersection(&other).count() as u64
            );
            ours.merge(&theirs);
            let both: BTreeSet<u64> = set.union(&other).copied().collect();
            let mut again = Intervals::default();
            for number in &both {
                again.insert(*number);
            }
            assert_eq!(ours, again, "one form for one set");
        }
    }
}
