//! A whole run of the program in a guest: pack, boot, pass the records on, and say how it ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::console::Console;
use crate::error::{GuestError, IoContext};
use crate::initramfs::{Contents, MissingTool};
use crate::kernel::{Kernel, Machinery};
use crate::machine::{Ended, Limits, Running};
use crate::modules::{Closure, ModuleIndex};
use crate::qemu::{self, Accel, Machine};
use crate::uml;
use crate::unpack::unpack;
use crate::wire::{Control, Decoder, Frame};

/// A guest that has not said hello under KVM by then never will; the fastest machine needs no more
/// than a second or two.
const KVM_PROOF: Duration = Duration::from_secs(20);
/// Between the guest's last word and its power-off.
const POWER_OFF: Duration = Duration::from_secs(10);

/// Set when KVM failed once: it will not do better the next time.
static KVM_FAILED: AtomicBool = AtomicBool::new(false);

/// The program, run on another kernel.
#[derive(Debug, Clone)]
pub struct GuestRun {
    /// The kernel to boot.
    pub kernel: Kernel,
    /// The program that becomes the guest's init, and then runs `argv`. It must call
    /// [`crate::init::run`] when [`crate::init::is_guest_init`].
    pub program: PathBuf,
    /// Its command line in the guest, starting with its name. It writes its records, one a line, to
    /// [`crate::init::RECORDS_PATH`].
    pub argv: Vec<String>,
    /// Programs of the host to take along, such as `mkfs.ext4`.
    pub tools: Vec<String>,
    /// Files to put into the guest: where, and what they hold.
    pub files: Vec<(String, Vec<u8>)>,
    /// Modules (names or aliases) to take along, with all they need; they are loaded on first use.
    pub modules: Vec<String>,
    /// Persistent memory beside the guest's memory, in MiB; a machine under QEMU can have it.
    pub pmem_mib: u32,
    /// The guest's memory, which holds the images too.
    pub memory_mib: u32,
    /// The guest's CPUs.
    pub cpus: u32,
    /// How long booting may take; a guest that does not come up ends then, not at the deadline.
    pub boot: Duration,
    /// How long it may take altogether.
    pub deadline: Duration,
    /// How long neither a record nor a word on the console may come.
    pub silence: Duration,
    /// Where to keep all that the console said.
    pub console_log: Option<PathBuf>,
}

/// How a run in a guest went.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestOutcome {
    /// How it ended.
    pub end: GuestEnd,
    /// The last lines on the console.
    pub console_tail: Vec<String>,
    /// The release the guest's kernel reported; none if init never ran.
    pub release: Option<String>,
    /// And its version, which tells two builds of a release apart.
    pub version: Option<String>,
    /// From the machine's start to init's first word.
    pub boot: Option<Duration>,
    /// From the machine's start until the program began.
    pub ready: Option<Duration>,
    /// Whether the guest's kernel had too little memory, by its own account.
    pub out_of_memory: bool,
    /// How the guest was run.
    pub accel: Accel,
    /// How many records came.
    pub records: u64,
    /// Modules that did not load, with the reason.
    pub failed_modules: Vec<FailedModule>,
    /// Modules asked for that this kernel does not have.
    pub missing_modules: Vec<String>,
    /// Tools asked for that could not be packed.
    pub missing_tools: Vec<MissingTool>,
    /// Lines that were lost or torn on the way, or were not ours. What was in them is missing from the
    /// records; those that came are whole.
    pub damaged: u64,
    /// The first of them.
    pub first_damage: Option<String>,
}

