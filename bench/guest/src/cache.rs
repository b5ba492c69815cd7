//! The kernels that were fetched, kept between runs: one directory each, complete or not there at all, since
//! each is made beside its place and moved there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::debian::{self, DebianKernel};
use crate::error::{GuestError, IoContext};
use crate::kernel::{DEBIAN, Kernel, KernelSpec};

/// What is being fetched or removed, or was when somebody was killed at it.
const PARTIAL: &str = "partial-";
/// Before the rest of the name, in the name of a directory.
const HOME: &str = "debian-";

/// A kernel in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedKernel {
    /// What to give `--kernel` for it.
    pub name: String,
    /// Its release, or what is wrong with it.
    pub release: Result<String, String>,
    /// Where it lies.
    pub path: PathBuf,
    /// What it takes on the disk.
    pub bytes: u64,
}

/// The kernels that were fetched, by name.
pub fn list() -> Result<Vec<CachedKernel>, GuestError> {
    Cache::of_this_user()?.list()
}

/// Fetches a kernel if it is not there yet.
pub fn fetch(spec: &KernelSpec) -> Result<Kernel, GuestError> {
    Cache::of_this_user()?.fetch(debian(spec)?)
}

/// Removes a fetched kernel, and gives what was removed.
pub fn remove(spec: &KernelSpec) -> Result<CachedKernel, GuestError> {
    Cache::of_this_user()?.remove(debian(spec)?)
}

fn debian(spec: &KernelSpec) -> Result<&DebianKernel, GuestError> {
    match spec {
        KernelSpec::Debian(kernel) => Ok(kernel),
        KernelSpec::Image { image, .. } => Err(GuestError::BadSpec {
            spec: image.display().to_string(),
            why: "a kernel on this machine is neither fetched nor kept".to_owned(),
        }),
    }
}

struct Cache {
    dir: PathBuf,
}

impl Cache {
    fn of_this_user() -> Result<Self, GuestError> {
        let base = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let dir = base
            .or_else(home)
            .map(|dir| dir.join("punchbench/kernels"))
            .ok_or_else(|| GuestError::Io {
                action: "choose a cache directory: set HOME or",
                path: "XDG_CACHE_HOME".into(),
                error: std::io::ErrorKind::NotFound.into(),
            })?;
        Ok(Self { dir })
    }

    fn home(&self, kernel: &DebianKernel) -> PathBuf {
        // Their names hold neither a '-' before it nor a '/' after it.
        let name = kernel.to_string().replacen(DEBIAN, HOME, 1);
        self.dir.join(name.replacen('/', "-", 1))
    }

    /// One change at a time; who waited here finds the other's work done.
    fn lock(&self) -> Result<File, GuestError> {
        fs::create_dir_all(&self.dir).context("create the kernel cache", &self.dir)?;
        let path = self.dir.join("lock");
        let lock = File::create(&path).context("create", &path)?;
        lock.lock().context("lock", &path)?;
        self.remove_unfinished()?;
        Ok(lock)
    }

