//! Why a group request was refused: Kafka's names, without its numbers (those belong to the wire).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupError {
    /// The coordinator is still reading its log.
    CoordinatorLoadInProgress,
    /// The coordinator's log is offline, its memory is used up, or the disk is nearly full.
    CoordinatorNotAvailable,
    /// Another shard or broker coordinates this group.
    NotCoordinator,
    InvalidGroupId,
    /// A string that no record can hold.
    InvalidRequest,
    InvalidSessionTimeout,
    InvalidCommitOffsetSize,
    UnknownMemberId,
    /// A newer instance with the same `group.instance.id` has joined.
    FencedInstanceId,
    IllegalGeneration,
    InconsistentGroupProtocol,
    RebalanceInProgress,
    GroupMaxSizeReached,
    GroupIdNotFound,
    NonEmptyGroup,
    GroupSubscribedToTopic,
    OffsetMetadataTooLarge,
    /// The leader's assignment does not fit into one record of the log.
    AssignmentTooLarge,
}
