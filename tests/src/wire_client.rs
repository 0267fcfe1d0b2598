//! A bare Kafka client: one blocking connection, on which a test can send any bytes, well formed or not.
//!
//! Requests are encoded and replies decoded by the `kafka-protocol` crate. Nothing is retried, reconnected or negotiated. Every wait
//! has an end: a broker that does not answer fails the test.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{
        BrokerId, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest,
        FetchResponse, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
        ProduceResponse, RequestHeader, ResponseHeader, TopicName,
        create_topics_request::CreatableTopic,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

use crate::raw_batch::read_values;

/// No answer of a healthy broker takes this long.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

pub const PRODUCE_VERSION: i16 = 9;
pub const FETCH_VERSION: i16 = 12;
pub const LIST_OFFSETS_VERSION: i16 = 7;
pub const CREATE_TOPICS_VERSION: i16 = 7;
pub const INIT_PRODUCER_ID_VERSION: i16 = 4;
pub const DELETE_RECORDS_VERSION: i16 = 2;
pub const DELETE_TOPICS_VERSION: i16 = 5;
pub const METADATA_VERSION: i16 = 9;

/// Timestamps that ListOffsets takes for a place.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

const FETCH_BYTES_MAX: i32 = 50 << 20;

pub struct WireClient {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl WireClient {
    #[track_caller]
    pub fn connect(address: &str) -> WireClient {
        let stream = TcpStream::connect(address).expect("the broker takes a connection");
        let limit = Some(ANSWER_TIME_MAX);
        stream
            .set_read_timeout(limit)
            .expect("sockets have timeouts");
        stream
            .set_write_timeout(limit)
            .expect("sockets have timeouts");
        stream
            .set_nodelay(true)
            .expect("a TCP socket has this option");
        WireClient {
            stream,
            next_correlation_id: 1,
        }
    }

    /// Sends as they are; an error says that the broker has closed the connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request without waiting for its reply, and says under which correlation id.
    #[track_caller]
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = frame(request, version, id);
        self.send_bytes(&frame).expect("the broker reads requests");
        id
    }

    /// The reply that must come next: to the request with this id.
    #[track_caller]
    pub fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let mut frame = self.read_frame().expect("the broker answers");
        decode_reply::<R>(&mut frame, version, correlation_id)
    }

    #[track_caller]
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version);
        self.receive::<R>(version, id)
    }

    /// As `call`; `None` when the broker goes away before it has answered.
    #[track_caller]
    pub fn try_call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        let id = self.next_correlation_id;
        self.next_correlation_id += 1;
        self.send_bytes(&frame(request, version, id)).ok()?;
        let mut reply = self.read_frame()?;
        Some(decode_reply::<R>(&mut reply, version, id))
    }

    /// The next frame without its size; `None` when the broker has closed the connection.
    #[track_caller]
    pub fn read_frame(&mut self) -> Option<Bytes> {
        let mut size = [0; 4];
        if !self.fill(&mut size) {
            return None;
        }
        let size = usize::try_from(i32::from_be_bytes(size)).expect("a reply has a positive size");
        assert!(size <= 256 << 20, "a reply of {size} bytes");
        let mut frame = vec![0; size];
        assert!(self.fill(&mut frame), "a reply was cut short");
        Some(Bytes::from(frame))
    }

    /// Fails unless the broker closes the connection without another reply.
    #[track_caller]
    pub fn expect_closed(&mut self, what: &str) {
        if let Some(frame) = self.read_frame() {
            panic!("{what}: answered with {} bytes: {frame:02x?}", frame.len());
        }
    }

    /// Fails if anything arrives, or the connection ends, within this time.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        self.stream
            .set_read_timeout(Some(time))
            .expect("sockets have timeouts");
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("expected silence, got {other:?} {byte:02x?}"),
        }
        let limit = Some(ANSWER_TIME_MAX);
        self.stream
            .set_read_timeout(limit)
            .expect("sockets have timeouts");
    }

    /// From now on `send_bytes` fails when the broker reads nothing for so long.
    pub fn give_up_sending_after(&self, time: Duration) {
        self.stream
            .set_write_timeout(Some(time))
            .expect("sockets have timeouts");
    }

    /// Says that nothing more will be sent; replies can still be read.
    pub fn finish_sending(&self) {
        // A broker that has closed already is told nothing.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Goes away as a killed process with unread data does: the broker sees a reset.
    #[allow(unsafe_code)]
    pub fn vanish(self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: the descriptor is open, and the pointer and the length describe one live `linger`.
        let set = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "a TCP socket has this option");
    }

    /// False when the connection has ended.
    #[track_caller]
    fn fill(&mut self, buf: &mut [u8]) -> bool {
        match self.stream.read_exact(buf) {
            Ok(()) => true,
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    false
                }
                _ => panic!("no answer and no end of the connection: {error}"),
            },
        }
    }
}

