//! The offsets that describe a log, moved in one place that asserts their order.

use crate::types::Offset;

/// `log_start <= last_stable <= high_watermark <= log_end`, `counted_end <= log_end`, `durable_end <= log_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub log_start: Offset,
    pub last_stable: Offset,
    pub high_watermark: Offset,
    /// Durable in the journal or a segment of the present log generation.
    pub durable_end: Offset,
    /// `durable_end` under `persisted`, `log_end` under `replicated`: what this replica may count for acks.
    pub counted_end: Offset,
    /// The next offset to be assigned.
    pub log_end: Offset,
}

impl Marks {
    /// A log that holds nothing, and begins at `offset`.
    pub fn empty_at(offset: Offset) -> Marks {
        Marks {
            log_start: offset,
            last_stable: offset,
            high_watermark: offset,
            durable_end: offset,
            counted_end: offset,
            log_end: offset,
        }
    }

    /// The marks after `change`, which only goes forward.
    #[must_use]
    pub fn moved(self, change: impl FnOnce(&mut Marks)) -> Marks {
        let mut marks = self;
        change(&mut marks);
        assert!(marks.log_start >= self.log_start, "the log start goes back");
        assert!(
            marks.last_stable >= self.last_stable,
            "the last stable offset goes back"
        );
        assert!(
            marks.high_watermark >= self.high_watermark,
            "the high watermark goes back"
        );
        assert!(
            marks.durable_end >= self.durable_end,
            "the durable end goes back"
        );
        assert!(
            marks.counted_end >= self.counted_end,
            "the counted end goes back"
        );
        assert!(marks.log_end >= self.log_end, "the log end goes back");
        marks.checked()
    }

    /// The marks after the log was cut to `end`, which is not below the high watermark.
    #[must_use]
    pub fn cut(self, end: Offset) -> Marks {
        assert!(end >= self.high_watermark, "a cut below the high watermark");
        assert!(end <= self.log_end, "a cut above the log end");
        Marks {
            durable_end: self.durable_end.min(end),
            counted_end: self.counted_end.min(end),
            log_end: end,
            ..self
        }
        .checked()
    }

    fn checked(self) -> Marks {
        assert!(self.log_start <= self.last_stable, "{self:?}");
        assert!(self.last_stable <= self.high_watermark, "{self:?}");
        assert!(self.high_watermark <= self.log_end, "{self:?}");
        assert!(self.durable_end <= self.log_end, "{self:?}");
        assert!(self.counted_end <= self.log_end, "{self:?}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_takes_the_ends_along() {
        let marks = Marks::empty_at(Offset::new(5)).moved(|marks| {
            marks.log_end = Offset::new(20);
            marks.durable_end = Offset::new(15);
            marks.counted_end = Offset::new(15);
            marks.high_watermark = Offset::new(8);
        });
        let cut = marks.cut(Offset::new(10));
        assert_eq!(
            (cut.log_end, cut.durable_end),
            (Offset::new(10), Offset::new(10))
        );
        assert_eq!(cut.high_watermark, Offset::new(8));
        assert_eq!(marks.cut(Offset::new(18)).durable_end, Offset::new(15));
    }

    #[test]
    #[should_panic(expected = "below the high watermark")]
    fn nothing_committed_is_cut() {
        let marks = Marks::empty_at(Offset::new(0)).moved(|marks| {
            marks.log_end = Offset::new(20);
            marks.high_watermark = Offset::new(8);
        });
        let _ = marks.cut(Offset::new(7));
    }

    #[test]
    #[should_panic(expected = "goes back")]
    fn marks_do_not_go_back() {
        let _ = Marks::empty_at(Offset::new(3)).moved(|marks| marks.log_end = Offset::new(2));
    }
}
