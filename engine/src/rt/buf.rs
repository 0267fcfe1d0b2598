//! Memory fit for direct I/O: aligned by construction, so alignment is a type and not a check.
//!
//! Under glommio the memory comes from the ring's registered buffers while they last, else from the heap. The simulator
//! has no device, so any memory will do there.

use super::uring;

/// Multiple of every logical block size we accept (`statx` `STATX_DIOALIGN` is checked at start).
pub const ALIGNMENT: usize = 4096;

/// An owned, zeroed, aligned buffer. Get one from [`super::Rt::alloc`].
pub struct AlignedBuf(pub(super) Memory);

pub(super) enum Memory {
    Uring(uring::Buffer),
    Sim(Vec<u8>),
}

impl AlignedBuf {
    pub fn len(&self) -> usize {
        match &self.0 {
            Memory::Uring(buffer) => buffer.len(),
            Memory::Sim(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Memory::Uring(buffer) => buffer.bytes(),
            Memory::Sim(bytes) => bytes,
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Uring(buffer) => buffer.bytes_mut(),
            Memory::Sim(bytes) => bytes,
        }
    }

    /// Shortens the buffer; `len` must be a multiple of [`ALIGNMENT`].
    pub fn trim(&mut self, len: usize) {
        assert!(len.is_multiple_of(ALIGNMENT), "trim to whole blocks");
        assert!(len <= self.len(), "trim never makes a buffer longer");
        match &mut self.0 {
            Memory::Uring(buffer) => buffer.trim(len),
            Memory::Sim(bytes) => bytes.truncate(len),
        }
    }
}

/// Next multiple of [`ALIGNMENT`].
pub(super) fn align_up(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}
