//! The background scrub: one sealed segment after the other, round after round, one at a time per shard.
//!
//! Its position outlives a restart, in `checkpoint/scrub-<shard>`: two lines of text, since losing it costs a part of a round. A round
//! over little data is followed by a pause.

use std::{path::PathBuf, rc::Rc, time::Duration};

use super::{CHECKPOINT_DIR, Engine, Inner};
use crate::{
    log::{scrub::Pace, state::LogInner},
    rt::{Class, Instant, durable},
    types::{LogId, Offset, PartitionIndex, ShardId, TopicId},
};

/// A round begins no sooner after the last one began.
const ROUND_TIME_MIN: Duration = Duration::from_secs(3600);

/// The position is written no more often.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

const POSITION_BYTES_MAX: usize = 4096;

/// The next segment to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    log: LogId,
    base: Offset,
}

impl Engine {
    /// Reads sealed segments in the background, at most so many bytes a second, and reports what is damaged; 0: does not.
    pub fn start_scrub(&self, bytes_per_sec: u64) {
        if bytes_per_sec == 0 {
            return;
        }
        let inner = &self.0;
        let scrub = Rc::clone(inner).run_scrub(Pace::new(bytes_per_sec));
        let task = inner.shared.rt.spawn(Class::Housekeeping, scrub);
        inner.tasks.borrow_mut().push(task);
    }
}

/// Whose position a file of this name holds, if it is one of these.
pub fn scrubbed_by(name: &str) -> Option<ShardId> {
    let shard = ShardId(name.strip_prefix("scrub-")?.parse().ok()?);
    (name == position_file(shard)).then_some(shard)
}

fn position_file(shard: ShardId) -> String {
    format!("scrub-{}", shard.0)
}

impl Inner {
    async fn run_scrub(self: Rc<Self>, mut pace: Pace) {
        let rt = &self.shared.rt;
        let mut from = self.load_scrub_position().await;
        loop {
            let began = rt.now();
            self.scrub_round(from.take(), &mut pace).await;
            self.shared.count(|stats| stats.scrub_rounds += 1);
            let passed = rt.now().since(began);
            rt.sleep(ROUND_TIME_MIN.saturating_sub(passed)).await;
        }
    }

    async fn scrub_round(&self, from: Option<Position>, pace: &mut Pace) {
        let mut ids: Vec<LogId> = self.logs.borrow().keys().copied().collect();
        ids.sort_unstable();
        let mut saved = self.shared.rt.now();
        for id in ids {
            let mut base = match from {
                Some(from) if id < from.log => continue,
                Some(from) if id == from.log => from.base,
                _ => Offset::ZERO,
            };
            // One log at a time is woken for it.
            let woken = self.wake_for_scrub(id).await;
            while let Some(sealed) = self.sealed_from(id, base) {
                self.scrub_segment(id, sealed, pace).await;
                base = sealed.plus(1);
                self.save_scrub_position(Position { log: id, base }, &mut saved)
                    .await;
            }
            if let Some(log) = woken
                && let Err(fault) = log.rest_again().await
            {
                tracing::warn!(log = %log.name, %fault, "cannot bring a log to rest again");
            }
        }
        // The next round begins at the beginning.
        let path = self.scrub_path();
        if self.shared.rt.exists(&path).await
            && let Err(error) = self.shared.rt.remove_file(&path).await
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove the position of the scrub");
        }
    }

    /// The log if it was at rest. One that cannot be woken is offline, and reported as such.
    async fn wake_for_scrub(&self, id: LogId) -> Option<Rc<LogInner>> {
        let log = self.logs.borrow().get(&id).cloned()?;
        let woken = log.may_have_sealed_asleep() && log.awake().await.is_ok();
        woken.then_some(log)
    }

    fn sealed_from(&self, id: LogId, base: Offset) -> Option<Offset> {
        let log = self.logs.borrow().get(&id).cloned()?;
        log.sealed_from(base)
    }

    async fn scrub_segment(&self, id: LogId, base: Offset, pace: &mut Pace) {
        let log = self.logs.borrow().get(&id).cloned();
        let Some(log) = log else {
            return;
        };
        if let Err(fault) = log.scrub(base, pace).await {
            self.shared.count(|stats| stats.scrub_errors += 1);
            tracing::error!(log = %log.name, %fault, "a sealed segment cannot be read");
        }
    }

    fn scrub_path(&self) -> PathBuf {
        let name = position_file(self.config.shard);
        self.config.data_dir.join(CHECKPOINT_DIR).join(name)
    }

    async fn save_scrub_position(&self, position: Position, saved: &mut Instant) {
        let rt = &self.shared.rt;
        if rt.now().since(*saved) < SAVE_INTERVAL {
            return;
        }
        *saved = rt.now();
        let text = position.encode();
        if let Err(fault) = durable::replace_file(rt, &self.scrub_path(), text.as_bytes()).await {
            tracing::warn!(%fault, "cannot keep the position of the scrub");
        }
    }

    async fn load_scrub_position(&self) -> Option<Position> {
        let path = self.scrub_path();
        let content = self.shared.rt.read_small(&path, POSITION_BYTES_MAX).await;
        Position::decode(std::str::from_utf8(&content.ok()?).ok()?)
    }
}

impl Position {
    fn encode(&self) -> String {
        let (id, base) = (self.log, self.base);
        format!("version: 0\n{} {} {base}\n", id.topic_id, id.partition)
    }

    fn decode(text: &str) -> Option<Position> {
        let mut words = text.strip_prefix("version: 0\n")?.split_whitespace();
        Some(Position {
            log: LogId {
                topic_id: TopicId::parse(words.next()?)?,
                partition: PartitionIndex(words.next()?.parse().ok()?),
            },
            base: Offset::from_wire(words.next()?.parse().ok()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_read_back() {
        let position = Position {
            log: LogId {
                topic_id: TopicId(*b"a topic of tests"),
                partition: PartitionIndex(7),
            },
            base: Offset::new(42),
        };
        assert_eq!(Position::decode(&position.encode()), Some(position));
        for text in [
            "",
            "version: 0\n",
            "version: 1\nx 7 42",
            "version: 0\nx 7 -1",
        ] {
            assert_eq!(Position::decode(text), None, "{text}");
        }
    }
}
