"""Produce, consume, groups and admin with kafka-python."""
import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic

server = sys.argv[1]
admin = KafkaAdminClient(bootstrap_servers=server)
admin.create_topics([NewTopic("python", num_partitions=3, replication_factor=1)])
assert "python" in admin.list_topics()

producer = KafkaProducer(bootstrap_servers=server, acks="all", linger_ms=5)
sent = []
for i in range(3000):
    sent.append(producer.send("python", value=b"v%d" % i, key=b"k%d" % i, partition=i % 3,
                              headers=[("h", b"%d" % i), ("h", b"twice")]))
producer.flush()
for i, future in enumerate(sent):
    metadata = future.get(timeout=30)
    assert (metadata.partition, metadata.offset) == (i % 3, i // 3), (i, metadata)

consumer = KafkaConsumer("python", bootstrap_servers=server, group_id="python-group",
                         auto_offset_reset="earliest", enable_auto_commit=False,
                         consumer_timeout_ms=20000)
seen = {}
for record in consumer:
    assert record.headers[1] == ("h", b"twice")
    seen.setdefault(record.partition, []).append((record.offset, record.value))
    if sum(map(len, seen.values())) == 3000:
        break
for partition in range(3):
    expected = [(i // 3, b"v%d" % i) for i in range(partition, 3000, 3)]
    assert seen[partition] == expected, partition
consumer.commit()
for partition in range(3):
    assert consumer.committed(TopicPartition("python", partition)) == 1000
consumer.close()

consumer = KafkaConsumer(bootstrap_servers=server)
partitions = [TopicPartition("python", p) for p in range(3)]
assert list(consumer.beginning_offsets(partitions).values()) == [0, 0, 0]
assert list(consumer.end_offsets(partitions).values()) == [1000, 1000, 1000]
by_time = consumer.offsets_for_times({partitions[0]: 0})
assert by_time[partitions[0]].offset == 0
by_time = consumer.offsets_for_times({partitions[0]: int(time.time() * 1000) + 3_600_000})
assert by_time[partitions[0]] is None
consumer.close()

admin.create_partitions({"python": NewPartitions(total_count=5)})
configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "python")])
assert configs
groups = admin.list_consumer_groups() if hasattr(admin, "list_consumer_groups") else admin.list_groups()
assert any("python-group" in str(group) for group in groups), groups
admin.delete_topics(["python"])
deadline = time.time() + 10
while "python" in admin.list_topics() and time.time() < deadline:
    time.sleep(0.05)
assert "python" not in admin.list_topics()
admin.close()
producer.close()
print("all good")
