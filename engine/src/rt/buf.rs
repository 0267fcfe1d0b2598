//! Memory fit for direct I/O: aligned by construction, so alignment is a type and not a check.

/// Multiple of every logical block size we accept (`statx` `STATX_DIOALIGN` is checked at start).
pub const ALIGNMENT: usize = 4096;

/// An owned, zeroed, aligned buffer.
pub struct AlignedBuf(std::marker::PhantomData<()>);

impl AlignedBuf {
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn bytes(&self) -> &[u8] {
        unimplemented!()
    }
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        unimplemented!()
    }
    /// Shortens the buffer; `len` must be a multiple of [`ALIGNMENT`].
    pub fn trim(&mut self, _len: usize) {
        unimplemented!()
    }
}
