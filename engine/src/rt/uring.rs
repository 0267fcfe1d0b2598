//! The real back end: glommio, one executor per core.

/// Handle to the glommio executor of this thread, with a task queue per class.
#[derive(Clone)]
pub struct Uring {}
