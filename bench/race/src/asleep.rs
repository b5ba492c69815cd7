//! Whether a process sleeps, and in what: the proof that a call waits, taken from /proc.

/// The top frame of the kernel stack (or the wait channel, or `?` where neither may be read) of a process
/// that sleeps, interruptibly or not; `None` while it runs or is gone.
pub fn asleep(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the state follows the last one.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    if !matches!(state, 'D' | 'S') {
        return None;
    }
    let stack = std::fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
    let top = stack
        .lines()
        .next()
        .and_then(|l| l.split_whitespace().nth(1))
        .map(|f| f.split('+').next().unwrap_or(f).to_string());
    let wchan = || {
        std::fs::read_to_string(format!("/proc/{pid}/wchan"))
            .ok()
            .filter(|w| w != "0")
    };
    Some(format!(
        "{} ({state})",
        top.or_else(wchan).unwrap_or_else(|| "?".into())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_sleeps_and_a_spinner_does_not() {
        let sleeper = punchbench_sys::process::fork(|| {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        });
        let sleeper = sleeper.unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while asleep(sleeper.pid()).is_none() {
            assert!(std::time::Instant::now() < until, "it never fell asleep");
        }
        let spinner = punchbench_sys::process::fork(|| {
            loop {
                std::hint::spin_loop();
            }
        });
        assert_eq!(asleep(spinner.unwrap().pid()), None);
        assert_eq!(asleep(-1), None);
    }
}
