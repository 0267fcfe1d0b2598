package forebay;

import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Produces records FROM to TO of {@link Payload}, record i to partition i % partitions: BOOTSTRAP TOPIC PARTITIONS FROM TO CODEC. */
public final class Produce {
    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int partitions = Integer.parseInt(args[2]);
        long from = Long.parseLong(args[3]);
        long to = Long.parseLong(args[4]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("compression.type", args[5]);
        properties.put("acks", "all");
        properties.put("enable.idempotence", "true");
        properties.put("linger.ms", "5");
        // Room for a record of a million bytes after framing.
        properties.put("max.request.size", "1048576");
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (long index = from; index < to; index++) {
                int partition = (int) (index % partitions);
                ProducerRecord<byte[], byte[]> record =
                        new ProducerRecord<>(topic, partition, Payload.key(index), Payload.value(index));
                record.headers().add("index", Payload.header(index));
                producer.send(record, (metadata, error) -> {
                    if (error != null) {
                        failure.compareAndSet(null, error);
                    }
                });
                if (failure.get() != null) {
                    break;
                }
            }
        }
        if (failure.get() != null) {
            throw failure.get();
        }
        System.out.println("produced " + (to - from));
    }
}
