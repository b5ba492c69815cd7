//! The server of an image: a FUSE filesystem of one file, in a process of its own. A loop device in direct-I/O
//! mode lies over that file, so each request to the device comes here, and one that is to be held is simply not
//! answered yet: its reply is put away and the event loop goes on (with FUSE_ASYNC_DIO the loop driver sends the
//! next request meanwhile).
//!
//! It is a process, and not a thread of the trial, because who ends while it holds the file and serves it waits
//! in `fuse_flush` for himself; and it has a mount namespace of its own, taken before anything of the trial is
//! mounted, because a task's deferred work runs last in, first out (`task_work_run`): the last task of a
//! namespace would unmount the filesystem on the device before it closed /dev/fuse, and wait for itself. When
//! this process is gone, its connection is aborted and all that was held fails.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, SessionACL, WriteFlags,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use punchbench_sys::{fdpass, mount};

use super::board::Board;
use super::holder::{HoldId, IoKind, now};
use super::wire::{self, Answer, Order};

/// The name of the one file.
pub(super) const FILE: &str = "image";

/// Its inode.
const INODE: INodeNo = INodeNo(2);

/// The largest request; larger ones of the device come in pieces.
pub(super) const REQUEST: u32 = 1 << 20;

/// How many requests may wait: all that a loop device can have (its queue's depth is 128), with room.
const BACKGROUND: u16 = 512;

/// The kernel asks once what the file is, as nothing about it changes.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// How long it serves on when nobody orders any more: the device may still be written to while it is taken down.
const LINGER: Duration = Duration::from_secs(20);

/// Serves the image that the process at the other end of standard input passes on, until the last user of the
/// file has gone. For the hidden command that a trial starts this program with.
pub fn serve() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let outcome = prepare(&socket).and_then(|(shared, session)| run(&socket, &shared, session));
    if let Err(error) = &outcome {
        // Of use only while somebody listens.
        let _ = wire::send(&socket, &Answer::Failed(error.to_string()));
    }
    outcome
}

fn prepare(socket: &UnixStream) -> io::Result<(Arc<Shared>, Session<ImageFs>)> {
    mount::enter_private_namespace()?;
    wire::send(socket, &Answer::Ready)?;
    let [image, device] = <[OwnedFd; 2]>::try_from(fdpass::receive(socket)?)
        .map_err(|got| io::Error::other(format!("{} descriptors came instead of 2", got.len())))?;
    let image = File::from(image);
    let shared = Arc::new(Shared {
        size: image.metadata()?.len(),
        image,
        board: Mutex::new(Board::new()),
        bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        ended: AtomicBool::new(false),
    });
    let mut config = Config::default();
    config.acl = SessionACL::All;
    let served = ImageFs(Arc::clone(&shared));
    let session = Session::from_fd(served, device, SessionACL::All, config)?;
    wire::send(socket, &Answer::Serving)?;
    Ok((shared, session))
}

/// What the event loop and whoever obeys orders share.
#[derive(Debug)]
struct Shared {
    image: File,
    size: u64,
    board: Mutex<Board<Io>>,
    /// Rung when a request was held, and when the session has ended.
    bell: EventFd,
    ended: AtomicBool,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board<Io>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a request out, unless it is to be held.
    fn arrive(&self, kind: IoKind, range: Range<u64>, io: Io) {
        let goes = self.board().arrive(kind, range, now(), io);
        match goes {
            Some(io) => io.complete(&self.image),
            None => self.ring(),
        }
    }

    fn ring(&self) {
        // It can only fail where it has been rung more often than a u64 counts.
        let _ = self.bell.write(1);
    }

    fn go_on(&self, held: Vec<Io>) -> usize {
        let many = held.len();
        held.into_iter().for_each(|io| io.complete(&self.image));
        many
    }
}

/// A request with its reply. The device is looked at when it goes on, not when it came.
#[derive(Debug)]
enum Io {
    Read {
        at: u64,
        len: usize,
        reply: ReplyData,
    },
    Write {
        at: u64,
        data: Data,
        reply: ReplyWrite,
    },
    Flush(ReplyEmpty),
}

thread_local! {
    /// What requests of this thread are read into.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Io {
    fn complete(self, image: &File) {
        match self {
            Io::Read { at, len, reply } => BUFFER.with_borrow_mut(|buffer| {
                if buffer.len() < len {
                    buffer.resize(len, 0);
                }
                match read(image, at, &mut buffer[..len]) {
                    Ok(got) => reply.data(&buffer[..got]),
                    Err(error) => reply.error(Errno::from(error)),
                }
            }),
            Io::Write { at, data, reply } => match image.write_all_at(&data.0, at) {
                Ok(()) => reply.written(u32::try_from(data.0.len()).unwrap_or(u32::MAX)),
                Err(error) => reply.error(Errno::from(error)),
            },
            // What was written is with the image's filesystem, as far as the machine goes on.
            Io::Flush(reply) => reply.ok(),
        }
    }
}

