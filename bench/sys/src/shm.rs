//! Memory that forked actors share: zeroed words, all atomic, so that every access is defined.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Words shared by this process and everything it forks.
#[derive(Debug)]
pub struct SharedWords {
    words: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is only ever reached as `&[AtomicU64]`, which is `Sync`, and owning it is not
// bound to a thread.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// `len` zeroed words in an anonymous shared mapping.
    pub fn new(len: usize) -> std::io::Result<SharedWords> {
        let bytes = len.max(1) * size_of::<AtomicU64>();
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let words =
            NonNull::new(at.cast()).ok_or_else(|| std::io::Error::other("mmap gave address 0"))?;
        Ok(SharedWords { words, len })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: `new` mapped at least `len` page-aligned, zeroed words, which are valid `AtomicU64`s;
        // they stay mapped until drop, and every other process reaches them atomically as well.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, with its length, to which no reference can be left: every
        // one borrowed `self`.
        unsafe {
            libc::munmap(
                self.words.as_ptr().cast(),
                self.len.max(1) * size_of::<AtomicU64>(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_forked_child_writes_where_the_parent_reads() {
        let words = SharedWords::new(3).unwrap();
        let mut child = crate::process::fork(|| {
            words[2].store(7, Ordering::SeqCst);
            0
        })
        .unwrap();
        assert_eq!(child.wait().unwrap(), crate::process::Exit::Code(0));
        assert_eq!(words[2].load(Ordering::SeqCst), 7);
        assert_eq!(words.len(), 3);
    }
}
