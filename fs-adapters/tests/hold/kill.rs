//! Who holds, or whom something holds, is killed: whatever was held goes on, and nothing is left behind.

use super::*;

/// What the server held comes back with an error, and everything can be taken down.
pub fn kill_server() -> Outcome {
    let work = tempfile::tempdir()?;
    let tag = Tag::of_this_process();
    let mounted = set_up("ext4", true, &tag, work.path())?;
    let file = prepare(&mounted, "victim")?;
    let block = block_of(&mounted, &file, FAR)?;
    let holder = holder(&mounted)?;
    let hold = holder.hold(&HoldSpec::reads(vec![block]), PATIENCE)?;
    let reader =
        actor(|| page_of(&file, FAR).is_err_and(|e| e.raw_os_error() == Some(nix::libc::EIO)))?;
    holder.wait_held(hold, PATIENCE)?.ok_or("it was not held")?;
    let server = servers_of(&tag).pop().ok_or("no server")?;
    let began = Instant::now();
    kill(Pid::from_raw(server), Signal::SIGKILL)?;
    ended_well(reader, "the read")?;
    assert!(matches!(holder.held(), Err(HoldError::Gone(_))));
    drop(file);
    let device = mounted.device_name().unwrap_or_default();
    drop(mounted);
    let took = began.elapsed();
    assert!(took < PATIENCE / 2, "it took {took:?}");
    let left: Vec<_> = loopdev::in_use()?
        .into_iter()
        .filter(|d| format!("loop{}", d.number) == device)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    println!("all was gone {took:?} after the server's death");
    Ok(Completion::Completed)
}

/// The processes that carry a tag and serve images.
fn servers_of(tag: &Tag) -> Vec<i32> {
    tagged(&tag.to_string())
        .into_iter()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|b| *b == 0).nth(1) == Some(SERVE_IMAGE.as_bytes()))
        })
        .collect()
}

/// The processes that carry a tag.
fn tagged(tag: &str) -> Vec<i32> {
    let variable = format!("{ENVIRONMENT}={tag}");
    let all = fs::read_dir("/proc").into_iter().flatten();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|b| *b == 0)
                    .any(|v| v == variable.as_bytes())
            })
        })
        .collect()
}

/// How far a trial gets before somebody dies.
pub const STAGES: [&str; 3] = ["served", "mounted", "parked"];

/// A trial: comes to a stage, says so on its event descriptor, and waits for ever.
pub fn trial(stage: &str, work: &str) -> Result<(), Failed> {
    let mut events = File::from(inherited_events()?);
    let tag = Tag::from_environment().ok_or("no tag")?;
    let work = Path::new(work);
    let background = |_: u64, bytes: &mut [u8]| bytes.fill(0xE5);
    let mut keep: Vec<Box<dyn std::any::Any>> = Vec::new();
    let mut actors = Vec::new();
    if stage == "served" {
        let image = tempfile::tempfile_in("/dev/shm")?;
        image.set_len(16 << 20)?;
        let (server, file) = ImageServer::start(&image, &tag, work)?;
        let device = LoopDevice::attach_to_new(&file, &tag.to_string(), true, work)?;
        let hold = server.hold(&HoldSpec::reads_outside(Vec::new()), PATIENCE)?;
        let path = device.path().to_owned();
        actors.push(actor(|| {
            File::open(path).is_ok_and(|device| page_of(&device, 0).is_ok())
        })?);
        server.wait_held(hold, PATIENCE)?.ok_or("it was not held")?;
        keep.extend([Box::new(device) as Box<dyn std::any::Any>, Box::new(server)]);
    } else {
        let env = SetUp {
            hold: Some(HolderKind::ImageServer),
            ..SetUp::new(&tag, work, &background)
        };
        let mounted = Target::parse("ext4")?.set_up(&env)?;
        let file = prepare(&mounted, "victim")?;
        if stage == "parked" {
            let block = block_of(&mounted, &file, EDGE)?;
            let holder = holder(&mounted)?;
            let hold = holder.hold(&HoldSpec::reads(vec![block]), PATIENCE)?;
            actors.push(actor(|| punch(&file))?);
            holder.wait_held(hold, PATIENCE)?.ok_or("it was not held")?;
            actors.push(actor(|| page_of(&file, MIDDLE[0]).is_ok())?);
            asleep(&actors[1], At::Any, "the read")?;
        } else {
            // What is dirty is to be written after the server's death too.
            file.write_all_at(&[7; 1 << 20], 0)?;
        }
        keep.extend([Box::new(file) as Box<dyn std::any::Any>, Box::new(mounted)]);
    }
    events.write_all(b"there\n")?;
    // Its death is what is waited for; an orderly end would be another test.
    let mut end = String::new();
    std::io::stdin().read_to_string(&mut end)?;
    std::mem::forget((keep, actors));
    Ok(())
}

/// A runner: starts a trial in namespaces of its own, passes on what it says, and waits for ever.
pub fn runner(stage: &str, work: &str) -> Result<(), Failed> {
    let (events, theirs) = std::io::pipe()?;
    let (orders, _ours) = std::io::pipe()?;
    let args = ["hold", TRIAL, stage, work].map(|word| CString::new(word).expect("no NUL"));
    let tag = Tag::of_this_process();
    let mut env = vec![CString::new(format!("{ENVIRONMENT}={tag}")).expect("no NUL")];
    let path = std::env::var("PATH").unwrap_or_default();
    env.push(CString::new(format!("PATH={path}")).expect("no NUL"));
    let child = Isolated {
        program: c"/proc/self/exe",
        args: &args,
        env: &env,
        stdin: orders.as_fd(),
        log: std::io::stderr().as_fd(),
        events: theirs.as_fd(),
        namespaces: Namespaces::Own,
    }
    .spawn()?;
    drop(theirs);
    let mut line = String::new();
    BufReader::new(events).read_line(&mut line)?;
    println!("{} {tag} {}", line.trim(), child.pid);
    std::io::stdout().flush()?;
    waitpid(child.pid, None)?;
    println!("ended");
    Ok(())
}

