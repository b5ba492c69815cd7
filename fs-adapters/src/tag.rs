//! The tag that everything a trial acquires carries, so that a later run recognises what an earlier one
//! left behind: loop devices (`lo_file_name`), tmpfs mounts (source), processes ([`ENVIRONMENT`]) and
//! directories (name). It names the runner by process id and start time, as ids come round again, and by PID
//! namespace, as the same id elsewhere is another process.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// The environment variable that carries the tag in every process of a trial.
pub const ENVIRONMENT: &str = "PUNCHBENCH_TRIAL";

const PREFIX: &str = "punchbench";
const SHORT: &str = "pb";

/// Names a runner, as seen from outside the trial's own PID namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag {
    pid: u32,
    /// Clock ticks from boot to its start (field 22 of /proc/PID/stat).
    start: u64,
    /// Inode of the PID namespace in which `pid` means it.
    namespace: u64,
}

/// The namespace of the machine's first process, from which every process is seen
/// (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

impl Tag {
    /// The tag of this process; made by the runner, outside the trial's namespaces.
    pub fn of_this_process() -> Tag {
        let pid = std::process::id();
        Tag {
            pid,
            start: start_of(pid).unwrap_or(0),
            namespace: namespace_of("self").unwrap_or(0),
        }
    }

    /// The tag handed down in the environment.
    pub fn from_environment() -> Option<Tag> {
        Tag::parse(&std::env::var(ENVIRONMENT).ok()?)
    }

    /// Reads what [`fmt::Display`] writes, with anything after a further colon.
    pub fn parse(text: &str) -> Option<Tag> {
        let mut words = text.split(':');
        (words.next() == Some(PREFIX)).then_some(())?;
        Tag::from_words(&mut words)
    }

    fn from_words<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Tag> {
        Some(Tag {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
            namespace: words.next()?.parse().ok()?,
        })
    }

    /// The beginning of the names of its directories.
    pub fn directory_prefix(&self) -> String {
        format!("{PREFIX}-{}-{}-{}-", self.pid, self.start, self.namespace)
    }

    /// The same in fewer letters, where a name must be short and a number still follows.
    pub(crate) fn short(&self) -> String {
        format!(
            "{SHORT}-{:x}-{:x}-{:x}",
            self.pid, self.start, self.namespace
        )
    }

    /// The tag in a short name.
    pub(crate) fn from_short(name: &str) -> Option<Tag> {
        let mut words = name.split('-');
        (words.next() == Some(SHORT)).then_some(())?;
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        Some(Tag {
            pid: number()?.try_into().ok()?,
            start: number()?,
            namespace: number()?,
        })
    }

    /// A new directory that a sweep recognises.
    pub(crate) fn new_directory(&self, parent: &Path) -> io::Result<TempDir> {
        tempfile::Builder::new()
            .prefix(&self.directory_prefix())
            .tempdir_in(parent)
    }

    /// The tag in a directory's name.
    pub fn from_directory(name: &str) -> Option<Tag> {
        let mut words = name.split('-');
        (words.next() == Some(PREFIX)).then_some(())?;
        let tag = Tag::from_words(&mut words)?;
        words.next().map(|_| tag)
    }

    /// Whether the runner it names still runs, or may for all that can be seen from here.
    pub fn is_alive(&self) -> bool {
        let ours = namespace_of("self");
        if ours == Some(self.namespace) {
            return start_of(self.pid) == Some(self.start);
        }
        // Of another container: it is dead if its whole namespace is, which only the first one can see.
        ours != Some(FIRST_NAMESPACE) || namespace_is_alive(self.namespace)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}:{}:{}:{}", self.pid, self.start, self.namespace)
    }
}

/// When a process started; `None` if there is none, or only what is left of one until its parent asks.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The inode of a process's PID namespace, out of `pid:[4026531836]`.
fn namespace_of(process: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{process}/ns/pid")).ok()?;
    link.to_str()?
        .strip_prefix("pid:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn namespace_is_alive(namespace: u64) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else {
        return true;
    };
    entries
        .flatten()
        .filter_map(|entry| namespace_of(entry.file_name().to_str()?))
        .any(|other| other == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_back_and_alive() {
        let tag = Tag::of_this_process();
        assert_eq!(Tag::parse(&tag.to_string()), Some(tag.clone()));
        assert_eq!(Tag::parse(&format!("{tag}:ext4")), Some(tag.clone()));
        assert_eq!(
            Tag::from_directory(&format!("{}Xy12", tag.directory_prefix())),
            Some(tag.clone())
        );
        assert!(tag.is_alive());
    }

    #[test]
    fn a_recycled_process_id_is_not_the_runner() {
        let tag = Tag {
            start: 1,
            ..Tag::of_this_process()
        };
        assert!(!tag.is_alive());
    }

    #[test]
    fn a_runner_of_a_namespace_that_is_gone_is_dead_only_where_that_can_be_seen() {
        let tag = Tag {
            namespace: 1,
            ..Tag::of_this_process()
        };
        assert_eq!(
            tag.is_alive(),
            namespace_of("self") != Some(FIRST_NAMESPACE)
        );
        let elsewhere = Tag {
            pid: 1,
            start: 1,
            namespace: namespace_of("self").unwrap(),
        };
        assert!(!elsewhere.is_alive());
    }

    #[test]
    fn others_are_not_ours() {
        assert_eq!(Tag::parse("/var/lib/disk.img"), None);
        assert_eq!(Tag::parse("punchbench:x:1:1"), None);
        assert_eq!(Tag::parse("punchbench:1:2"), None);
        assert_eq!(Tag::from_directory("punchbench-results"), None);
        assert_eq!(Tag::from_directory("punchbench-1-2-3"), None);
    }

    #[test]
    fn it_fits_into_a_loop_device() {
        let longest = Tag {
            pid: u32::MAX,
            start: u64::MAX,
            namespace: u64::from(u32::MAX),
        };
        assert!(longest.to_string().len() < 60);
    }
}