/// What is told while a guest runs.
#[derive(Debug)]
pub enum News<'a> {
    /// A tool cannot be had in the guest; before it boots.
    MissingTool(&'a MissingTool),
    /// The kernel has no such module; before it boots.
    MissingModule(&'a str),
    /// A module did not load, or could not even be packed.
    FailedModule(&'a FailedModule),
    /// A record line.
    Record(&'a str),
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEnd {
    /// The program ended with this exit code (128 + N if signal N killed it), and so did the machine.
    Done {
        /// The exit code.
        exit: i32,
    },
    /// The kernel panicked.
    Panic,
    /// The kernel oopsed, and the program did not end after it.
    Oops,
    /// The time was up.
    Hung {
        /// Whether because nothing came for too long (else because all of it took too long).
        silent: bool,
    },
    /// The machine ended without a word why.
    EarlyExit {
        /// Its process's exit status, and what that said.
        said: String,
    },
}

/// A module that did not load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedModule {
    /// Its name.
    pub name: String,
    /// Whether something asked for cannot work without it.
    pub required: bool,
    /// The kernel's answer.
    pub error: String,
}

impl GuestRun {
    /// Boots the kernel and runs the program in it; `on_line` gets each record line as it comes.
    /// Blocks until the guest has ended; nothing of it is left then, nor when this process is killed.
    pub fn run(self, on_line: &mut dyn FnMut(&str)) -> Result<GuestOutcome, GuestError> {
        self.run_until(None, &mut |news| {
            if let News::Record(line) = news {
                on_line(line);
            }
        })
    }

    /// As [`GuestRun::run`], but tells everything as it comes, and ends with [`GuestError::Interrupted`] as
    /// soon as `stop` can be read: a signalfd, say. QEMU is not told of the terminal's interrupts.
    pub fn run_until(
        self,
        stop: Option<BorrowedFd>,
        on_news: &mut dyn FnMut(News),
    ) -> Result<GuestOutcome, GuestError> {
        let started = Instant::now();
        // Without names, so that nothing is left of them however this process ends.
        let unnamed = || tempfile::tempfile().context("create a file in", &std::env::temp_dir());
        let (initramfs, vmlinux) = (unnamed()?, unnamed()?);
        let closure = match &self.kernel.modules {
            Some(modules) => modules.closure(&self.modules),
            None => Closure::default(),
        };
        let none = ModuleIndex::default();
        let contents = Contents {
            program: &self.program,
            argv: &self.argv,
            tools: &self.tools,
            files: &self.files,
            modules: &closure.load,
            index: self.kernel.modules.as_ref().unwrap_or(&none),
        };
        let left_out = contents.write(&initramfs)?;
        for tool in &left_out.tools {
            on_news(News::MissingTool(tool));
        }
        for module in &closure.missing {
            on_news(News::MissingModule(module));
        }
        for module in &left_out.modules {
            on_news(News::FailedModule(module));
        }
        let until = started + self.deadline;
        let mut outcome = match self.kernel.machinery {
            Machinery::UserMode => {
                let start = || uml::start(&self.kernel.image, &initramfs, self.memory_mib);
                self.boot(start, Accel::UserMode, self.boot, until, stop, on_news)?
            }
            Machinery::Pc => self.boot_pc(&initramfs, &vmlinux, until, stop, on_news)?,
        };
        outcome.missing_modules = closure.missing;
        outcome.missing_tools = left_out.tools;
        outcome.failed_modules.splice(0..0, left_out.modules);
        Ok(outcome)
    }

    /// Under KVM if that works here, else by emulation.
    fn boot_pc(
        &self,
        initramfs: &File,
        vmlinux: &File,
        until: Instant,
        stop: Option<BorrowedFd>,
        on_news: &mut dyn FnMut(News),
    ) -> Result<GuestOutcome, GuestError> {
        let unpacked = unpack(&self.kernel.image, vmlinux);
        let mut machine = Machine {
            image: if unpacked {
                path_of(vmlinux)
            } else {
                self.kernel.image.clone()
            },
            initramfs: path_of(initramfs),
            memory_mib: self.memory_mib,
            pmem_mib: self.pmem_mib,
            cpus: self.cpus,
            accel: Accel::Kvm,
        };
        if qemu::kvm_opens() && !KVM_FAILED.load(Ordering::Relaxed) {
            let start = || machine.start();
            let boot = self.boot.min(KVM_PROOF);
            let proved = self.boot(start, Accel::Kvm, boot, until, stop, on_news)?;
            if proved.boot.is_some() {
                return Ok(proved);
            }
            KVM_FAILED.store(true, Ordering::Relaxed);
        }
        machine.accel = Accel::Tcg;
        let start = || machine.start();
        self.boot(start, Accel::Tcg, self.boot, until, stop, on_news)
    }

    /// One boot: init says hello within `boot`, and everything is done at `until`.
    fn boot(
        &self,
        start: impl FnOnce() -> Result<Running, GuestError>,
        accel: Accel,
        boot: Duration,
        until: Instant,
        stop: Option<BorrowedFd>,
        on_news: &mut dyn FnMut(News),
    ) -> Result<GuestOutcome, GuestError> {
        let log = self.console_log.as_deref();
        let log = log
            .map(|path| File::create(path).context("create", path))
            .transpose()?;
        let mut console = Console::new(log);
        let mut talk = Talk::new(until, accel);
        let limits = Limits {
            until: until.min(Instant::now() + boot),
            silence: self.silence,
        };
        let mut machine = start()?;
        let mut on_records = |bytes: &[u8], limits: &mut Limits| -> io::Result<()> {
            talk.hear(bytes, limits, on_news);
            Ok(())
        };
        let ended = machine
            .watch(&mut console, limits, stop, &mut on_records)
            .context("read from", self.kernel.image.as_path())?;
        drop(machine);
        talk.conclude(ended, &console)
    }
}

/// A path by which our child can open an unnamed file.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// What the guest has said so far.
struct Talk {
    decoder: Decoder,
    started: Instant,
    until: Instant,
    outcome: GuestOutcome,
    done: Option<i32>,
    setup_failed: Option<String>,
}

impl Talk {
    fn new(until: Instant, accel: Accel) -> Self {
        Self {
            decoder: Decoder::default(),
            started: Instant::now(),
            until,
            outcome: GuestOutcome {
                end: GuestEnd::Panic,
                console_tail: Vec::new(),
                release: None,
                version: None,
                boot: None,
                ready: None,
                out_of_memory: false,
                accel,
                records: 0,
                failed_modules: Vec::new(),
                missing_modules: Vec::new(),
                missing_tools: Vec::new(),
                damaged: 0,
                first_damage: None,
            },
            done: None,
            setup_failed: None,
        }
    }

    fn hear(&mut self, bytes: &[u8], limits: &mut Limits, on_news: &mut dyn FnMut(News)) {
        for frame in self.decoder.feed(bytes) {
            match frame {
                Ok(Frame::Record(line)) => {
                    self.outcome.records += 1;
                    on_news(News::Record(&line));
                }
                Ok(Frame::Control(control)) => self.note(control, limits, on_news),
                Err(damage) => self.damage(damage),
            }
        }
    }

    fn note(&mut self, control: Control, limits: &mut Limits, on_news: &mut dyn FnMut(News)) {
        match control {
            Control::Hello { release, version } => {
                self.outcome.release = Some(release);
                self.outcome.version = Some(version);
                self.outcome.boot = Some(self.started.elapsed());
                limits.until = self.until;
            }
            Control::ModuleFailed {
                name,
                required,
                error,
            } => {
                let module = FailedModule {
                    name,
                    required,
                    error,
                };
                on_news(News::FailedModule(&module));
                self.outcome.failed_modules.push(module);
            }
            Control::Ready => self.outcome.ready = Some(self.started.elapsed()),
            Control::SetupFailed { error } => {
                self.setup_failed = Some(error);
                limits.until = limits.until.min(Instant::now() + POWER_OFF);
            }
            Control::Done { exit } => {
                self.done = Some(exit);
                limits.until = limits.until.min(Instant::now() + POWER_OFF);
            }
        }
    }

    fn damage(&mut self, damage: String) {
        self.outcome.damaged += 1;
        self.outcome.first_damage.get_or_insert(damage);
    }

    fn conclude(mut self, ended: Ended, console: &Console) -> Result<GuestOutcome, GuestError> {
        if let Some(rest) = self.decoder.rest() {
            self.damage(rest);
        }
        if let Some(error) = self.setup_failed {
            return Err(GuestError::GuestSetup(error));
        }
        self.outcome.console_tail = console.tail();
        self.outcome.out_of_memory = console.out_of_memory();
        self.outcome.end = match (self.done, ended) {
            (_, Ended::Stopped) => return Err(GuestError::Interrupted),
            // A machine that did not switch itself off after that has been switched off.
            (Some(exit), _) => GuestEnd::Done { exit },
            (None, _) if console.panicked() => GuestEnd::Panic,
            (None, _) if console.oopsed() => GuestEnd::Oops,
            (None, Ended::Deadline) => GuestEnd::Hung { silent: false },
            (None, Ended::Silence) => GuestEnd::Hung { silent: true },
            (None, Ended::Exited(said)) => GuestEnd::EarlyExit { said },
        };
        Ok(self.outcome)
    }
}
