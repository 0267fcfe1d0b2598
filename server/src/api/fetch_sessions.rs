//! Incremental fetch sessions (KIP-227): a client names its partitions once and then only what changed; so do we.
//!
//! A session lives on the shard of the connection that opened it. A client that comes back through another shard is told
//! FETCH_SESSION_ID_NOT_FOUND, starts over with a full fetch, and loses nothing. Slots, and partitions per session, are bounded.

use std::collections::HashMap;

use forebay_engine::rt::Instant;
use indexmap::IndexMap;
use kafka_protocol::{messages::TopicName, protocol::StrBytes};

use super::fetch::{FetchPartition, FetchPartitionReply, FetchRequest};
use crate::wire::ErrorCode;

/// Partitions one session may hold; a client with more works without one.
const SESSION_PARTITIONS_MAX: usize = 100_000;
/// A session unused for so long makes room for another.
const EVICTION_IDLE_NS: u64 = 120 * 1_000_000_000;

/// The sessions of one shard.
#[derive(Debug)]
pub struct Sessions {
    slots_max: usize,
    sessions: HashMap<i32, Session>,
}

#[derive(Debug)]
struct Session {
    next_epoch: i32,
    used: Instant,
    partitions: IndexMap<(TopicName, i32), SessionPartition>,
    /// Where the next fetch begins, so that a busy partition starves no other.
    first: usize,
}

#[derive(Clone, Debug)]
struct SessionPartition {
    wanted: FetchPartition,
    /// Marks as the client was last told.
    told: Option<(i64, i64)>,
}

/// How a request relates to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionUse {
    /// All partitions are in the request and all go into the reply.
    None,
    /// As `None`, but the client may from now on send only changes.
    Opened(i32),
    /// Only what changed goes into the reply.
    Incremental(i32),
}

impl SessionUse {
    /// What the reply names.
    pub fn id(self) -> i32 {
        match self {
            SessionUse::None => 0,
            SessionUse::Opened(id) | SessionUse::Incremental(id) => id,
        }
    }
}

/// A partition to be read.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub topic: TopicName,
    pub partition: FetchPartition,
}

impl Wanted {
    pub fn bytes_max(&self) -> usize {
        usize::try_from(self.partition.partition_max_bytes).unwrap_or(0)
    }
}

