//! Topics that cannot be: forbidden names, impossible numbers, and whatever else does not name a topic of ours.

use bytes::Bytes;
use forebay_tests::{
    raw_batch::RawBatch,
    wire_client::{CREATE_TOPICS_VERSION, WireClient, error, now_ms, topic_name},
};
use kafka_protocol::{
    ResponseError::{
        self, InvalidPartitions, InvalidReplicationFactor, InvalidRequest, InvalidTopicException,
        TopicAlreadyExists, UnknownTopicOrPartition,
    },
    messages::{
        CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
        create_topics_request::CreatableTopic, metadata_request::MetadataRequestTopic,
    },
};

use super::{Subject, Witness};

const METADATA_VERSION: i16 = 9;

fn forbidden_names() -> Vec<String> {
    let fixed = [
        "",
        ".",
        "..",
        " ",
        "a b",
        "a/b",
        "../../etc/passwd",
        "a\0b",
        "a:b",
        "a,b",
        "a\nb",
        "a\\b",
        "*",
        "\u{e4}",
        "\u{1f980}",
    ];
    let mut names: Vec<String> = fixed.map(str::to_owned).to_vec();
    names.push("x".repeat(250));
    names.push("x".repeat(10_000));
    names
}

fn names_of_all_topics(client: &mut WireClient) -> Vec<String> {
    let request = MetadataRequest::default().with_topics(None);
    let reply = client.call(&request, METADATA_VERSION);
    let names = reply.topics.iter().filter_map(|topic| topic.name.as_ref());
    names.map(|name| name.to_string()).collect()
}

#[test]
fn forbidden_names_are_refused_by_every_way_in() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let mut client = subject.connect();
    let before = names_of_all_topics(&mut client);
    for name in forbidden_names() {
        assert_eq!(
            client.try_create_topic(&name, 1),
            Some(InvalidTopicException),
            "create {name:?}"
        );
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(&name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(true);
        let reply = client.call(&request, METADATA_VERSION);
        assert_eq!(
            error(reply.topics[0].error_code),
            Some(InvalidTopicException),
            "metadata {name:?}"
        );
        let batch = RawBatch::of(&[b"x"], now_ms()).encode();
        let reply = client.produce(&name, 0, &batch);
        assert!(
            matches!(
                error(reply.error_code),
                Some(UnknownTopicOrPartition | InvalidTopicException)
            ),
            "produce {name:?}: {reply:?}"
        );
        let reply = client.fetch(&name, 0, 0);
        assert!(error(reply.error_code).is_some(), "fetch {name:?}");
        witness.check(&name);
    }
    assert_eq!(names_of_all_topics(&mut client), before);
    witness.finish();
    subject.finish();
}

#[test]
fn names_at_the_limit_are_taken() {
    let subject = Subject::start();
    let mut client = subject.connect();
    for name in ["x", "...", "a.B-c_9", &"y".repeat(249)] {
        let name = match subject.broker {
            Some(_) => name.to_owned(),
            // On somebody else's broker it may be there from last time.
            None => continue,
        };
        assert_eq!(client.try_create_topic(&name, 1), None, "{name}");
        let batch = RawBatch::of(&[b"x"], now_ms()).encode();
        assert_eq!(
            error(client.produce(&name, 0, &batch).error_code),
            None,
            "{name}"
        );
    }
    subject.finish();
}

/// Kafka names a topic that is there twice once, we name it twice.
#[track_caller]
fn check_create(client: &mut WireClient, topics: Vec<CreatableTopic>, expected: ResponseError) {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(20_000);
    let reply = client.call(&request, CREATE_TOPICS_VERSION);
    assert!(!reply.topics.is_empty(), "{request:?}");
    for topic in &reply.topics {
        assert_eq!(error(topic.error_code), Some(expected), "{request:?}");
    }
}

#[test]
fn impossible_topics_are_refused() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let mut client = subject.connect();
    let before = names_of_all_topics(&mut client);
    let topic = |partitions, replicas| {
        CreatableTopic::default()
            .with_name(topic_name(&subject.topic("impossible")))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
    };
    for partitions in [0, -2, i32::MIN] {
        check_create(&mut client, vec![topic(partitions, 1)], InvalidPartitions);
    }
    for replicas in [0, -2, 3, i16::MAX, i16::MIN] {
        check_create(
            &mut client,
            vec![topic(1, replicas)],
            InvalidReplicationFactor,
        );
    }
    check_create(&mut client, vec![topic(1, 1), topic(1, 1)], InvalidRequest);
    if subject.broker.is_some() {
        // Kafka tries.
        for partitions in [i32::MAX, 100_000_000] {
            let request = CreateTopicsRequest::default()
                .with_topics(vec![topic(partitions, 1)])
                .with_timeout_ms(20_000);
            let reply = client.call(&request, CREATE_TOPICS_VERSION);
            let error = error(reply.topics[0].error_code);
            assert!(error.is_some(), "{partitions} partitions were created");
            witness.check("far too many partitions");
        }
    }
    assert_eq!(names_of_all_topics(&mut client), before);

    // One that is there, and one that would look the same in metrics.
    let name = subject.create("one.name");
    assert_eq!(client.try_create_topic(&name, 1), Some(TopicAlreadyExists));
    let twin = name.replacen('.', "_", 1);
    assert_eq!(
        client.try_create_topic(&twin, 1),
        Some(InvalidTopicException)
    );
    witness.finish();
    subject.finish();
}

#[test]
fn deleting_what_is_not_there_is_refused() {
    let subject = Subject::start();
    let witness = Witness::new(&subject);
    let mut client = subject.connect();
    let names = [
        "no-such-topic".to_owned(),
        String::new(),
        "../..".to_owned(),
    ];
    let request = DeleteTopicsRequest::default()
        .with_topic_names(names.iter().map(|name| topic_name(name)).collect())
        .with_timeout_ms(20_000);
    let reply = client.call(&request, 5);
    assert_eq!(reply.responses.len(), names.len());
    for answer in &reply.responses {
        let error = error(answer.error_code);
        assert_eq!(error, Some(UnknownTopicOrPartition), "{:?}", answer.name);
    }
    witness.finish();
    subject.finish();
}

/// Kafka reads them as replacement characters, we may as well end the connection: no topic comes of it.
#[test]
fn names_that_are_not_utf8_make_no_topic() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let mut client = subject.connect();
    let before = names_of_all_topics(&mut client);
    let name = "placeholder";
    let wanted = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(20_000);
    let mut frame = forebay_tests::wire_client::frame(&request, CREATE_TOPICS_VERSION, 1);
    let at = frame
        .windows(name.len())
        .position(|bytes| bytes == name.as_bytes())
        .expect("the name is in the frame");
    frame[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
    let mut other = subject.connect();
    other.send_bytes(&frame).expect("the broker reads");
    let _: Option<Bytes> = other.read_frame();
    witness.check("a name that is not UTF-8");
    assert_eq!(names_of_all_topics(&mut client), before);
    witness.finish();
    subject.finish();
}
