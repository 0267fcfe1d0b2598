//! The table: what is found on disk, and what is decided. Pure functions over small enums, so that the tables in `engine/README.md`
//! and the code are the same thing, and a test can go through all rows.

/// Whose the directory is, by its `partition.metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    Ours,
    Missing,
    /// Another topic id.
    Anothers,
    /// Not a `partition.metadata` of version 0.
    Garbage,
}

/// What is in the segment files of the directory, by their lengths alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// No files, or only empty ones.
    Nothing,
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    GoOn,
    /// A crash came in the middle of it.
    FinishCreation,
    Refuse,
}

/// May the files in this directory be taken for those of the log?
pub fn admit(identity: Identity, contents: Contents) -> Admission {
    match (identity, contents) {
        (Identity::Ours, _) => Admission::GoOn,
        // The identity of a new log is durable before anything is appended, and not whole before that.
        (Identity::Missing | Identity::Garbage, Contents::Nothing) => Admission::FinishCreation,
        (Identity::Missing | Identity::Garbage, Contents::Data) => Admission::Refuse,
        (Identity::Anothers, _) => Admission::Refuse,
    }
}

/// What is left of the segment that the recovery point falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// No checkpoint speaks of this log.
    Unknown,
    /// The file is there, and at least as long as it was.
    InFile,
    /// The file is gone, and the one that begins at the recovery point is there: the log start has moved up to it.
    AtNextFile,
    /// The file is gone or shorter: the disk lost what it had confirmed.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There is nothing: an empty log.
    Create,
    /// Every segment is walked.
    WalkAll,
    /// Only what is behind the recovery point is walked. What is before it is durable, its producers and epochs are in the checkpoint.
    WalkFromPoint,
    /// The segment is walked from its beginning, and whatever is missing then below the recovery point is left out: the log goes on at the
    /// recovery point in a segment of its own. So no offset is used twice, and what the journal holds from there on is kept.
    WalkAndBridge,
}

/// What there is beside the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    Nothing,
    /// Records in the journal, and no file they could have been for: that was durable before the first of them.
    OnlyJournal,
    Segments,
}

/// Where does the walk begin?
pub fn start(point: Point, remains: Remains) -> Start {
    match (point, remains) {
        (Point::Unknown, Remains::Nothing) => Start::Create,
        (Point::Unknown, Remains::Segments) => Start::WalkAll,
        (Point::InFile | Point::AtNextFile, Remains::Segments) => Start::WalkFromPoint,
        (Point::Unknown, Remains::OnlyJournal) | (Point::Lost, _) => Start::WalkAndBridge,
        (Point::InFile | Point::AtNextFile, _) => panic!("the file is one of the segments"),
    }
}

/// What the side file of the last segment is, measured by the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideFile {
    /// Missing, damaged, or of another segment.
    Unusable,
    /// It ends before the part that the checkpoint keeps.
    Older,
    /// It meets the part that the checkpoint keeps.
    Meets,
    /// It speaks of batches behind the recovery point.
    Newer,
}

/// What the checkpoint keeps of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InCheckpoint {
    /// Nothing, or another segment's.
    Nothing,
    /// What the side file does not say.
    Rest,
    /// All of it: the side file is not even looked at.
    Everything,
}

/// How the index of the synced part of the last segment comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFrom {
    Checkpoint,
    SideFileAndCheckpoint,
    /// From the side file as far as it goes, then from the batches.
    SideFileAndBatches,
    Batches,
}

pub fn index_from(in_checkpoint: InCheckpoint, side_file: SideFile) -> IndexFrom {
    match (in_checkpoint, side_file) {
        (InCheckpoint::Everything, _) => IndexFrom::Checkpoint,
        // The part of it that lies behind the recovery point is forgotten first.
        (InCheckpoint::Rest, SideFile::Meets | SideFile::Newer) => IndexFrom::SideFileAndCheckpoint,
        (InCheckpoint::Rest, SideFile::Older) => IndexFrom::SideFileAndBatches,
        (InCheckpoint::Nothing, SideFile::Unusable) => IndexFrom::Batches,
        (InCheckpoint::Nothing, _) => IndexFrom::SideFileAndBatches,
        (InCheckpoint::Rest, SideFile::Unusable) => IndexFrom::Batches,
    }
}

/// What the segment file has at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InSegment {
    /// A batch with a right CRC-32C, the offset that comes next, and an epoch not older than the one before.
    Valid,
    /// Torn, rotten, with another offset or an older epoch, zeros, or the end of the file.
    Broken,
}

/// What the journal has at the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InJournal {
    /// Nothing, or something of another generation of the log.
    Absent,
    /// The batch that is in the segment: epoch, length and CRC-32 agree.
    Same,
    /// A batch, where the segment has another or none, and there is room for it within the file.
    Other,
    /// The same, but it would reach past the end of the file.
    Beyond,
    /// A batch, where the segment has another or none, and behind the entries that go on from it the segment has nothing of the log.
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Keep,
    /// Put the journal's batch into the file.
    Restore,
    /// Cut the file here. The log's ordinary writer appends what the journal holds from here on.
    CutAndAppend,
    Cut,
}

/// What is decided at each offset of the last segment?
pub fn decide(segment: InSegment, journal: InJournal) -> Decision {
    match (segment, journal) {
        (InSegment::Valid, InJournal::Absent | InJournal::Same) => Decision::Keep,
        (InSegment::Valid | InSegment::Broken, InJournal::Other) => Decision::Restore,
        (InSegment::Valid | InSegment::Broken, InJournal::Beyond | InJournal::Last) => {
            Decision::CutAndAppend
        }
        (InSegment::Broken, InJournal::Absent) => Decision::Cut,
        (InSegment::Broken, InJournal::Same) => panic!("nothing is the same as a broken batch"),
    }
}
