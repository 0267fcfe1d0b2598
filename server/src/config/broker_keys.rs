//! The table of broker keys: Kafka 4.x's names and defaults, then our own under `forebay.`.

use super::definitions::{Definition, Kind, Unit, Valid};

const THREADS: &str = "there is one thread per core: see forebay.shards";
const OWN_FLUSH: &str =
    "durability=persisted makes every acked batch durable, whatever is set here";
const COMPACTION: &str = "compacted topics keep everything until compaction exists";
const ONE_HOST: &str = "a single host has nothing to replicate";
const QUORUM: &str = "metadata is kept by the broker itself";
const KERNEL: &str = "socket buffers are left to the kernel, which sizes them better";
const TRANSACTIONS: &str = "transactions are not served yet";

pub const BROKER_KEYS: &[Definition] = &[
    // Identity and addresses.
    Definition::int("node.id", "1", "This broker's number in the cluster.").at_least(0),
    Definition::optional("broker.id", Kind::Int, "Older name of node.id."),
    Definition::optional("broker.rack", Kind::String, "Where this broker stands; sent to clients."),
    Definition::list("listeners", "PLAINTEXT://:9092", "Addresses to listen on; an empty host is every address.").valid(Valid::NonEmpty),
    Definition::optional("advertised.listeners", Kind::List, "Addresses told to clients. Default: the listener's host, or 127.0.0.1 where that is every address."),
    Definition::list("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", "Security protocol of each listener name; PLAINTEXT is served."),
    Definition::list("controller.listener.names", "CONTROLLER", "Listeners of this name are not opened: metadata needs no port on a single host."),
    Definition::list("process.roles", "broker,controller", "Roles of a KRaft process.").valid(Valid::Each(&["broker", "controller"])).ignored(QUORUM),
    Definition::list("controller.quorum.voters", "", "Voters of a KRaft quorum.").ignored(QUORUM),
    Definition::list("controller.quorum.bootstrap.servers", "", "Where to find a KRaft quorum.").ignored(QUORUM),
    Definition::text("inter.broker.listener.name", "PLAINTEXT", "Listener that brokers use among themselves.").ignored(ONE_HOST),
    // Where the data is.
    Definition::optional("log.dirs", Kind::List, "The data directory; one only."),
    Definition::text("log.dir", "./forebay-data", "The data directory, where log.dirs is not set."),
    // Topics.
    Definition::boolean("auto.create.topics.enable", "true", "Creates a topic when a client first asks for it."),
    Definition::boolean("delete.topic.enable", "true", "Lets clients delete topics."),
    Definition::int("num.partitions", "1", "Partitions of a topic created without a number.").at_least(1),
    Definition::int("default.replication.factor", "1", "Replicas of a topic created without a number.").valid(Valid::Between(1, 32767)),
    Definition::int("min.insync.replicas", "1", "In-sync replicas below which a produce with acks=all is refused.").at_least(1).dynamic(),
    Definition::boolean("unclean.leader.election.enable", "false", "Lets a replica that is not in sync become leader.").dynamic(),
    // The log: defaults for topics.
    Definition::text("compression.type", "producer", "Codec of stored batches; producer keeps the one they came with.")
        .valid(Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]))
        .dynamic(),
    Definition::list("log.cleanup.policy", "delete", "What happens to old segments: delete, compact, both, or (empty) nothing.")
        .valid(Valid::Each(&["delete", "compact"]))
        .dynamic(),
    Definition::long("log.cleaner.delete.retention.ms", "86400000", "How long tombstones stay in a compacted topic.").at_least(0).milliseconds().dynamic().ignored(COMPACTION),
    Definition::share("log.cleaner.min.cleanable.ratio", "0.5", "Share of uncompacted bytes from which on a log is compacted.").dynamic().ignored(COMPACTION),
    Definition::long("log.cleaner.min.compaction.lag.ms", "0", "Shortest time a record stays uncompacted.").at_least(0).milliseconds().dynamic().ignored(COMPACTION),
    Definition::long("log.cleaner.max.compaction.lag.ms", "9223372036854775807", "Longest time a record stays uncompacted.").at_least(1).milliseconds().dynamic().ignored(COMPACTION),
    Definition::boolean("log.cleaner.enable", "true", "Runs compaction.").ignored(COMPACTION),
    Definition::int("log.cleaner.threads", "1", "Threads that compact.").at_least(0).ignored(THREADS),
    Definition::long("log.cleaner.dedupe.buffer.size", "134217728", "Memory to compact with.").bytes().ignored(COMPACTION),
    Definition::long("log.flush.interval.messages", "9223372036854775807", "Messages after which Kafka syncs a log.").at_least(1).dynamic().ignored(OWN_FLUSH),
    Definition::optional("log.flush.interval.ms", Kind::Long, "Time after which Kafka syncs a log.").milliseconds().dynamic().ignored(OWN_FLUSH),
    Definition::int("log.flush.offset.checkpoint.interval.ms", "60000", "How often Kafka writes its recovery point.").at_least(0).milliseconds().ignored(OWN_FLUSH),
    Definition::long("log.flush.scheduler.interval.ms", "9223372036854775807", "How often Kafka looks for logs to sync.").milliseconds().ignored(OWN_FLUSH),
    Definition::int("log.index.interval.bytes", "4096", "Bytes of log between two entries of the sparse index.").at_least(0).bytes().dynamic(),
    Definition::int("log.index.size.max.bytes", "10485760", "Size of Kafka's index files.").at_least(4).bytes().dynamic().ignored("our index grows as it needs to"),
    Definition::text("log.message.timestamp.type", "CreateTime", "Whose time a record carries: CreateTime (the producer's) or LogAppendTime (the broker's).")
        .valid(Valid::OneOf(&["CreateTime", "LogAppendTime"]))
        .dynamic(),
    Definition::long("log.message.timestamp.before.max.ms", "9223372036854775807", "How far a record's timestamp may lie behind the broker's clock.").at_least(0).milliseconds().dynamic(),
    Definition::long("log.message.timestamp.after.max.ms", "3600000", "How far a record's timestamp may lie ahead of the broker's clock.").at_least(0).milliseconds().dynamic(),
    Definition::boolean("log.preallocate", "false", "Whether a segment's space is reserved when it is created.").dynamic().ignored("the engine decides how it reserves space"),
    Definition::long("log.retention.bytes", "-1", "Bytes per partition beyond which old segments are deleted; -1 is no limit.").at_least(-1).bytes().dynamic(),
    Definition::optional("log.retention.ms", Kind::Long, "Age beyond which segments are deleted; -1 is no limit.").at_least(-1).milliseconds().dynamic(),
    Definition::optional("log.retention.minutes", Kind::Int, "As log.retention.ms, in minutes.").at_least(-1).unit(Unit::Minutes),
    Definition::int("log.retention.hours", "168", "As log.retention.ms, in hours.").at_least(-1).unit(Unit::Hours),
    Definition::long("log.retention.check.interval.ms", "300000", "How often retention looks for segments to delete.").at_least(1).milliseconds(),
    Definition::optional("log.roll.ms", Kind::Long, "Age at which a segment is closed and the next one begun.").at_least(1).milliseconds().dynamic(),
    Definition::int("log.roll.hours", "168", "As log.roll.ms, in hours.").at_least(1).unit(Unit::Hours),
    Definition::optional("log.roll.jitter.ms", Kind::Long, "Random time taken off log.roll.ms.").at_least(0).milliseconds().dynamic().ignored("write-behind spreads the work of closing segments"),
    Definition::int("log.roll.jitter.hours", "0", "As log.roll.jitter.ms, in hours.").at_least(0).unit(Unit::Hours).ignored("write-behind spreads the work of closing segments"),
    Definition::int("log.segment.bytes", "1073741824", "Size at which a segment is closed and the next one begun.").at_least(1 << 20).bytes().dynamic(),
    Definition::long("log.segment.delete.delay.ms", "60000", "How long the file of a deleted segment stays.").at_least(0).milliseconds().dynamic(),
    Definition::int("message.max.bytes", "1048588", "Largest batch a producer may send.").at_least(0).bytes().dynamic(),
    Definition::int("producer.id.expiration.ms", "86400000", "How long an idle idempotent producer is remembered.").at_least(1).milliseconds(),
    // Network.
    Definition::int("socket.request.max.bytes", "104857600", "Largest request.").at_least(1024).bytes(),
    Definition::long("queued.max.request.bytes", "-1", "Memory for requests in flight, of all shards together; -1 is an eighth of forebay.memory.bytes.").at_least(-1).bytes(),
    Definition::int("max.connections", "2147483647", "Connections of the whole broker.").at_least(1),
    Definition::int("max.connections.per.ip", "2147483647", "Connections from one address.").at_least(1),
    Definition::long("connections.max.idle.ms", "600000", "A connection idle for longer is closed.").at_least(1).milliseconds(),
    Definition::int("socket.listen.backlog.size", "50", "Connections waiting to be accepted.").at_least(1).ignored("the runtime uses the kernel's limit"),
    Definition::int("socket.send.buffer.bytes", "102400", "Size of a socket's send buffer.").at_least(-1).bytes().ignored(KERNEL),
    Definition::int("socket.receive.buffer.bytes", "102400", "Size of a socket's receive buffer.").at_least(-1).bytes().ignored(KERNEL),
    Definition::int("queued.max.requests", "500", "Requests waiting for Kafka's I/O threads.").at_least(1).ignored("memory bounds requests: see queued.max.request.bytes"),
    Definition::int("num.network.threads", "3", "Kafka's network threads.").at_least(1).ignored(THREADS),
    Definition::int("num.io.threads", "8", "Kafka's request threads.").at_least(1).ignored(THREADS),
    Definition::int("num.recovery.threads.per.data.dir", "2", "Kafka's recovery threads.").at_least(1).ignored(THREADS),
    Definition::int("background.threads", "10", "Kafka's background threads.").at_least(1).ignored(THREADS),
    // Fetch and replication.
    Definition::int("fetch.max.bytes", "57671680", "Largest answer to one fetch.").at_least(1024).bytes(),
    Definition::int("max.incremental.fetch.session.cache.slots", "1000", "Incremental fetch sessions kept.").at_least(0),
    Definition::long("replica.lag.time.max.ms", "30000", "A follower behind for longer leaves the in-sync replicas.").at_least(1).milliseconds().ignored(ONE_HOST),
    Definition::int("replica.fetch.max.bytes", "1048576", "Bytes a Kafka follower fetches per partition.").at_least(0).bytes().ignored(ONE_HOST),
    Definition::int("num.replica.fetchers", "1", "Kafka's fetcher threads per source broker.").at_least(1).ignored(ONE_HOST),
    // Consumer groups.
    Definition::int("group.min.session.timeout.ms", "6000", "Shortest session timeout a member may ask for.").at_least(1).milliseconds(),
    Definition::int("group.max.session.timeout.ms", "1800000", "Longest session timeout a member may ask for.").at_least(1).milliseconds(),
    Definition::int("group.initial.rebalance.delay.ms", "3000", "How long a new group waits for more members.").at_least(0).milliseconds(),
    Definition::int("group.max.size", "2147483647", "Members of one group.").at_least(1),
    Definition::int("offset.metadata.max.bytes", "4096", "Longest note that comes with a committed offset.").at_least(0).bytes(),
    Definition::int("offsets.commit.timeout.ms", "5000", "Longest wait until a committed offset is safe.").at_least(1).milliseconds(),
    Definition::int("offsets.retention.minutes", "10080", "How long an empty group keeps its offsets.").at_least(1).unit(Unit::Minutes),
    Definition::long("offsets.retention.check.interval.ms", "600000", "How often expired offsets are looked for.").at_least(1).milliseconds(),
    Definition::int("offsets.topic.num.partitions", "50", "Partitions of __consumer_offsets.").at_least(1),
    Definition::int("offsets.topic.replication.factor", "3", "Replicas of __consumer_offsets; at most as many as there are brokers.").valid(Valid::Between(1, 32767)),
    Definition::int("offsets.topic.segment.bytes", "104857600", "Size of a segment of __consumer_offsets.").at_least(1 << 20).bytes(),
    Definition::int("offsets.load.buffer.size", "5242880", "Bytes read at a time while offsets are loaded.").at_least(1).bytes(),
    // Transactions.
    Definition::int("transaction.max.timeout.ms", "900000", "Longest transaction.").at_least(1).milliseconds().ignored(TRANSACTIONS),
    Definition::int("transactional.id.expiration.ms", "604800000", "How long an idle transactional id is remembered.").at_least(1).milliseconds().ignored(TRANSACTIONS),
    Definition::int("transaction.state.log.num.partitions", "50", "Partitions of __transaction_state.").at_least(1).ignored(TRANSACTIONS),
    Definition::int("transaction.state.log.replication.factor", "3", "Replicas of __transaction_state.").at_least(1).ignored(TRANSACTIONS),
    Definition::int("transaction.state.log.min.isr", "2", "min.insync.replicas of __transaction_state.").at_least(1).ignored(TRANSACTIONS),
    // Our own.
    Definition::text("forebay.durability", "persisted", "Default of the topic key durability.").valid(Valid::OneOf(&["persisted", "replicated"])).dynamic(),
    Definition::optional("forebay.shards", Kind::Int, "Shards, one pinned to a core each. Default: every core this process may use.").valid(Valid::Between(1, 1024)),
    Definition::int("forebay.lanes", "64", "Lanes that partitions are spread over, a constant of the cluster: it cannot change once topics exist.").valid(Valid::Between(1, 4096)),
    Definition::optional("forebay.memory.bytes", Kind::Long, "Memory for caches and requests, of all shards together. Default: two fifths of what the machine or the cgroup has.").at_least(64 << 20).bytes(),
    Definition::optional("forebay.tail.cache.bytes", Kind::Long, "Newest records kept in memory, of all shards together. Default: half of forebay.memory.bytes, at most 512 MiB.").at_least(8 << 20).bytes(),
    Definition::optional("forebay.readahead.bytes", Kind::Long, "Read-ahead for consumers that drain a backlog, of all shards together. Default: an eighth of forebay.memory.bytes.").at_least(1 << 20).bytes(),
    Definition::long("forebay.journal.file.bytes", "67108864", "Size of one file of a shard's journal.").valid(Valid::Between(1 << 20, 4 << 30)).bytes(),
    Definition::int("forebay.journal.files", "4", "Files in the ring of a shard's journal.").valid(Valid::Between(2, 1024)),
    Definition::int("forebay.bypass.bytes", "262144", "Waiting appends of one partition beyond this skip the journal and go straight to the segment.").valid(Valid::Between(4096, 64 << 20)).bytes(),
    Definition::int("forebay.write.chunk.bytes", "1048576", "Largest single write to a segment.").valid(Valid::Between(65536, 64 << 20)).bytes(),
    Definition::int("forebay.spare.segments.max", "0", "Files of deleted segments that each partition keeps on disk to write its next ones into, which makes durable bulk appends of partitions that delete as much as they get faster. 0, the default: none.").valid(Valid::Between(0, 64)),
    Definition::long("forebay.checkpoint.interval.ms", "5000", "How often what was written behind is made durable and the journal freed.").valid(Valid::Between(10, 3_600_000)).milliseconds(),
    Definition::long("forebay.scrub.bytes.per.sec", "4194304", "How fast sealed segments are read in the background to find damage, by all shards together; 0 switches that off.").at_least(0).bytes(),
    Definition::optional("forebay.disk.reserve.bytes", Kind::Long, "Free space of the disk below which records of clients are refused (KAFKA_STORAGE_ERROR) until there is more; 0 switches that off. Default: 1 GiB, at most a tenth of the file system.").at_least(0).bytes(),
    Definition::int("forebay.connection.requests", "64", "Requests of one connection worked on at the same time.").valid(Valid::Between(1, 4096)),
    Definition::long("forebay.connection.reply.bytes", "134217728", "Replies waiting for a slow client beyond which its connection is not read any more.").at_least(65536).bytes(),
    Definition::int("forebay.partitions", "100000", "Partitions of the whole cluster; creating more is refused.").at_least(1),
    Definition::int("forebay.http.port", "9644", "Port of /metrics, /livez and /readyz; 0 picks a free one, -1 switches them off.").valid(Valid::Between(-1, 65535)),
];