/// The usual requests, each for one topic.
impl WireClient {
    /// Creates a topic and waits until all its partitions can be asked: Kafka answers a creation before they can.
    #[track_caller]
    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        assert_eq!(
            self.try_create_topic(name, partitions),
            None,
            "create {name}"
        );
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        for partition in 0..partitions {
            while let Err(error) = self.latest_offset(name, partition) {
                assert!(Instant::now() < deadline, "{name}-{partition}: {error:?}");
            }
        }
    }

    #[track_caller]
    pub fn try_create_topic(&mut self, name: &str, partitions: i32) -> Option<ResponseError> {
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(20_000);
        let reply = self.call(&request, CREATE_TOPICS_VERSION);
        assert_eq!(reply.topics.len(), 1);
        error(reply.topics[0].error_code)
    }

    /// The answer to one partition's records, with acks=all.
    #[track_caller]
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        records: &[u8],
    ) -> PartitionProduceResponse {
        let request = produce_request(topic, partition, Some(Bytes::copy_from_slice(records)), -1);
        only_partition(self.call(&request, PRODUCE_VERSION))
    }

    #[track_caller]
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let request = fetch_request(topic, partition, offset);
        only_fetched(self.call(&request, FETCH_VERSION))
    }

    /// The offset that the next record will get.
    #[track_caller]
    pub fn log_end(&mut self, topic: &str, partition: i32) -> i64 {
        self.latest_offset(topic, partition)
            .unwrap_or_else(|error| panic!("{topic}-{partition}: {error:?}"))
    }

    /// The offset of the first record that can be read.
    #[track_caller]
    pub fn log_start(&mut self, topic: &str, partition: i32) -> i64 {
        self.offset_at(topic, partition, EARLIEST)
            .unwrap_or_else(|error| panic!("{topic}-{partition}: {error:?}"))
    }

    #[track_caller]
    pub fn latest_offset(&mut self, topic: &str, partition: i32) -> Result<i64, ResponseError> {
        self.offset_at(topic, partition, LATEST)
    }

    #[track_caller]
    fn offset_at(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<i64, ResponseError> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let reply = self.call(&request, LIST_OFFSETS_VERSION);
        let found = &reply.topics[0].partitions[0];
        error(found.error_code).map_or(Ok(found.offset), Err)
    }

    /// Moves the start of the log to this offset.
    #[track_caller]
    pub fn delete_records(&mut self, topic: &str, partition: i32, before: i64) {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(before);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(20_000);
        let reply = self.call(&request, DELETE_RECORDS_VERSION);
        let answer = &reply.topics[0].partitions[0];
        assert_eq!(error(answer.error_code), None, "delete records");
        assert_eq!(answer.low_watermark, before);
    }

    #[track_caller]
    pub fn delete_topic(&mut self, name: &str) {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(name)])
            .with_timeout_ms(20_000);
        let reply = self.call(&request, DELETE_TOPICS_VERSION);
        assert_eq!(error(reply.responses[0].error_code), None, "delete {name}");
    }

    /// The names of all topics.
    #[track_caller]
    pub fn topics(&mut self) -> Vec<String> {
        let request = MetadataRequest::default().with_topics(None);
        let reply = self.call(&request, METADATA_VERSION);
        let names = reply.topics.into_iter().filter_map(|topic| topic.name);
        names.map(|name| name.0.to_string()).collect()
    }

    /// Everything that can be read, as offset and value; fails on a gap.
    #[track_caller]
    pub fn read_all(&mut self, topic: &str, partition: i32) -> Vec<(i64, Vec<u8>)> {
        let mut next = self.log_start(topic, partition);
        let end = self.log_end(topic, partition);
        let mut all = Vec::new();
        while next < end {
            let fetched = self.fetch(topic, partition, next);
            assert_eq!(
                error(fetched.error_code),
                None,
                "{topic}-{partition} at {next}"
            );
            let records = fetched.records.unwrap_or_default();
            let before = next;
            for (offset, value) in read_values(&records) {
                // A fetch begins with the batch that holds its offset.
                if offset >= next {
                    assert_eq!(offset, next, "a gap in {topic}-{partition}");
                    all.push((offset, value));
                    next += 1;
                }
            }
            assert!(next > before, "{topic}-{partition}: nothing at {next}");
        }
        all
    }

    /// A producer id of its own, epoch 0.
    #[track_caller]
    pub fn init_producer_id(&mut self) -> i64 {
        let reply = self.call(&init_producer_id_request(), INIT_PRODUCER_ID_VERSION);
        assert_eq!(error(reply.error_code), None);
        assert_eq!(reply.producer_epoch, 0);
        reply.producer_id.0
    }
}

