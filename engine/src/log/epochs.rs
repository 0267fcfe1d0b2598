//! The epochs of a log and where each starts; cut together with it.
