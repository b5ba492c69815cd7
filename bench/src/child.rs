//! One trial as the runner sees it: a process in namespaces of its own, what it has told so far, and until
//! when it must tell something again.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use punchbench_fs::Tag;
use punchbench_fs::tag;
use punchbench_results::{Record, Verdict, is_control};
use punchbench_scenarios::Capability;
use punchbench_sys::namespaces::{Isolated, IsolatedChild, Namespaces};

use crate::cli;
use crate::dmesg::KernelLog;
use crate::wire::{GO, Message, Phase, Spec};

/// The longest line a trial may send; a record is some kilobytes.
const LINE_MAX: usize = 32 << 20;

/// A trial's process and what it told.
#[derive(Debug)]
pub struct Child {
    process: IsolatedChild,
    orders: File,
    events: File,
    partial: Vec<u8>,
    /// Position in the plan.
    pub index: usize,
    /// Who must be told its outcome, as far as the runner knows it by itself.
    pub blank: Record,
    /// When it began.
    pub began: Instant,
    /// What it is doing.
    pub phase: Phase,
    /// Phases entered that nobody has been told yet.
    pub entered: Vec<Phase>,
    /// When it last told something.
    pub heard: Instant,
    /// When the phase began.
    pub phase_began: Instant,
    /// Rounds raced.
    pub rounds: u64,
    /// Its block devices.
    pub devices: Vec<String>,
    /// What it saw its target to be unable to.
    pub cannot: Option<Capability>,
    /// Its last word.
    pub done: Option<Record>,
    /// A line of it that could not be read.
    pub garbled: Option<String>,
    /// The kernel's log since it began.
    pub kernel_log: KernelLog,
    /// What it and its tools printed.
    pub log_path: PathBuf,
    /// Another trial ran beside it.
    pub alone: bool,
    closed: bool,
    ended: Option<WaitStatus>,
}

impl Child {
    /// Starts a trial. To be called from the runner's one permanent thread: the trial ends with it.
    pub fn start(index: usize, spec: &Spec, log_path: &Path) -> anyhow::Result<Child> {
        let kernel_log = KernelLog::from_now();
        let log = File::create(log_path)
            .map_err(|e| anyhow::anyhow!("cannot create {}: {e}", log_path.display()))?;
        let (orders_read, orders) = io::pipe()?;
        let (events, events_write) = io::pipe()?;
        let args = ["punchbench", cli::TRIAL].map(|a| CString::new(a).expect("no NUL in it"));
        let mut env: Vec<CString> = std::env::vars_os()
            .filter(|(name, _)| name.as_bytes() != tag::ENVIRONMENT.as_bytes())
            .filter_map(|(name, value)| {
                CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
            })
            .collect();
        env.push(CString::new(format!(
            "{}={}",
            tag::ENVIRONMENT,
            Tag::of_this_process()
        ))?);
        let process = Isolated {
            program: c"/proc/self/exe",
            args: &args,
            env: &env,
            stdin: orders_read.as_fd(),
            log: log.as_fd(),
            events: events_write.as_fd(),
            // The reference mounts nothing and starts nothing.
            namespaces: match is_control(&spec.target) {
                true => Namespaces::Shared,
                false => Namespaces::own(),
            },
        }
        .spawn()?;
        fcntl(&events, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let now = Instant::now();
        let mut child = Child {
            process,
            orders: File::from(std::os::fd::OwnedFd::from(orders)),
            events: File::from(std::os::fd::OwnedFd::from(events)),
            partial: Vec::new(),
            index,
            blank: spec.record.clone(),
            began: now,
            phase: Phase::Start,
            entered: Vec::new(),
            heard: now,
            phase_began: now,
            rounds: 0,
            devices: Vec::new(),
            cannot: None,
            done: None,
            garbled: None,
            kernel_log,
            log_path: log_path.to_owned(),
            alone: true,
            closed: false,
            ended: None,
        };
        let mut line = serde_json::to_vec(spec)?;
        line.push(b'\n');
        // A child that dies first has an exit status that says more than this error.
        let _ = child.orders.write_all(&line);
        Ok(child)
    }

    /// Its process id, as seen here.
    pub fn pid(&self) -> i32 {
        self.process.pid.as_raw()
    }

    /// Becomes readable when it tells something; none once nobody is left who could.
    pub fn events_fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.closed).then(|| self.events.as_fd())
    }

    /// Becomes readable when its process has ended and all below it.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Takes in what it told so far.
    pub fn listen(&mut self) {
        let mut buf = [0; 65536];
        while !self.closed {
            match self.events.read(&mut buf) {
                Ok(n) if n > 0 && self.partial.len() <= LINE_MAX => {
                    self.heard = Instant::now();
                    self.partial.extend_from_slice(&buf[..n]);
                    self.take_lines();
                }
                Ok(0) => self.closed = true,
                Ok(_) => {
                    self.garbled = Some("an endless line".to_owned());
                    self.closed = true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.closed = true,
            }
        }
    }

    fn take_lines(&mut self) {
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(message) => self.take(message),
                Err(error) => self.garbled = Some(error.to_string()),
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Phase(phase) => {
                self.phase = phase;
                self.phase_began = self.heard;
                self.entered.push(phase);
            }
            Message::Device(name) => self.devices.push(name),
            Message::Progress { rounds } => self.rounds = rounds,
            Message::Cannot(what) => self.cannot = Some(what),
            Message::Done(record) => self.done = Some(*record),
        }
    }

    /// Whether it races, or prepares or judges passes in between.
    pub fn has_the_cpus(&self) -> bool {
        matches!(self.phase, Phase::Prepare | Phase::Race | Phase::Evict)
    }

    /// Lets it race.
    pub fn go(&mut self) {
        // If it is dead, its end is seen where all ends are.
        let _ = self.orders.write_all(GO);
        self.phase = Phase::Prepare;
        self.heard = Instant::now();
        self.phase_began = self.heard;
    }

    /// Kills it and everything below it; whether it is gone is for [`Child::wait`] to say.
    pub fn kill(&self) {
        let _ = kill(self.process.pid, Signal::SIGKILL);
    }

    /// Waits for its end for at most so long; whether it came.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self.reap() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let millis = u16::try_from(left.as_millis().clamp(1, 10_000)).unwrap_or(10_000);
            let mut fds = [nix::poll::PollFd::new(
                self.process.pidfd.as_fd(),
                nix::poll::PollFlags::POLLIN,
            )];
            let _ = nix::poll::poll(&mut fds, millis);
        }
    }

    /// Whether it has ended.
    pub fn reap(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = match waitpid(self.process.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => None,
                Ok(status) => Some(status),
                Err(_) => Some(WaitStatus::StillAlive),
            };
        }
        self.ended.is_some()
    }

    /// The record of a trial that has ended by itself.
    pub fn record(&mut self) -> Record {
        self.listen();
        if let Some(record) = self.done.take() {
            return record;
        }
        let mut record = self.blank.clone();
        record.verdict = Verdict::Error;
        let how = match self.ended {
            Some(WaitStatus::Exited(_, code)) => format!("exited with code {code}"),
            Some(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            _ => "ended".to_owned(),
        };
        record.reason = format!(
            "the trial's process {how} in phase {} without a result",
            self.phase.word()
        );
        if let Some(garbled) = &self.garbled {
            record
                .reason
                .push_str(&format!("; a message of it could not be read: {garbled}"));
        }
        record
    }
}