pub fn init_producer_id_request() -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1)
}

pub fn produce_request(
    topic: &str,
    partition: i32,
    records: Option<Bytes>,
    acks: i16,
) -> ProduceRequest {
    produce_request_within(topic, partition, records, acks, Duration::from_secs(20))
}

/// The broker shall answer within this time, whether it has the records then or not.
pub fn produce_request_within(
    topic: &str,
    partition: i32,
    records: Option<Bytes>,
    acks: i16,
    time: Duration,
) -> ProduceRequest {
    let timeout_ms = i32::try_from(time.as_millis()).expect("a test waits for a short time");
    let partition = PartitionProduceData::default()
        .with_index(partition)
        .with_records(records);
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(vec![topic])
}

#[track_caller]
pub fn only_partition(mut reply: ProduceResponse) -> PartitionProduceResponse {
    assert_eq!(reply.responses.len(), 1);
    let mut partitions = reply.responses.remove(0).partition_responses;
    assert_eq!(partitions.len(), 1);
    partitions.remove(0)
}

/// Returns at once, with what there is.
pub fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(FETCH_BYTES_MAX);
    let topic = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_max_bytes(FETCH_BYTES_MAX)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

#[track_caller]
pub fn only_fetched(mut reply: FetchResponse) -> PartitionData {
    assert_eq!(error(reply.error_code), None);
    assert_eq!(reply.responses.len(), 1);
    let mut partitions = reply.responses.remove(0).partitions;
    assert_eq!(partitions.len(), 1);
    partitions.remove(0)
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Kafka's name for an error code; `None` for no error.
pub fn error(code: i16) -> Option<ResponseError> {
    ResponseError::try_from_code(code)
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_millis() as i64
}

/// A whole request as it goes over the wire, its size included.
pub fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("wire-client")));
    let mut body = BytesMut::new();
    header
        .encode(&mut body, R::header_version(version))
        .expect("a header can be encoded");
    request
        .encode(&mut body, version)
        .expect("the request has only what its version has");
    with_size(&body)
}

/// Puts the size in front.
pub fn with_size(body: &[u8]) -> Vec<u8> {
    let size = i32::try_from(body.len()).expect("a test frame is small");
    [&size.to_be_bytes(), body].concat()
}

#[track_caller]
pub fn decode_reply<R: Request>(
    frame: &mut Bytes,
    version: i16,
    correlation_id: i32,
) -> R::Response {
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(frame, header_version).expect("a reply has a header");
    assert_eq!(header.correlation_id, correlation_id, "replies keep order");
    let reply = R::Response::decode(frame, version).expect("the reply has the version asked for");
    assert_eq!(frame.remaining(), 0, "bytes after the reply");
    reply
}
