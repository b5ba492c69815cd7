//! Counts what a race really brought into the page cache: folios of more than one page, and windows read
//! ahead asynchronously. "Sequential reads in large folios" is a claim that only the kernel can bear out;
//! its tracepoints do, in a tracing instance of the trial's own, where nobody else's events are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use punchbench_sys::mount;

use crate::tag::Tag;

/// What was counted; a number is absent where the kernel has no such event or it does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Folios {
    /// Folios of more than one page added to the page cache (`filemap:mm_filemap_add_to_page_cache`, whose
    /// `order` is there from 5.17 on).
    pub large: Option<u64>,
    /// Windows read ahead asynchronously (`readahead:page_cache_async_ra`, of 6.18).
    pub readahead: Option<u64>,
}

/// Counts while it is told to. The instance goes when this does, or with the next run's sweep.
#[derive(Debug)]
pub struct FolioCounter {
    /// The large folios' instance and the readahead's; each counts one kind, as a ring buffer only knows
    /// how many events it took.
    large: Option<Instance>,
    readahead: Option<Instance>,
}

impl FolioCounter {
    /// Prepares counting on the filesystem that holds `dir`; `tracing` is an empty directory to mount
    /// tracefs on, in a mount namespace of our own. Errors say what the kernel did not let happen.
    pub fn new(tag: &Tag, tracing: &Path, dir: &Path) -> io::Result<FolioCounter> {
        let (major, minor) = mount::mount_of(dir)?.device;
        // The kernel's own dev_t (MKDEV, include/linux/kdev_t.h).
        let device = (major << 20) | minor;
        fs::create_dir_all(tracing)?;
        let none: Option<&str> = None;
        nix::mount::mount(none, tracing, Some("tracefs"), MsFlags::empty(), none)?;
        let instances = tracing.join("instances");
        let counter = |event: &str, filter: String| {
            let name = format!("{}{}", tag.directory_prefix(), event.replace('/', "-"));
            Instance::new(instances.join(name), event, &filter).ok()
        };
        Ok(FolioCounter {
            large: counter(
                "filemap/mm_filemap_add_to_page_cache",
                format!("s_dev == {device} && order > 0"),
            ),
            readahead: counter(
                "readahead/page_cache_async_ra",
                format!("s_dev == {device}"),
            ),
        })
    }

    /// Counts from now on, or no more.
    pub fn count(&self, on: bool) {
        for instance in [&self.large, &self.readahead].into_iter().flatten() {
            // What cannot be switched counts nothing, and says so.
            let _ = instance.switch(on);
        }
    }

    /// What was counted so far.
    pub fn counted(&self) -> Folios {
        let read = |instance: &Option<Instance>| instance.as_ref()?.events().ok();
        Folios {
            large: read(&self.large),
            readahead: read(&self.readahead),
        }
    }
}

/// One tracing instance (Documentation/trace/ftrace.rst) with one event.
#[derive(Debug)]
struct Instance {
    dir: PathBuf,
}

impl Instance {
    fn new(dir: PathBuf, event: &str, filter: &str) -> io::Result<Instance> {
        fs::create_dir(&dir)?;
        let instance = Instance { dir };
        instance.write("tracing_on", "0")?;
        // Only the numbers are of interest: what is overwritten has been counted.
        instance.write("buffer_size_kb", "16")?;
        instance.write(&format!("events/{event}/filter"), filter)?;
        instance.write(&format!("events/{event}/enable"), "1")?;
        Ok(instance)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.dir.join(file), text)
    }

    fn switch(&self, on: bool) -> io::Result<()> {
        self.write("tracing_on", if on { "1" } else { "0" })
    }

    /// Events in the buffers and those overwritten, over all CPUs.
    fn events(&self) -> io::Result<u64> {
        let mut sum = 0;
        for cpu in fs::read_dir(self.dir.join("per_cpu"))? {
            sum += taken(&fs::read_to_string(cpu?.path().join("stats"))?);
        }
        Ok(sum)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Events that a buffer took, out of its `stats`.
fn taken(stats: &str) -> u64 {
    let of = |word: &str| {
        let value = |line: &str| line.strip_prefix(word)?.trim().parse::<u64>().ok();
        stats.lines().find_map(value).unwrap_or(0)
    };
    of("entries:") + of("overrun:") + of("dropped events:")
}

/// Removes the instances of dead runs; a line for each.
pub(crate) fn sweep() -> Vec<String> {
    let mut lines = Vec::new();
    for root in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        let Ok(instances) = fs::read_dir(Path::new(root).join("instances")) else {
            continue;
        };
        for instance in instances.flatten() {
            let tag = instance.file_name().to_str().and_then(Tag::from_directory);
            if tag.is_some_and(|tag| !tag.is_alive()) {
                let what = match fs::remove_dir(instance.path()) {
                    Ok(()) => "removed".to_owned(),
                    Err(error) => format!("could not be removed ({error})"),
                };
                lines.push(format!(
                    "tracing instance {} of a dead run: {what}",
                    instance.path().display()
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overwritten_has_been_counted() {
        let stats = "entries: 3\noverrun: 40\ncommit overrun: 0\nbytes: 120\ndropped events: 0\nread events: 7\n";
        assert_eq!(taken(stats), 43);
    }
}