/// Bytes to be written; a debug line has no room for them.
struct Data(Vec<u8>);

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// As much as there is.
fn read(image: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match image.read_at(&mut buffer[got..], at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Obeys orders until the session has ended, and ends holds whose time is up.
fn run(socket: &UnixStream, shared: &Arc<Shared>, session: Session<ImageFs>) -> io::Result<()> {
    let at_end = Arc::clone(shared);
    let served = thread::Builder::new()
        .name("fuse".to_owned())
        .spawn(move || {
            let outcome = session.run();
            at_end.ended.store(true, Ordering::SeqCst);
            at_end.ring();
            outcome
        })?;
    let mut clerk = Clerk {
        socket: BufReader::new(socket.try_clone()?),
        shared,
        waiter: None,
        closes: None,
    };
    while !shared.ended.load(Ordering::SeqCst) {
        if clerk.closes.is_some_and(|closes| now() >= closes) {
            // Ending the process aborts the connection.
            return Ok(());
        }
        clerk.step()?;
    }
    served
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the event loop panicked")))
}

/// The thread that obeys.
struct Clerk<'a> {
    socket: BufReader<UnixStream>,
    shared: &'a Shared,
    /// Who waits for a request to be held, and until when.
    waiter: Option<(HoldId, Duration)>,
    /// Nobody orders any more: when to end at the latest.
    closes: Option<Duration>,
}

impl Clerk<'_> {
    fn step(&mut self) -> io::Result<()> {
        let expiry = self.shared.board().next_expiry();
        let waiting = self.waiter.map(|(_, until)| until);
        let next = [expiry, waiting, self.closes].into_iter().flatten().min();
        if self.sleep(next)? {
            self.obey()?;
        }
        let over = self.shared.board().expire(now());
        self.shared.go_on(over);
        self.tell_waiter()
    }

    /// Sleeps until something happens; whether an order came, or the end of all orders.
    fn sleep(&self, until: Option<Duration>) -> io::Result<bool> {
        // Rounded up, as poll(2) counts in milliseconds and must not come back too early over and over.
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_sub(now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.shared.bell.as_fd(), PollFlags::POLLIN)];
        if self.closes.is_none() {
            fds.push(PollFd::new(
                self.socket.get_ref().as_fd(),
                PollFlags::POLLIN,
            ));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Once is enough for all who rang.
        let _ = self.shared.bell.read();
        let order = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        Ok(order)
    }

    fn obey(&mut self) -> io::Result<()> {
        let mut line = String::new();
        // The other end sends whole lines, one at a time.
        let got = self.socket.read_line(&mut line);
        if !matches!(got, Ok(1..)) {
            // Whoever gave orders is dead or done: nothing stays held.
            let held = self.shared.board().release_all();
            self.shared.go_on(held);
            self.waiter = None;
            self.closes = Some(now() + LINGER);
            return Ok(());
        }
        match serde_json::from_str(&line)? {
            Order::WaitHeld { hold, timeout } => {
                self.waiter = Some((hold, now() + timeout));
                Ok(())
            }
            order => self.answer(&self.carry_out(order)),
        }
    }

    fn carry_out(&self, order: Order) -> Answer {
        let mut board = self.shared.board();
        let held = match order {
            Order::Hold { what, at_most } => {
                return Answer::Hold(board.hold(what, at_most, now()));
            }
            Order::Held => return Answer::Held(board.held()),
            Order::WaitHeld { hold, .. } => {
                return board
                    .first_of(hold)
                    .map_or(Answer::Over(hold), Answer::First);
            }
            Order::Mark => return Answer::Mark(board.mark()),
            Order::Seen(since) => return Answer::Seen(board.seen(since)),
            Order::Release(hold) => match board.release(hold) {
                Ok(held) => held,
                Err(_) => return Answer::Over(hold),
            },
            Order::ReleaseAll => board.release_all(),
        };
        drop(board);
        Answer::Released(self.shared.go_on(held))
    }

    fn tell_waiter(&mut self) -> io::Result<()> {
        let Some((hold, until)) = self.waiter else {
            return Ok(());
        };
        let first = self.shared.board().first_of(hold);
        let answer = match first {
            Ok(None) if now() < until => return Ok(()),
            Ok(first) => Answer::First(first),
            Err(_) => Answer::Over(hold),
        };
        self.waiter = None;
        self.answer(&answer)
    }

    fn answer(&self, answer: &Answer) -> io::Result<()> {
        match wire::send(self.socket.get_ref(), answer) {
            // It has died meanwhile: the end of orders is read next.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// The filesystem of one file.
struct ImageFs(Arc<Shared>);

impl ImageFs {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let (kind, size, perm) = match inode {
            INODE => (FileType::RegularFile, self.0.size, 0o600),
            _ => (FileType::Directory, 0, 0o700),
        };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for ImageFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it the loop driver waits for each request, and with one held, everybody.
        let missing = |_| io::Error::other("the kernel's FUSE has no asynchronous direct I/O");
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(missing)?;
        let refused = |most| io::Error::other(format!("FUSE takes no more than {most}"));
        config.set_max_write(REQUEST).map_err(refused)?;
        config
            .set_max_background(BACKGROUND)
            .map_err(|most| io::Error::other(format!("FUSE takes no more than {most}")))?;
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&FOR_EVER, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Kernels before 5.16 do not know it, and send a FLUSH, which is answered at once.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_NOFLUSH);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = size as usize;
        let range = offset..offset + u64::from(size);
        let at = offset;
        self.0
            .arrive(IoKind::Read, range, Io::Read { at, len, reply });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let range = offset..offset + data.len() as u64;
        let io = Io::Write {
            at: offset,
            data: Data(data.to_vec()),
            reply,
        };
        self.0.arrive(IoKind::Write, range, io);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.arrive(IoKind::Flush, 0..0, Io::Flush(reply));
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        // Neither discard nor WRITE_ZEROES: the stamps stay, and zeroes are written out as such.
        reply.error(Errno::EOPNOTSUPP);
    }
}
