//! A raw client: frames as the tests want them, encoded and decoded by the `kafka-protocol` crate.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use forebay_engine::{
    Timestamp,
    batch::{BatchBuilder, Codec},
};
use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse,
        RequestHeader, ResponseHeader, TopicName,
        create_topics_request::CreatableTopic,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, Request, StrBytes},
};

/// Long enough that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Client {
    pub stream: TcpStream,
    next: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, next: 0 }
    }

    /// Sends a request without waiting; gives its correlation id.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        self.next += 1;
        let frame = frame(version, self.next, request);
        self.stream.write_all(&frame).expect("the broker reads");
        self.next
    }

    /// The next frame, without its size.
    pub fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(Bytes::from(frame))
    }

    pub fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut frame = self.receive_frame().expect("the broker replies");
        let key = ApiKey::try_from(R::KEY).unwrap();
        let header = ResponseHeader::decode(&mut frame, key.response_header_version(version));
        let response = R::Response::decode(&mut frame, version).expect("a well-formed reply");
        assert!(frame.is_empty(), "{} bytes after the reply", frame.len());
        (header.unwrap().correlation_id, response)
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request);
        let (received, response) = self.receive::<R>(version);
        assert_eq!(received, sent);
        response
    }

    /// Completes when the broker has closed the connection; whatever it sends before is dropped.
    pub fn expect_close(&mut self) {
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("not closed: {error}"),
            }
        }
    }

    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let response = self.call(5, &request);
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0]);
    }

    /// Produces one batch and gives its base offset.
    pub fn produce(&mut self, topic: &str, partition: i32, values: &[&[u8]]) -> i64 {
        let request = produce_request(topic, &[(partition, batch(values))], -1);
        let response = self.call(9, &request);
        offset_of(&response)
    }

    pub fn fetch(&mut self, request: &FetchRequest) -> FetchResponse {
        self.call(11, request)
    }
}

pub fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> BytesMut {
    let key = ApiKey::try_from(R::KEY).unwrap();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut body = BytesMut::new();
    header
        .encode(&mut body, key.request_header_version(version))
        .unwrap();
    request.encode(&mut body, version).unwrap();
    let mut frame = BytesMut::new();
    frame.put_i32(body.len() as i32);
    frame.put_slice(&body);
    frame
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub fn batch(values: &[&[u8]]) -> Bytes {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        let now = Timestamp(now.as_millis() as i64);
        builder.push(now, None, Some(value), &[]);
    }
    builder.build().freeze()
}

pub fn produce_request(topic: &str, batches: &[(i32, Bytes)], acks: i16) -> ProduceRequest {
    let partition = |(index, records): &(i32, Bytes)| {
        PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(records.clone()))
    };
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(batches.iter().map(partition).collect());
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

/// Of a response to one batch that must have been taken.
pub fn offset_of(response: &ProduceResponse) -> i64 {
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0, "{partition:?}");
    partition.base_offset
}

pub fn fetch_request(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    };
    let topic = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(partitions.iter().map(partition).collect());
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The values of all records of one partition of a reply, with their offsets.
pub fn records_of(response: &FetchResponse, index: i32) -> Vec<(i64, Vec<u8>)> {
    let partition = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .find(|partition| partition.partition_index == index)
        .expect("the partition is in the reply");
    assert_eq!(partition.error_code, 0, "{partition:?}");
    let mut rest = partition.records.clone().unwrap_or_default();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let len = 12 + u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
        let batch = rest.split_to(len);
        for record in forebay_engine::batch::Records::new(&batch, 1 << 30).unwrap() {
            let record = record.unwrap();
            found.push((record.offset.get(), record.value.unwrap().to_vec()));
        }
    }
    found
}
