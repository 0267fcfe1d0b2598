//! Kafka's error codes, and the only place where what happened below becomes one.
//!
//! UNKNOWN_SERVER_ERROR is never the answer to a produce request: it makes idempotent clients lose their place. So every
//! domain error has a code that says whether trying again helps.

use std::fmt;

use forebay_engine::{AppendError, ReadError, batch::BatchError};

use crate::{
    coord::group::GroupError,
    meta::controller::Refused,
    partition::{AppendFailure, OffsetFailure, ReadFailure},
};

macro_rules! error_codes {
    ($($name:ident = $code:literal, $kafka:literal;)*) => {
        /// The codes we use, under Kafka's names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $($name = $code,)*
        }

        impl ErrorCode {
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The name in Kafka's documentation.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $kafka,)*
                }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR";
    None = 0, "NONE";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE";
    CorruptMessage = 2, "CORRUPT_MESSAGE";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE";
    NotCoordinator = 16, "NOT_COORDINATOR";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS";
    IllegalGeneration = 22, "ILLEGAL_GENERATION";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL";
    InvalidGroupId = 24, "INVALID_GROUP_ID";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS";
    InvalidPartitions = 37, "INVALID_PARTITIONS";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT";
    InvalidConfig = 40, "INVALID_CONFIG";
    NotController = 41, "NOT_CONTROLLER";
    InvalidRequest = 42, "INVALID_REQUEST";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT";
    PolicyViolation = 44, "POLICY_VIOLATION";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH";
    InvalidTxnState = 48, "INVALID_TXN_STATE";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED";
    SecurityDisabled = 54, "SECURITY_DISABLED";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC";
    InvalidRecord = 87, "INVALID_RECORD";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED";
    ProducerFenced = 90, "PRODUCER_FENCED";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// `None` for a code we do not use.
    pub fn from_code(code: i16) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|e| e.code() == code)
    }

    pub const fn is_none(self) -> bool {
        matches!(self, ErrorCode::None)
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<&AppendError> for ErrorCode {
    fn from(error: &AppendError) -> ErrorCode {
        match error {
            AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            AppendError::DuplicateSequence => ErrorCode::DuplicateSequenceNumber,
            // Not PRODUCER_FENCED, which is for transactions: this one lets the client ask for a new epoch.
            AppendError::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
            AppendError::BatchTooLarge { .. } => ErrorCode::RecordListTooLarge,
            AppendError::Busy => ErrorCode::RequestTimedOut,
            AppendError::DiskLow | AppendError::Fault(_) => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<&ReadError> for ErrorCode {
    fn from(error: &ReadError) -> ErrorCode {
        match error {
            ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            // The client may go on behind it.
            ReadError::Corrupt(_) => ErrorCode::CorruptMessage,
            ReadError::Fault(_) => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<&BatchError> for ErrorCode {
    fn from(error: &BatchError) -> ErrorCode {
        match error {
            // Damaged on the way: the client sends it again. Only 0 and 1 are formats that a client may have meant.
            BatchError::Crc { .. } | BatchError::Length(_) => ErrorCode::CorruptMessage,
            BatchError::Magic(magic) if !matches!(magic, 0 | 1) => ErrorCode::CorruptMessage,
            // Arrived as it was sent, and sending it again would not help. Kafka counts a batch cut short among these.
            BatchError::Truncated
            | BatchError::NotOneBatch
            | BatchError::Magic(_)
            | BatchError::Malformed(_)
            | BatchError::KeyMissing { .. }
            | BatchError::Decompression(_) => ErrorCode::InvalidRecord,
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            BatchError::UnsupportedCodec(_) => ErrorCode::UnsupportedCompressionType,
        }
    }
}

impl From<&AppendFailure> for ErrorCode {
    fn from(failure: &AppendFailure) -> ErrorCode {
        match failure {
            AppendFailure::NotLeader => ErrorCode::NotLeaderOrFollower,
            AppendFailure::Offline => ErrorCode::KafkaStorageError,
            AppendFailure::TimedOut => ErrorCode::RequestTimedOut,
            AppendFailure::Log(error) => ErrorCode::from(error),
        }
    }
}

impl From<&ReadFailure> for ErrorCode {
    fn from(failure: &ReadFailure) -> ErrorCode {
        match failure {
            ReadFailure::NotLeader => ErrorCode::NotLeaderOrFollower,
            ReadFailure::Offline => ErrorCode::KafkaStorageError,
            ReadFailure::FencedEpoch => ErrorCode::FencedLeaderEpoch,
            ReadFailure::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
            ReadFailure::Log(error) => ErrorCode::from(error),
        }
    }
}

impl From<&OffsetFailure> for ErrorCode {
    fn from(failure: &OffsetFailure) -> ErrorCode {
        match failure {
            OffsetFailure::NotLeader => ErrorCode::NotLeaderOrFollower,
            OffsetFailure::Offline => ErrorCode::KafkaStorageError,
            OffsetFailure::OutOfRange => ErrorCode::OffsetOutOfRange,
            OffsetFailure::Fault(_) => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<Refused> for ErrorCode {
    fn from(why: Refused) -> ErrorCode {
        match why {
            Refused::InvalidTopicName => ErrorCode::InvalidTopicException,
            Refused::TopicExists => ErrorCode::TopicAlreadyExists,
            Refused::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
            Refused::UnknownTopicId => ErrorCode::UnknownTopicId,
            Refused::TopicDeletionDisabled => ErrorCode::TopicDeletionDisabled,
            Refused::InvalidPartitions => ErrorCode::InvalidPartitions,
            Refused::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
            Refused::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
            Refused::InvalidConfig => ErrorCode::InvalidConfig,
            Refused::InvalidRequest => ErrorCode::InvalidRequest,
            Refused::Policy => ErrorCode::PolicyViolation,
            Refused::UnknownBroker => ErrorCode::InvalidRequest,
            // Clients look for the controller anew and try again.
            Refused::Unavailable => ErrorCode::NotController,
            Refused::Storage => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<GroupError> for ErrorCode {
    fn from(error: GroupError) -> ErrorCode {
        match error {
            GroupError::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
            GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
            GroupError::NotCoordinator => ErrorCode::NotCoordinator,
            GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
            GroupError::InvalidRequest => ErrorCode::InvalidRequest,
            GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
            GroupError::InvalidCommitOffsetSize => ErrorCode::InvalidCommitOffsetSize,
            GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
            GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
            GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
            GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
            GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
            GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
            GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
            GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
            GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
            GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
            // What Kafka's coordinator answers when the group's record is too large for its log.
            GroupError::AssignmentTooLarge => ErrorCode::UnknownServerError,
        }
    }
}

impl From<Result<(), GroupError>> for ErrorCode {
    fn from(result: Result<(), GroupError>) -> ErrorCode {
        match result {
            Ok(()) => ErrorCode::None,
            Err(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::ResponseError;

    use super::*;

    /// Kafka's name, from the crate's name of the same code.
    fn kafka_name(code: i16) -> String {
        if code == 0 {
            return "NONE".into();
        }
        let error = ResponseError::try_from_code(code).expect("the crate knows the code");
        let mut name = String::new();
        for c in format!("{error:?}").chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }

    #[test]
    fn names_and_numbers_are_kafkas() {
        for error in ErrorCode::ALL {
            assert_eq!(error.name(), kafka_name(error.code()));
            assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(4), None);
    }
}
