//! Sleeping on a shared word, for actors parked between passes: between gate and operation nobody sleeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The futex of a word: its low half on a little-endian machine.
fn low_half(word: &AtomicU64) -> *mut u32 {
    let halves: *mut [u32; 2] = word.as_ptr().cast();
    let low = usize::from(cfg!(target_endian = "big"));
    halves.cast::<u32>().wrapping_add(low)
}

/// Sleeps until `word` is no longer `seen`, somebody wakes it, or `timeout` is over; may return early.
pub fn wait(word: &AtomicU64, seen: u64, timeout: Duration) {
    if word.load(Ordering::SeqCst) != seen {
        return;
    }
    let time = libc::timespec {
        tv_sec: timeout.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: the word outlives the call, `time` is a valid timespec; the kernel only reads both. Not
    // FUTEX_PRIVATE, because the waker may be another process.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            low_half(word),
            libc::FUTEX_WAIT,
            seen as u32,
            &raw const time,
        );
    }
}

/// Wakes everybody who sleeps on `word`.
pub fn wake_all(word: &AtomicU64) {
    // SAFETY: the kernel takes the address as a key and reads nothing else.
    unsafe {
        libc::syscall(libc::SYS_futex, low_half(word), libc::FUTEX_WAKE, i32::MAX);
    }
}
