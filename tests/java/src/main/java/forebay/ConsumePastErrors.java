package forebay;

import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Consumes partition 0 of a topic from its beginning to an end offset: BOOTSTRAP TOPIC END. Prints a line for every offset: "record OFFSET", or
 * "failed OFFSET: MESSAGE" for one that the consumer stops at, after which it seeks past it.
 */
public final class ConsumePastErrors {
    public static void main(String[] args) {
        TopicPartition partition = new TopicPartition(args[1], 0);
        long end = Long.parseLong(args[2]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("auto.offset.reset", "none");
        properties.put("enable.auto.commit", "false");
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long next = consumer.position(partition);
            while (next < end) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("nothing at " + next + " in time");
                }
                try {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                        System.out.println("record " + record.offset());
                        next = record.offset() + 1;
                    }
                } catch (KafkaException e) {
                    System.out.println("failed " + next + ": " + e.getMessage());
                    next = next + 1;
                    consumer.seek(partition, next);
                }
            }
        }
    }
}
