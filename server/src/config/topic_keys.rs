//! The table of topic keys. Defaults are Kafka 4.x's; where a broker key gives the default, both tables say the same (tested).

use super::definitions::{Definition, Synonym, Valid};

const TIERED: &str = "there is no tiered storage";
const RAFT_THROTTLE: &str = "replication is not throttled by topic";
const OWN_FLUSH: &str =
    "durability=persisted makes every acked batch durable, whatever is set here";
const COMPACTION: &str = "compacted topics keep everything until compaction exists";

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

pub const TOPIC_KEYS: &[Definition] = &[
    Definition::list("cleanup.policy", "delete", "What happens to old segments: delete, compact, both, or (empty) nothing.")
        .valid(Valid::Each(&["delete", "compact"]))
        .defaults_from(&[same("log.cleanup.policy")]),
    Definition::int("compression.gzip.level", "-1", "Level used when a batch is recompressed with gzip.")
        .valid(Valid::Between(-1, 9))
        .ignored("recompression uses the default level"),
    Definition::int("compression.lz4.level", "9", "Level used when a batch is recompressed with lz4.")
        .valid(Valid::Between(1, 17))
        .ignored("recompression uses the default level"),
    Definition::text("compression.type", "producer", "Codec of stored batches; producer keeps the one they came with.")
        .valid(Valid::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]))
        .defaults_from(&[same("compression.type")]),
    Definition::int("compression.zstd.level", "3", "Level used when a batch is recompressed with zstd.")
        .valid(Valid::Between(-131_072, 22))
        .ignored("recompression uses the default level"),
    Definition::long("delete.retention.ms", "86400000", "How long tombstones stay in a compacted topic.")
        .at_least(0)
        .milliseconds()
        .defaults_from(&[same("log.cleaner.delete.retention.ms")])
        .ignored(COMPACTION),
    Definition::text("durability", "persisted", "When a batch counts for acks: persisted = once durable; replicated = once in memory on every replica that acks asks for.")
        .valid(Valid::OneOf(&["persisted", "replicated"]))
        .defaults_from(&[same("forebay.durability")]),
    Definition::long("file.delete.delay.ms", "60000", "How long the file of a deleted segment stays.")
        .at_least(0)
        .milliseconds()
        .defaults_from(&[same("log.segment.delete.delay.ms")]),
    Definition::long("flush.messages", "9223372036854775807", "Messages after which Kafka syncs a log.")
        .at_least(1)
        .defaults_from(&[same("log.flush.interval.messages")])
        .ignored(OWN_FLUSH),
    Definition::long("flush.ms", "9223372036854775807", "Time after which Kafka syncs a log.")
        .at_least(0)
        .milliseconds()
        .ignored(OWN_FLUSH),
    Definition::list("follower.replication.throttled.replicas", "", "Replicas throttled on the follower's side.").ignored(RAFT_THROTTLE),
    Definition::int("index.interval.bytes", "4096", "Bytes of log between two entries of the sparse index.")
        .at_least(0)
        .bytes()
        .defaults_from(&[same("log.index.interval.bytes")]),
    Definition::list("leader.replication.throttled.replicas", "", "Replicas throttled on the leader's side.").ignored(RAFT_THROTTLE),
    Definition::long("local.retention.bytes", "-2", "Bytes kept locally of a tiered topic.").at_least(-2).bytes().ignored(TIERED),
    Definition::long("local.retention.ms", "-2", "Time kept locally of a tiered topic.").at_least(-2).milliseconds().ignored(TIERED),
    Definition::long("max.compaction.lag.ms", "9223372036854775807", "Longest time a record stays uncompacted.")
        .at_least(1)
        .milliseconds()
        .defaults_from(&[same("log.cleaner.max.compaction.lag.ms")])
        .ignored(COMPACTION),
    Definition::int("max.message.bytes", "1048588", "Largest batch a producer may send.")
        .at_least(0)
        .bytes()
        .defaults_from(&[same("message.max.bytes")]),
    Definition::long("message.timestamp.after.max.ms", "3600000", "How far a record's timestamp may lie ahead of the broker's clock.")
        .at_least(0)
        .milliseconds()
        .defaults_from(&[same("log.message.timestamp.after.max.ms")]),
    Definition::long("message.timestamp.before.max.ms", "9223372036854775807", "How far a record's timestamp may lie behind the broker's clock.")
        .at_least(0)
        .milliseconds()
        .defaults_from(&[same("log.message.timestamp.before.max.ms")]),
    Definition::text("message.timestamp.type", "CreateTime", "Whose time a record carries: CreateTime (the producer's) or LogAppendTime (the broker's).")
        .valid(Valid::OneOf(&["CreateTime", "LogAppendTime"]))
        .defaults_from(&[same("log.message.timestamp.type")]),
    Definition::share("min.cleanable.dirty.ratio", "0.5", "Share of uncompacted bytes from which on a log is compacted.")
        .defaults_from(&[same("log.cleaner.min.cleanable.ratio")])
        .ignored(COMPACTION),
    Definition::long("min.compaction.lag.ms", "0", "Shortest time a record stays uncompacted.")
        .at_least(0)
        .milliseconds()
        .defaults_from(&[same("log.cleaner.min.compaction.lag.ms")])
        .ignored(COMPACTION),
    Definition::int("min.insync.replicas", "1", "In-sync replicas below which a produce with acks=all is refused.")
        .at_least(1)
        .defaults_from(&[same("min.insync.replicas")]),
    Definition::boolean("preallocate", "false", "Whether a segment's space is reserved when it is created.")
        .defaults_from(&[same("log.preallocate")])
        .ignored("the engine decides how it reserves space"),
    Definition::boolean("remote.log.copy.disable", "false", "Stops copying to remote storage.").ignored(TIERED),
    Definition::boolean("remote.log.delete.on.disable", "false", "Deletes remote data when tiering is switched off.").ignored(TIERED),
    // Off is what we do, so saying so is no error; on would be a promise we cannot keep.
    Definition::boolean("remote.storage.enable", "false", "Keeps old segments in remote storage; only false is possible.")
        .valid(Valid::OneOf(&["false"]))
        .ignored(TIERED),
    Definition::long("retention.bytes", "-1", "Bytes per partition beyond which old segments are deleted; -1 is no limit.")
        .at_least(-1)
        .bytes()
        .defaults_from(&[same("log.retention.bytes")]),
    Definition::long("retention.ms", "604800000", "Age beyond which segments are deleted; -1 is no limit.")
        .at_least(-1)
        .milliseconds()
        .defaults_from(&[
            same("log.retention.ms"),
            Synonym { name: "log.retention.minutes", factor: MINUTE_MS },
            Synonym { name: "log.retention.hours", factor: HOUR_MS },
        ]),
    Definition::int("segment.bytes", "1073741824", "Size at which a segment is closed and the next one begun.")
        .at_least(1 << 20)
        .bytes()
        .defaults_from(&[same("log.segment.bytes")]),
    Definition::int("segment.index.bytes", "10485760", "Size of Kafka's index files.")
        .at_least(4)
        .bytes()
        .defaults_from(&[same("log.index.size.max.bytes")])
        .ignored("our index grows as it needs to"),
    Definition::long("segment.jitter.ms", "0", "Random time taken off segment.ms.")
        .at_least(0)
        .milliseconds()
        .defaults_from(&[same("log.roll.jitter.ms"), Synonym { name: "log.roll.jitter.hours", factor: HOUR_MS }])
        .ignored("write-behind spreads the work of closing segments"),
    Definition::long("segment.ms", "604800000", "Age at which a segment is closed and the next one begun.")
        .at_least(1)
        .milliseconds()
        .defaults_from(&[same("log.roll.ms"), Synonym { name: "log.roll.hours", factor: HOUR_MS }]),
    Definition::boolean("unclean.leader.election.enable", "false", "Lets a replica that is not in sync become leader; acked data may be lost.")
        .defaults_from(&[same("unclean.leader.election.enable")]),
];
