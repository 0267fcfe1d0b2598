package forebay;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Consumes a topic that {@link Produce} or its Rust twin filled with records 0 to COUNT, and checks every byte, the order in each
 * partition, and that nothing is missing or there twice: BOOTSTRAP TOPIC PARTITIONS COUNT.
 */
public final class Consume {
    public static void main(String[] args) {
        String topic = args[1];
        int partitions = Integer.parseInt(args[2]);
        long count = Long.parseLong(args[3]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("auto.offset.reset", "none");
        properties.put("enable.auto.commit", "false");
        properties.put("fetch.max.bytes", "8388608");
        long[] next = new long[partitions];
        List<TopicPartition> assignment = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            next[partition] = partition;
            assignment.add(new TopicPartition(topic, partition));
        }
        long seen = 0;
        long deadline = System.nanoTime() + Duration.ofSeconds(240).toNanos();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(assignment);
            consumer.seekToBeginning(assignment);
            while (seen < count) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("only " + seen + " of " + count + " records in time");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    check(record, next[record.partition()]);
                    next[record.partition()] += partitions;
                    seen++;
                }
            }
            long ends = consumer.endOffsets(assignment).values().stream().mapToLong(Long::longValue).sum();
            if (ends != count) {
                throw new IllegalStateException("end offsets add up to " + ends + ", expected " + count);
            }
        }
        System.out.println("consumed " + seen);
    }

    private static void check(ConsumerRecord<byte[], byte[]> record, long expected) {
        long index = ByteBuffer.wrap(record.headers().lastHeader("index").value()).getLong();
        if (index != expected) {
            throw new IllegalStateException(
                    "partition " + record.partition() + " offset " + record.offset() + " holds record " + index
                            + ", expected " + expected);
        }
        if (!Arrays.equals(record.value(), Payload.value(index))) {
            throw new IllegalStateException("record " + index + " has another value");
        }
        if (!Arrays.equals(record.key(), Payload.key(index))) {
            throw new IllegalStateException("record " + index + " has another key");
        }
    }
}