/// Kills one of the three at a stage, and looks for what is left.
pub fn kill_one(victim: &'static str, stage: &'static str) -> Outcome {
    let work = tempfile::tempdir()?;
    let before = loopdev::in_use()?;
    let mut runner = Command::new("/proc/self/exe")
        .args([RUNNER, stage])
        .arg(work.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(runner.stdout.take().ok_or("no pipe")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["there", tag, trial] = words[..] else {
        let _ = runner.kill();
        runner.wait()?;
        return Err(format!("the trial did not come to {stage}: {line:?}").into());
    };
    let tag = Tag::parse(tag).ok_or("no tag")?;
    let servers = servers_of(&tag);
    assert_eq!(servers.len(), 1, "servers: {servers:?}");
    let began = Instant::now();
    let pid = match victim {
        RUNNER => i32::try_from(runner.id())?,
        TRIAL => trial.parse()?,
        _ => servers[0],
    };
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    if victim == SERVE_IMAGE {
        // The trial itself goes on, with I/O errors; its actors are to be free, so that it can be ended.
        let trial: i32 = trial.parse()?;
        until(
            || children_in_d(&tag.to_string()).is_empty(),
            || format!("{:#?}", children_in_d(&tag.to_string())),
        )?;
        kill(Pid::from_raw(trial), Signal::SIGKILL)?;
    }
    if victim == RUNNER {
        runner.wait()?;
    }
    let work_dir = work.path().to_owned();
    let left = || left_of(&tag, &work_dir, before.len());
    until(|| left().is_empty(), || format!("{:#?}", left()))?;
    println!(
        "{victim} killed at {stage}: nothing left after {:?}",
        began.elapsed()
    );
    if victim != RUNNER {
        runner.wait()?;
    }
    Ok(Completion::Completed)
}

/// No event tells that other processes, devices and mounts have gone.
fn until(mut done: impl FnMut() -> bool, what: impl Fn() -> String) -> Result<(), Failed> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            return Err(what().into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn children_in_d(tag: &str) -> Vec<observe::Task> {
    let all = tagged(tag).into_iter().flat_map(observe::tasks);
    all.filter(observe::Task::is_asleep).collect()
}

fn left_of(tag: &Tag, work: &Path, devices_before: usize) -> Vec<String> {
    let tag = tag.to_string();
    let mut left: Vec<String> = tagged(&tag)
        .iter()
        .map(|p| format!("process {p}"))
        .collect();
    let devices = loopdev::in_use().unwrap_or_default();
    let ours = devices.iter().filter(|d| d.tag == tag);
    left.extend(ours.map(|d| format!("loop{}", d.number)));
    if devices.len() < devices_before {
        left.push("another's loop device is gone".to_owned());
    }
    let work = work.to_string_lossy().into_owned();
    let all = fs::read_dir("/proc").into_iter().flatten();
    for pid in all.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok()) {
        let table = mount::table_of(&pid.to_string()).unwrap_or_default();
        let ours = table
            .iter()
            .filter(|e| e.source == tag || e.at.to_string_lossy().contains(&work));
        left.extend(ours.map(|e| format!("{} mount of process {pid}", e.fstype)));
    }
    left
}

/// A server that lives on with its device after its runner, as one that hangs would.
pub fn sweep_up() -> Outcome {
    let work = tempfile::tempdir()?;
    // A runner that is no more: this process, with another start.
    let ours = Tag::of_this_process().to_string();
    let mut words: Vec<&str> = ours.split(':').collect();
    words[2] = "1";
    let dead = Tag::parse(&words.join(":")).ok_or("no tag")?;
    assert!(!dead.is_alive());
    let image = tempfile::tempfile_in("/dev/shm")?;
    image.set_len(16 << 20)?;
    let (server, file) = ImageServer::start(&image, &dead, work.path())?;
    let device = LoopDevice::attach_to_new(&file, &dead.to_string(), true, work.path())?;
    drop(file);
    let hold = server.hold(&HoldSpec::reads_outside(Vec::new()), PATIENCE)?;
    let path: PathBuf = device.path().to_owned();
    let reader = actor(|| File::open(path).is_ok_and(|device| page_of(&device, 0).is_err()))?;
    server.wait_held(hold, PATIENCE)?.ok_or("it was not held")?;
    // A server that is stopped answers nothing, as one that hangs.
    kill(Pid::from_raw(server.pid().try_into()?), Signal::SIGSTOP)?;
    let lines = sweep(&[])?;
    ended_well(reader, "the read")?;
    let aborted = format!("FUSE connection {}", server.connection());
    assert!(
        lines
            .iter()
            .any(|l| l.contains(&aborted) && l.ends_with("aborted")),
        "{lines:#?}"
    );
    let number = device.number();
    assert!(
        lines.iter().any(|l| l.contains(&format!("loop{number}"))),
        "{lines:#?}"
    );
    drop((device, server));
    let left: Vec<_> = loopdev::in_use()?
        .into_iter()
        .filter(|d| d.number == number)
        .collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(Completion::Completed)
}