impl Sessions {
    pub fn new(slots_max: usize) -> Sessions {
        Sessions {
            slots_max,
            sessions: HashMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes in what the request changes of its session, and says what to read. `random` gives ids.
    pub fn begin(
        &mut self,
        mut request: FetchRequest,
        now: Instant,
        random: impl FnMut() -> u64,
    ) -> Result<(SessionUse, Vec<Wanted>), ErrorCode> {
        if request.session_epoch >= 0 {
            // A session may keep the names, and must not keep the frame they are parts of.
            for topic in &mut request.topics {
                topic.topic = TopicName(StrBytes::from_string(topic.topic.to_string()));
            }
        }
        match (request.session_id, request.session_epoch) {
            (id, epoch) if epoch <= 0 => {
                // 0 opens a session, -1 does without; both end the one they name.
                self.sessions.remove(&id);
                let wanted: Vec<Wanted> = wanted_of(request.topics).collect();
                let opened = match epoch {
                    0 => self.open(&wanted, now, random),
                    _ => None,
                };
                Ok((opened.map_or(SessionUse::None, SessionUse::Opened), wanted))
            }
            (0, _) => Err(ErrorCode::InvalidFetchSessionEpoch),
            (id, _) => {
                let wanted = self.continue_session(request, now)?;
                Ok((SessionUse::Incremental(id), wanted))
            }
        }
    }

    /// Notes what the client is told; `false` for a partition that an incremental reply leaves out.
    pub fn tell(
        &mut self,
        session: SessionUse,
        topic: &TopicName,
        reply: &FetchPartitionReply,
    ) -> bool {
        let Some(session_of) = self.sessions.get_mut(&session.id()) else {
            return true;
        };
        let key = (topic.clone(), reply.index);
        let Some((position, _, partition)) = session_of.partitions.get_full_mut(&key) else {
            return true;
        };
        let marks = (reply.high_watermark, reply.log_start_offset);
        let has_records = !reply.records.is_empty();
        if has_records {
            session_of.first = position + 1;
        }
        let news = has_records || !reply.error.is_none() || partition.told != Some(marks);
        // After an error everything is news.
        partition.told = reply.error.is_none().then_some(marks);
        news || matches!(session, SessionUse::Opened(_))
    }

    fn open(
        &mut self,
        wanted: &[Wanted],
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) -> Option<i32> {
        if wanted.is_empty() || wanted.len() > SESSION_PARTITIONS_MAX || !self.make_room(now) {
            return None;
        }
        let id = loop {
            let id = (random() & 0x7fff_ffff) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let partitions = wanted.iter().map(|wanted| {
            let partition = SessionPartition {
                wanted: wanted.partition.clone(),
                told: None,
            };
            ((wanted.topic.clone(), wanted.partition.index), partition)
        });
        let session = Session {
            next_epoch: 1,
            used: now,
            partitions: partitions.collect(),
            first: 0,
        };
        self.sessions.insert(id, session);
        assert!(
            self.sessions.len() <= self.slots_max,
            "sessions are bounded"
        );
        Some(id)
    }

    fn make_room(&mut self, now: Instant) -> bool {
        if self.sessions.len() < self.slots_max {
            return true;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
        let oldest = oldest.map(|(id, session)| (*id, session.used));
        match oldest {
            Some((id, used)) if now.0.saturating_sub(used.0) > EVICTION_IDLE_NS => {
                self.sessions.remove(&id);
                true
            }
            _ => false,
        }
    }

    fn continue_session(
        &mut self,
        request: FetchRequest,
        now: Instant,
    ) -> Result<Vec<Wanted>, ErrorCode> {
        let id = request.session_id;
        let session = self
            .sessions
            .get_mut(&id)
            .ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if request.session_epoch != session.next_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        session.next_epoch = match session.next_epoch {
            i32::MAX => 1,
            epoch => epoch + 1,
        };
        session.used = now;
        for topic in request.forgotten_topics {
            for index in topic.partitions {
                session
                    .partitions
                    .swap_remove(&(topic.topic.clone(), index));
            }
        }
        for Wanted { topic, partition } in wanted_of(request.topics) {
            let key = (topic, partition.index);
            match session.partitions.get_mut(&key) {
                Some(known) => known.wanted = partition,
                None => {
                    let told = None;
                    let wanted = partition;
                    session
                        .partitions
                        .insert(key, SessionPartition { wanted, told });
                }
            }
        }
        if session.partitions.len() > SESSION_PARTITIONS_MAX {
            self.sessions.remove(&id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        Ok(session.wanted())
    }
}

impl Session {
    fn wanted(&self) -> Vec<Wanted> {
        let count = self.partitions.len();
        let first = if count == 0 { 0 } else { self.first % count };
        let at = |position: usize| {
            let ((topic, _), partition) = self
                .partitions
                .get_index((first + position) % count)
                .expect("positions are taken modulo the count");
            Wanted {
                topic: topic.clone(),
                partition: partition.wanted.clone(),
            }
        };
        (0..count).map(at).collect()
    }
}

fn wanted_of(topics: Vec<super::fetch::FetchTopic>) -> impl Iterator<Item = Wanted> {
    topics.into_iter().flat_map(|topic| {
        let name = topic.topic;
        topic.partitions.into_iter().map(move |partition| Wanted {
            topic: name.clone(),
            partition,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fetch::{FetchTopic, ForgottenTopic, IsolationLevel};

    const NOW: Instant = Instant(1_000_000_000);

    fn topic() -> TopicName {
        TopicName(StrBytes::from_static_str("t"))
    }

    fn request(id: i32, epoch: i32, partitions: &[(i32, i64)], forgotten: &[i32]) -> FetchRequest {
        let partition = |(index, fetch_offset): &(i32, i64)| FetchPartition {
            index: *index,
            current_leader_epoch: None,
            fetch_offset: *fetch_offset,
            last_fetched_epoch: None,
            log_start_offset: -1,
            partition_max_bytes: 1024,
        };
        FetchRequest {
            replica_id: -1,
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 1024,
            isolation_level: IsolationLevel::ReadUncommitted,
            session_id: id,
            session_epoch: epoch,
            topics: vec![FetchTopic {
                topic: topic(),
                partitions: partitions.iter().map(partition).collect(),
            }],
            forgotten_topics: vec![ForgottenTopic {
                topic: topic(),
                partitions: forgotten.to_vec(),
            }],
            rack_id: StrBytes::new(),
        }
    }

    fn begin(
        sessions: &mut Sessions,
        now: Instant,
        request: FetchRequest,
    ) -> Result<(SessionUse, Vec<(i32, i64)>), ErrorCode> {
        let mut seed = sessions.len() as u64;
        let random = || {
            seed += 1;
            seed
        };
        let (session, wanted) = sessions.begin(request, now, random)?;
        let wanted = wanted
            .iter()
            .map(|w| (w.partition.index, w.partition.fetch_offset));
        Ok((session, wanted.collect()))
    }

    fn reply(index: i32, high_watermark: i64, records: &'static [u8]) -> FetchPartitionReply {
        FetchPartitionReply {
            high_watermark,
            log_start_offset: 0,
            records: if records.is_empty() {
                Vec::new()
            } else {
                vec![bytes::Bytes::from_static(records)]
            },
            ..FetchPartitionReply::failed(index, ErrorCode::None)
        }
    }

    #[test]
    fn an_incremental_fetch_covers_what_was_named_before() {
        let mut sessions = Sessions::new(10);
        let (opened, wanted) =
            begin(&mut sessions, NOW, request(0, 0, &[(0, 5), (1, 6)], &[])).unwrap();
        assert_eq!(
            (opened, wanted),
            (SessionUse::Opened(1), vec![(0, 5), (1, 6)])
        );
        let next = begin(&mut sessions, NOW, request(1, 1, &[(2, 7), (1, 8)], &[0])).unwrap();
        assert_eq!(next.0, SessionUse::Incremental(1));
        let mut wanted = next.1;
        wanted.sort();
        assert_eq!(wanted, [(1, 8), (2, 7)]);
        let same_epoch = begin(&mut sessions, NOW, request(1, 1, &[], &[]));
        assert_eq!(same_epoch, Err(ErrorCode::InvalidFetchSessionEpoch));
        let unknown = begin(&mut sessions, NOW, request(9, 1, &[], &[]));
        assert_eq!(unknown, Err(ErrorCode::FetchSessionIdNotFound));
        let closed = begin(&mut sessions, NOW, request(1, -1, &[(3, 3)], &[])).unwrap();
        assert_eq!(closed, (SessionUse::None, vec![(3, 3)]));
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_session_does_not_keep_the_frame_it_came_in() {
        let frame = bytes::Bytes::from(vec![b't'; 1000]);
        let name = TopicName(StrBytes::from_utf8(frame.slice(..1)).unwrap());
        let mut request = request(0, 0, &[(0, 0)], &[]);
        request.topics[0].topic = name.clone();
        request.forgotten_topics.clear();
        drop(name);
        let mut sessions = Sessions::new(10);
        let (_, wanted) = sessions.begin(request, NOW, || 1).unwrap();
        assert_eq!(wanted[0].topic, topic());
        drop(wanted);
        assert!(frame.is_unique());
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn only_news_is_told() {
        let mut sessions = Sessions::new(10);
        let (opened, _) = begin(&mut sessions, NOW, request(0, 0, &[(0, 0), (1, 0)], &[])).unwrap();
        assert!(sessions.tell(opened, &topic(), &reply(0, 0, b"")));
        assert!(sessions.tell(opened, &topic(), &reply(1, 0, b"")));
        let session = SessionUse::Incremental(opened.id());
        assert!(!sessions.tell(session, &topic(), &reply(0, 0, b"")));
        assert!(
            sessions.tell(session, &topic(), &reply(0, 1, b"")),
            "mark moved"
        );
        assert!(!sessions.tell(session, &topic(), &reply(0, 1, b"")));
        assert!(
            sessions.tell(session, &topic(), &reply(0, 1, b"x")),
            "records"
        );
        let failed = FetchPartitionReply::failed(0, ErrorCode::KafkaStorageError);
        assert!(sessions.tell(session, &topic(), &failed));
        assert!(
            sessions.tell(session, &topic(), &reply(0, 1, b"")),
            "after an error"
        );
    }

    #[test]
    fn a_partition_with_records_goes_behind_the_others() {
        let mut sessions = Sessions::new(10);
        let (opened, _) = begin(
            &mut sessions,
            NOW,
            request(0, 0, &[(0, 0), (1, 0), (2, 0)], &[]),
        )
        .unwrap();
        sessions.tell(opened, &topic(), &reply(0, 1, b"x"));
        let (_, wanted) = begin(&mut sessions, NOW, request(opened.id(), 1, &[], &[])).unwrap();
        assert_eq!(wanted, [(1, 0), (2, 0), (0, 0)]);
    }

    #[test]
    fn slots_are_bounded_and_freed_by_idleness() {
        let mut sessions = Sessions::new(1);
        let open = |sessions: &mut Sessions, now| {
            begin(sessions, now, request(0, 0, &[(0, 0)], &[]))
                .unwrap()
                .0
        };
        assert_eq!(open(&mut sessions, NOW), SessionUse::Opened(1));
        assert_eq!(open(&mut sessions, NOW), SessionUse::None);
        let later = Instant(NOW.0 + EVICTION_IDLE_NS + 1);
        assert!(matches!(open(&mut sessions, later), SessionUse::Opened(_)));
        assert_eq!(sessions.len(), 1);
    }
}
