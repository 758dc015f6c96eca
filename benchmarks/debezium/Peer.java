import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Reads a log with Debezium Engine until it has seen the rows expected; keeps the last thousand, sends all to a topic where one is named. */
public class Peer {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        try (var reader = Files.newBufferedReader(Path.of(args[0]))) {
            settings.load(reader);
        }
        long expected = Long.parseLong(args[1]);
        Path out = Path.of(args[2]);
        CountDownLatch done = new CountDownLatch(1);
        ArrayDeque<String> last = new ArrayDeque<>(1001);
        long[] seen = {0};
        KafkaProducer<String, String> producer = args.length > 3 ? producer(args[3]) : null;
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
            .using(settings)
            .notifying((List<ChangeEvent<String, String>> records, DebeziumEngine.RecordCommitter<ChangeEvent<String, String>> committer) -> {
                for (ChangeEvent<String, String> each : records) {
                    if (each.value() != null && each.key() != null) {
                        last.addLast(each.value());
                        if (last.size() > 1000) {
                            last.removeFirst();
                        }
                        seen[0]++;
                    }
                    if (producer != null && each.key() != null) {
                        producer.send(new ProducerRecord<>(args[4], each.key(), each.value()));
                    }
                    committer.markProcessed(each);
                }
                if (producer != null) {
                    producer.flush();
                }
                committer.markBatchFinished();
                if (seen[0] >= expected) {
                    done.countDown();
                }
            }).build();
        ExecutorService executor = Executors.newSingleThreadExecutor();
        executor.execute(engine);
        done.await();
        Files.write(out, last);
        System.out.println(seen[0]);
        Runtime.getRuntime().halt(0);
    }

    private static KafkaProducer<String, String> producer(String bootstrap) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("linger.ms", "5");
        settings.put("batch.size", "262144");
        settings.put("buffer.memory", "67108864");
        return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }
}
