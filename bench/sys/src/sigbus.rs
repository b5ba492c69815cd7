//! SIGBUS as an outcome. A load or store through a shared mapping may hit a page that the file no longer
//! has; the bench must see that as a result, not die of it.
//!
//! There is no way to skip a faulting instruction without knowing the machine's instructions, so the
//! handler puts an anonymous page where the file's page could not be had: the access then runs through,
//! and its owner (`map`) sees the noted address, drops what it copied from there on, and maps the file's
//! page back. Outside a guarded access the signal keeps its default action.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, compiler_fence};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What the handler of this thread may act on. Atomics only because a handler reads and writes them.
struct Armed {
    start: AtomicUsize,
    end: AtomicUsize,
    page: AtomicUsize,
    hit: AtomicUsize,
}

thread_local! {
    // Const and without a destructor, so that the handler's access is a plain load from the thread's own
    // block; and the guarded access has touched it before, so nothing is allocated in the handler.
    static ARMED: Armed = const {
        Armed {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            page: AtomicUsize::new(1),
            hit: AtomicUsize::new(0),
        }
    };
}

/// Installs the handler, once a process; forked children inherit it.
pub(crate) fn install() -> Result<(), Errno> {
    static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let action = SigAction::new(
            SigHandler::SigAction(on_sigbus),
            SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK,
            SigSet::empty(),
        );
        // SAFETY: the handler calls nothing but mmap and sigaction (plain system calls), touches only
        // its own thread's atomics, and preserves errno.
        unsafe { sigaction(Signal::SIGBUS, &action) }.map(drop)
    })
}

/// A guarded access in progress on this thread: ends when dropped.
pub(crate) struct Guard {
    // Tied to the thread that armed it.
    _here: PhantomData<Cell<*mut u8>>,
}

impl Guard {
    /// Allows the handler to replace pages of `region`, which the caller has mapped; one access at a time.
    pub(crate) fn arm(region: &Range<usize>, page: usize) -> Guard {
        ARMED.with(|armed| {
            armed.hit.store(0, Relaxed);
            armed.page.store(page, Relaxed);
            armed.start.store(region.start, Relaxed);
            armed.end.store(region.end, Relaxed);
        });
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
        Guard { _here: PhantomData }
    }

    /// The address that faulted, if any has so far.
    pub(crate) fn hit(&self) -> Option<usize> {
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
        match ARMED.with(|armed| armed.hit.load(Relaxed)) {
            0 => None,
            address => Some(address),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
        ARMED.with(|armed| armed.end.store(0, Relaxed));
    }
}

extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler, and SIGBUS carries an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let errno = Errno::last_raw();
    if !replace(address) {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default action runs no code of ours; the access faults again and ends the process.
        let _ = unsafe { sigaction(Signal::SIGBUS, &default) };
    }
    Errno::set_raw(errno);
}

/// Puts an anonymous page under `address` and notes it, if this thread's guarded access allows it.
fn replace(address: usize) -> bool {
    ARMED.with(|armed| {
        if !(armed.start.load(Relaxed)..armed.end.load(Relaxed)).contains(&address) {
            return false;
        }
        let page = armed.page.load(Relaxed);
        // SAFETY: the page lies in a mapping that the armed access owns (mappings are whole pages), and
        // nothing holds a Rust reference into it.
        let got = unsafe {
            libc::mmap(
                (address & !(page - 1)) as *mut libc::c_void,
                page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if got == libc::MAP_FAILED {
            return false;
        }
        if armed.hit.load(Relaxed) == 0 {
            armed.hit.store(address, Relaxed);
        }
        true
    })
}
