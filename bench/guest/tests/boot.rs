//! Boots real kernels with this test program as their init, and sees that what the host asked for
//! happens in the guest: filesystems made and mounted, records passed on, and each bad end told apart.
//!
//! A kernel comes from this machine's Debian mirror, once; without QEMU or a mirror the test is skipped,
//! with the reason. `PUNCHBENCH_REQUIRE_GUEST=1` makes that a failure.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use punchbench_guest::{
    GuestEnd, GuestError, GuestOutcome, GuestRun, Kernel, KernelSpec, init, modprobe,
};
use punchbench_sys::namespaces::{Isolated, Namespaces, inherited_events};

/// The user-mode-linux kernel that is installed here; else a suite of Debian.
const UML: &str = "linux.uml";
const BOOT_AND_WORK: Duration = Duration::from_secs(180);
/// The name this program is given on its command line in the guest.
const INSIDE: &str = "inside";

fn main() -> ExitCode {
    if init::is_guest_init() {
        init::run();
    }
    if modprobe::is_called() {
        return ExitCode::from(u8::from(!modprobe::run()));
    }
    let mut args = std::env::args();
    if args.next().as_deref() == Some(INSIDE) {
        let job = args.next().unwrap_or_default();
        return match inside(&job) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("{job}: {error:#}");
                ExitCode::from(1)
            }
        };
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let kernel = |suite: &str, name: &str, check: fn(&str) -> anyhow::Result<()>| {
        let suite = suite.to_owned();
        Trial::ignorable_test(format!("{suite}::{name}"), move || judged(check(&suite)))
    };
    let trials = vec![
        kernel("bullseye", "filesystems", filesystems),
        kernel("bookworm", "filesystems", filesystems),
        kernel("trixie", "nested", nested),
        kernel("bookworm", "unindexed_modules", unindexed_modules),
        kernel(UML, "filesystems", filesystems),
        kernel(UML, "panic", panics),
        kernel(UML, "deadline", takes_too_long),
        kernel(UML, "killed_runner", killed_runner),
        kernel("bookworm", "panic", panics),
        kernel("bookworm", "silence", falls_silent),
        kernel("bookworm", "deadline", takes_too_long),
        kernel("bookworm", "truncated_image", truncated_image),
        kernel("bookworm", "interrupt", is_interrupted),
        kernel("bookworm", "killed_runner", killed_runner),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What is not installed or not reachable here is a reason to skip, anything else a failure.
fn judged(result: anyhow::Result<()>) -> Result<Completion, Failed> {
    let Err(error) = result else {
        return Ok(Completion::Completed);
    };
    let absent = matches!(
        error.downcast_ref(),
        Some(
            GuestError::MissingProgram { .. }
                | GuestError::NoMirror { .. }
                | GuestError::NoPackage { .. }
                | GuestError::Architecture(_)
        )
    );
    if absent && std::env::var_os("PUNCHBENCH_REQUIRE_GUEST").is_none() {
        return Ok(Completion::ignored_with(format!("{error:#}")));
    }
    Err(format!("{error:#}").into())
}

// On the host.

fn guest(suite: &str, job: &str) -> anyhow::Result<GuestRun> {
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
    let (tools, modules) = match job {
        "filesystems" => (
            names(&[
                "mkfs.ext4",
                "mkfs.xfs",
                "mkfs.f2fs",
                "mkfs.btrfs",
                "mount",
                "umount",
                "no-such-tool",
            ]),
            names(&["loop", "ext4", "xfs", "f2fs", "btrfs", "no-such-module"]),
        ),
        _ => (Vec::new(), Vec::new()),
    };
    Ok(GuestRun {
        kernel: kernel_of(suite)?,
        program: std::env::current_exe()?,
        argv: vec![INSIDE.to_owned(), job.to_owned()],
        tools,
        files: Vec::new(),
        modules,
        pmem_mib: 0,
        memory_mib: 2048,
        cpus: 2,
        boot: BOOT_AND_WORK,
        deadline: BOOT_AND_WORK,
        silence: Duration::from_secs(60),
        console_log: None,
    })
}

fn kernel_of(suite: &str) -> anyhow::Result<Kernel> {
    if suite != UML {
        return Ok(KernelSpec::parse(&format!("debian:{suite}"))?.resolve()?);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|dir| dir.join(UML))
        .find(|program| program.is_file())
        .ok_or(GuestError::MissingProgram {
            program: UML.to_owned(),
            purpose: "it is a kernel",
            package: "user-mode-linux",
        })?;
    Ok(KernelSpec::parse(&program.to_string_lossy())?.resolve()?)
}

fn run(guest: GuestRun) -> anyhow::Result<(GuestOutcome, Vec<String>)> {
    let mut lines = Vec::new();
    let started = Instant::now();
    let mut first = None;
    let outcome = guest.run(&mut |line| {
        first.get_or_insert_with(|| started.elapsed());
        lines.push(line.to_owned());
    })?;
    eprintln!(
        "{:?} under {:?}: init {:?}, program {:?} after QEMU's start, first record {first:?} after ours, all {:?}",
        outcome.release,
        outcome.accel,
        outcome.boot,
        outcome.ready,
        started.elapsed()
    );
    Ok((outcome, lines))
}

fn filesystems(suite: &str) -> anyhow::Result<()> {
    let guest = guest(suite, "filesystems")?;
    let release = guest.kernel.release.clone();
    let (outcome, lines) = run(guest)?;
    let (long, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.len() == LONG);
    let context = || format!("{outcome:#?}\n{lines:#?}");
    ensure!(outcome.end == GuestEnd::Done { exit: 7 }, "{}", context());
    ensure!(outcome.release.as_ref() == Some(&release), "{}", context());
    ensure!(
        outcome.missing_modules == ["no-such-module"],
        "{}",
        context()
    );
    ensure!(lacks(&outcome, "no-such-tool"), "{}", context());
    ensure!(
        !outcome.failed_modules.iter().any(|module| module.required),
        "{}",
        context()
    );
    for kind in ["ext4", "xfs", "f2fs", "btrfs"] {
        if lacks(&outcome, &format!("mkfs.{kind}")) {
            continue;
        }
        let mounted = format!("{{\"mounted\":\"{kind}\"}}");
        ensure!(lines.contains(&mounted), "{kind} is missing: {}", context());
    }
    ensure!(long.len() == LONG_LINES, "{} long lines came", long.len());
    Ok(())
}

fn lacks(outcome: &GuestOutcome, tool: &str) -> bool {
    outcome.missing_tools.iter().any(|t| t.name == tool)
}

/// A trial is process 1 of a namespace, with the orders in sight should they still be there.
fn nested(suite: &str) -> anyhow::Result<()> {
    let (outcome, lines) = run(guest(suite, "nested")?)?;
    ensure!(outcome.end == GuestEnd::Done { exit: 0 }, "{outcome:#?}");
    ensure!(lines == ["I am process 1 and not init"], "{lines:?}");
    ensure!(outcome.first_damage.is_none(), "{outcome:#?}");
    Ok(())
}

/// Modules as their package unpacks them: without an index, and in a directory that is not ours to write to.
fn unindexed_modules(suite: &str) -> anyhow::Result<()> {
    let kernel = guest(suite, "")?.kernel;
    let all = kernel.modules.context("modules")?;
    let tree = tempfile::tempdir()?;
    let modules = tree.path().join(&kernel.release);
    let kept = modules.join("kernel/fs");
    fs::create_dir_all(&kept)?;
    for module in all.closure(&["ext4".to_owned()]).load {
        let name = module.path.file_name().context("a file name")?;
        fs::copy(&module.path, kept.join(name))?;
    }
    let spec = format!("{}:{}", kernel.image.display(), tree.path().display());
    let again = KernelSpec::parse(&spec)?.resolve()?;
    let closure = again
        .modules
        .context("modules")?
        .closure(&["ext4".to_owned()]);
    ensure!(closure.missing.is_empty(), "{closure:#?}");
    let names: Vec<&str> = closure.load.iter().map(|m| m.name.as_str()).collect();
    ensure!(
        names.ends_with(&["ext4"]) && names.contains(&"jbd2"),
        "{names:?}"
    );
    ensure!(closure.load.iter().all(|m| m.path.starts_with(&modules)));
    ensure!(
        !modules.join("modules.dep").exists(),
        "the index was written there"
    );
    Ok(())
}

fn panics(suite: &str) -> anyhow::Result<()> {
    let (outcome, lines) = run(guest(suite, "panic")?)?;
    ensure!(outcome.end == GuestEnd::Panic, "{outcome:#?}");
    ensure!(
        outcome
            .console_tail
            .iter()
            .any(|line| line.contains("sysrq triggered crash")),
        "{outcome:#?}"
    );
    ensure!(lines == ["before"], "a finished record was lost: {lines:?}");
    Ok(())
}

fn falls_silent(suite: &str) -> anyhow::Result<()> {
    let mut guest = guest(suite, "silence")?;
    guest.silence = Duration::from_secs(12);
    let (outcome, lines) = run(guest)?;
    ensure!(
        outcome.end == GuestEnd::Hung { silent: true },
        "{outcome:#?}"
    );
    ensure!(lines == ["before"], "{lines:?}");
    Ok(())
}

fn takes_too_long(suite: &str) -> anyhow::Result<()> {
    let mut guest = guest(suite, "silence")?;
    guest.deadline = Duration::from_secs(2);
    let started = Instant::now();
    let (outcome, _) = run(guest)?;
    ensure!(
        outcome.end == GuestEnd::Hung { silent: false },
        "{outcome:#?}"
    );
    ensure!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

fn is_interrupted(suite: &str) -> anyhow::Result<()> {
    let (stop, stopper) = std::os::unix::net::UnixStream::pair()?;
    let mut stopper = Some(stopper);
    let started = Instant::now();
    // The first record closes the other end.
    let result =
        guest(suite, "silence")?.run_until(Some(stop.as_fd()), &mut |_| drop(stopper.take()));
    ensure!(
        matches!(result, Err(GuestError::Interrupted)),
        "{result:#?}"
    );
    ensure!(
        started.elapsed() < Duration::from_secs(50),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

/// A kernel cut short is a machine that ends or hangs, and never a good end.
fn truncated_image(suite: &str) -> anyhow::Result<()> {
    let mut guest = guest(suite, "filesystems")?;
    let cut = tempfile::NamedTempFile::new()?;
    let whole = fs::read(&guest.kernel.image)?;
    fs::write(&cut, &whole[..whole.len() / 2])?;
    guest.kernel.image = cut.path().to_owned();
    guest.deadline = Duration::from_secs(20);
    let (outcome, lines) = run(guest)?;
    ensure!(
        !matches!(outcome.end, GuestEnd::Done { .. }),
        "{outcome:#?}"
    );
    ensure!(
        outcome.release.is_none() && lines.is_empty(),
        "{outcome:#?}"
    );
    Ok(())
}

/// SIGKILL to the process that runs a guest takes the machine with it.
fn killed_runner(suite: &str) -> anyhow::Result<()> {
    guest(suite, "silence")?;
    let me = std::env::current_exe()?;
    let mut runner = Command::new(me)
        .arg0(INSIDE)
        .args(["runner", suite])
        .env("PUNCHBENCH_TEST_SUITE", suite)
        .stdout(Stdio::piped())
        .spawn()?;
    // Its first line comes from the guest, so the machine runs.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(
        runner.stdout.take().context("stdout")?,
    ));
    let line = lines.next().context("the runner said nothing")??;
    let machines = children(runner.id())?;
    runner.kill()?;
    runner.wait()?;
    ensure!(line == "before", "{line}");
    let [machine] = machines[..] else {
        bail!("one QEMU expected, found {machines:?}")
    };
    let pid = nix::unistd::Pid::from_raw(machine);
    for _ in 0..100 {
        if nix::sys::signal::kill(pid, None).is_err() || is_zombie(machine) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("QEMU {pid} outlived its runner");
}

fn children(of: u32) -> anyhow::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for task in fs::read_dir(format!("/proc/{of}/task"))? {
        let text = fs::read_to_string(task?.path().join("children"))?;
        pids.extend(text.split_whitespace().flat_map(str::parse::<i32>));
    }
    Ok(pids)
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

// In the guest.

const LONG: usize = 100_000;
const LONG_LINES: usize = 10;

fn inside(job: &str) -> anyhow::Result<u8> {
    if job == "process-1" {
        let mut events = fs::File::from(inherited_events()?);
        std::io::Write::write_all(&mut events, b"I am process 1 and not init")?;
        return Ok(0);
    }
    if job == "runner" {
        let guest = guest(&std::env::var("PUNCHBENCH_TEST_SUITE")?, "silence")?;
        guest.run(&mut |line| println!("{line}"))?;
        return Ok(0);
    }
    let mut records = fs::File::options().write(true).open(init::RECORDS_PATH)?;
    let mut record =
        |line: &str| std::io::Write::write_all(&mut records, format!("{line}\n").as_bytes());
    match job {
        "filesystems" => {
            // Else a process 1 of a namespace in the guest would take itself for init.
            ensure!(
                !Path::new("/punchbench.json").exists(),
                "the orders are still there"
            );
            // The others are asked for by the kernel itself, when they are mounted; no node, no question.
            tool("modprobe", &["-q", "--"], Path::new("loop"))?;
            ensure!(
                !fs::read_to_string("/proc/modules")?.contains("btrfs"),
                "a driver was loaded before it was used"
            );
            for kind in ["ext4", "xfs", "f2fs", "btrfs"] {
                match mounts(kind) {
                    Ok(()) => record(&format!("{{\"mounted\":\"{kind}\"}}"))?,
                    Err(error) => record(&format!("{kind}: {error:#}"))?,
                }
            }
            for _ in 0..LONG_LINES {
                record(&"x".repeat(LONG))?;
            }
            Ok(7)
        }
        "nested" => {
            // As if they had never been taken away: whoever takes itself for init does all this again.
            let orders = format!(
                r#"{{"argv":["{INSIDE}","nested"],"modules":{{"dir":"","modules":{{}},"builtin":[],"soft":{{}},"aliases":{{}}}}}}"#
            );
            fs::write("/punchbench.json", orders)?;
            let (mut said, events) = std::io::pipe()?;
            let null = fs::File::open("/dev/null")?;
            let args = [INSIDE, "process-1"].map(|word| CString::new(word).expect("no NUL in it"));
            let child = Isolated {
                program: c"/proc/self/exe",
                args: &args,
                env: &[],
                stdin: null.as_fd(),
                log: null.as_fd(),
                events: events.as_fd(),
                namespaces: Namespaces::Own,
            }
            .spawn()?;
            drop(events);
            let mut text = String::new();
            std::io::Read::read_to_string(&mut said, &mut text)?;
            nix::sys::wait::waitpid(child.pid, None)?;
            record(&text)?;
            Ok(0)
        }
        "panic" => {
            record("before")?;
            // The record is on its way through init and the port, and a crash waits for nobody.
            std::thread::sleep(Duration::from_secs(1));
            fs::write("/proc/sysrq-trigger", "c")?;
            Ok(0)
        }
        "silence" => {
            record("before")?;
            // As a kernel does that is stuck, and says so.
            loop {
                std::thread::sleep(Duration::from_secs(5));
                fs::write("/dev/kmsg", "still here")?;
            }
        }
        _ => bail!("no such job"),
    }
}

/// Makes an image with the packed mkfs, mounts it through a loop device, and writes and reads a file.
fn mounts(kind: &str) -> anyhow::Result<()> {
    let image = PathBuf::from("/tmp/image");
    fs::File::create(&image)?.set_len(400 << 20)?;
    tool(&format!("mkfs.{kind}"), &[], &image)?;
    let at = Path::new("/mnt");
    tool("mount", &["-t", kind, "-o", "loop", "/tmp/image"], at)?;
    let file = at.join("file");
    fs::write(&file, kind)?;
    ensure!(fs::read_to_string(&file)? == kind, "wrong content");
    tool("umount", &[], at)?;
    fs::remove_file(&image)?;
    Ok(())
}

fn tool(name: &str, args: &[&str], path: &Path) -> anyhow::Result<()> {
    let output = Command::new(name)
        .args(args)
        .arg(path)
        .output()
        .context(name.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{name}: {} {said}", output.status);
    Ok(())
}