    /// What a killed change left; the lock is held, so nobody is at work in it.
    fn remove_unfinished(&self) -> Result<(), GuestError> {
        for entry in fs::read_dir(&self.dir)
            .context("read", &self.dir)?
            .flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path()).context("remove", &entry.path())?;
            }
        }
        Ok(())
    }

    fn partial(&self) -> Result<tempfile::TempDir, GuestError> {
        tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempdir_in(&self.dir)
            .context("create a directory in", &self.dir)
    }

    fn fetch(&self, kernel: &DebianKernel) -> Result<Kernel, GuestError> {
        let _lock = self.lock()?;
        let home = self.home(kernel);
        if !home.is_dir() {
            let partial = self.partial()?;
            let tree = partial.path().join("tree");
            debian::download(kernel, &tree)?;
            debian::find_kernel(kernel, &tree)?;
            fs::rename(&tree, &home).context("move the fetched kernel to", &home)?;
        }
        debian::find_kernel(kernel, &home)
    }

    fn list(&self) -> Result<Vec<CachedKernel>, GuestError> {
        let mut kernels = Vec::new();
        // Nothing was fetched yet where there is no directory.
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kernel = name
                .strip_prefix(HOME)
                .and_then(|name| DebianKernel::parse(&name.replacen('-', "/", 1)).ok());
            if let Some(kernel) = kernel {
                kernels.push(self.describe(&kernel)?);
            }
        }
        kernels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(kernels)
    }

    fn remove(&self, kernel: &DebianKernel) -> Result<CachedKernel, GuestError> {
        let _lock = self.lock()?;
        let home = self.home(kernel);
        if !home.is_dir() {
            return Err(GuestError::NotFetched {
                name: kernel.to_string(),
                cache: self.dir.clone(),
            });
        }
        let removed = self.describe(kernel)?;
        // All at once for whoever looks; the directory takes it along when it is dropped.
        let partial = self.partial()?;
        fs::rename(&home, partial.path().join("tree")).context("remove", &home)?;
        partial.close().context("remove", &home)?;
        Ok(removed)
    }

    fn describe(&self, kernel: &DebianKernel) -> Result<CachedKernel, GuestError> {
        let path = self.home(kernel);
        Ok(CachedKernel {
            name: kernel.to_string(),
            release: debian::find_kernel(kernel, &path)
                .map(|found| found.release)
                .map_err(|error| error.to_string()),
            bytes: bytes_below(&path).context("read", &path)?,
            path,
        })
    }
}

fn bytes_below(dir: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Not followed where it is a link.
        let about = entry.metadata()?;
        bytes += if about.is_dir() {
            bytes_below(&entry.path())?
        } else {
            about.blocks() * 512
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::boot_image;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().expect("tempdir");
        let cache = Cache {
            dir: dir.path().join("kernels"),
        };
        (dir, cache)
    }

    fn suite(name: &str) -> DebianKernel {
        DebianKernel::parse(name).expect("suite")
    }

    fn put(cache: &Cache, name: &str) {
        let home = cache.home(&suite(name));
        let modules = home.join("lib/modules/6.1.0-x");
        fs::create_dir_all(&modules).expect("mkdir");
        fs::create_dir_all(home.join("boot")).expect("mkdir");
        fs::write(home.join("boot/vmlinuz-6.1.0-x"), boot_image("6.1.0-x")).expect("write");
        fs::write(modules.join("modules.dep"), "").expect("write");
    }

    #[test]
    fn what_was_fetched_is_listed_and_can_be_removed() {
        let (_dir, cache) = cache();
        assert_eq!(cache.list().expect("list"), []);
        put(&cache, "bookworm");
        fs::create_dir(cache.home(&suite("sid/user-mode-linux"))).expect("mkdir");
        let kernels = cache.list().expect("list");
        let names: Vec<&str> = kernels.iter().map(|k| k.name.as_str()).collect();
        assert_eq!(names, ["debian:bookworm", "debian:sid/user-mode-linux"]);
        assert_eq!(kernels[0].release.as_deref(), Ok("6.1.0-x"));
        assert!(kernels[0].bytes >= 4096);
        assert!(kernels[1].release.is_err(), "it holds no kernel");
        assert_eq!(
            cache.fetch(&suite("bookworm")).expect("cached").release,
            "6.1.0-x"
        );

        assert_eq!(
            cache.remove(&suite("bookworm")).expect("remove"),
            kernels[0]
        );
        assert!(!cache.home(&suite("bookworm")).exists());
        let error = cache
            .remove(&suite("bookworm"))
            .expect_err("gone")
            .to_string();
        assert!(error.contains("kernel list"), "{error}");
    }

    #[test]
    fn what_a_killed_change_left_is_taken_away_by_the_next() {
        let (_dir, cache) = cache();
        put(&cache, "bookworm");
        let left = cache.dir.join("partial-x/tree");
        fs::create_dir_all(&left).expect("mkdir");
        cache.fetch(&suite("bookworm")).expect("cached");
        assert!(!left.exists() && cache.home(&suite("bookworm")).exists());
    }

    #[test]
    fn a_kernel_on_this_machine_is_not_the_cache_s() {
        let spec = KernelSpec::parse("/boot/vmlinuz").expect("spec");
        assert!(matches!(debian(&spec), Err(GuestError::BadSpec { .. })));
    }
}
