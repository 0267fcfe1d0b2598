"""Produce, consume, groups and admin with confluent-kafka (librdkafka's newest release)."""
import sys

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

server = sys.argv[1]
admin = AdminClient({"bootstrap.servers": server})
for future in admin.create_topics([NewTopic("confluent", 3, 1)]).values():
    future.result(30)

acked = []


def delivered(error, message):
    assert error is None, error
    acked.append((message.partition(), message.offset()))


producer = Producer({"bootstrap.servers": server, "enable.idempotence": True, "linger.ms": 5})
for i in range(3000):
    producer.produce("confluent", value=f"v{i}", key=f"k{i}", partition=i % 3, on_delivery=delivered,
                     headers=[("h", b"1"), ("h", b"2")])
    producer.poll(0)
assert producer.flush(60) == 0
assert sorted(acked) == sorted((i % 3, i // 3) for i in range(3000))

consumer = Consumer({"bootstrap.servers": server, "group.id": "confluent-group",
                     "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "enable.partition.eof": True})
consumer.subscribe(["confluent"])
seen, ends = {}, set()
while len(ends) < 3:
    message = consumer.poll(20)
    assert message is not None
    if message.error():
        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
        ends.add(message.partition())
        continue
    assert message.headers() == [("h", b"1"), ("h", b"2")]
    seen.setdefault(message.partition(), []).append(message.value())
for partition in range(3):
    assert seen[partition] == [b"v%d" % i for i in range(partition, 3000, 3)], partition
consumer.commit(asynchronous=False)
committed = consumer.committed([TopicPartition("confluent", p) for p in range(3)], timeout=20)
assert [p.offset for p in committed] == [1000] * 3
low, high = consumer.get_watermark_offsets(TopicPartition("confluent", 0), timeout=20)
assert (low, high) == (0, 1000)
consumer.close()

for future in admin.create_partitions([NewPartitions("confluent", 6)]).values():
    future.result(30)
resource = ConfigResource(ConfigResource.Type.TOPIC, "confluent")
for future in admin.describe_configs([resource]).values():
    assert "retention.ms" in future.result(30)
groups = admin.list_consumer_groups().result(30)
assert any(group.group_id == "confluent-group" for group in groups.valid), groups.valid
described = admin.describe_consumer_groups(["confluent-group"])["confluent-group"].result(30)
assert described.group_id == "confluent-group"
for future in admin.delete_consumer_groups(["confluent-group"]).values():
    future.result(30)
for future in admin.delete_topics(["confluent"]).values():
    future.result(30)
print("all good")
