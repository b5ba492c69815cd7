//! The modules that belong to a kernel: found from whichever directory the user named, refused if they were
//! built for another release, and indexed where nobody ran depmod(8) yet, in a place of our own: the
//! directory may be read-only, or somebody's build.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{GuestError, IoContext};
use crate::host;
use crate::modules::{ModuleIndex, read_module};

/// What depmod writes, and its presence says that it ran.
const INDEX: &str = "modules.dep";
/// Opens the release in a module's own words (include/linux/vermagic.h).
const VERMAGIC: &[u8] = b"vermagic=";

/// The index of `release`'s modules: `dir` itself holds them, or has a directory of that name below it, as
/// /lib/modules or a tree with lib/modules has.
pub(crate) fn index(dir: &Path, release: &str) -> Result<ModuleIndex, GuestError> {
    let dir = find(dir, release)?;
    let index = if dir.join(INDEX).is_file() {
        ModuleIndex::read(&dir)?
    } else {
        indexed_elsewhere(&dir, release)?.at(&dir)
    };
    check_release(&index, &dir, release)?;
    Ok(index)
}

/// Indexes the modules of `release` below `tree`/lib/modules in place.
pub(crate) fn depmod(tree: &Path, release: &str) -> Result<(), GuestError> {
    let depmod = host::require("depmod", "modules are indexed with it", "kmod")?;
    host::run(Command::new(depmod).arg("-b").arg(tree).arg(release))
}

fn find(dir: &Path, release: &str) -> Result<PathBuf, GuestError> {
    let places = ["", "lib/modules", "usr/lib/modules"].map(|below| dir.join(below));
    for place in &places {
        if place.join(release).is_dir() {
            return Ok(place.join(release));
        }
    }
    if dir.join(INDEX).is_file() || dir.join("kernel").is_dir() {
        return Ok(dir.to_owned());
    }
    let mut others: Vec<String> = Vec::new();
    for place in &places {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let of_kernels = entries.filter(|entry| {
            let path = entry.path();
            path.join(INDEX).is_file() || path.join("kernel").is_dir()
        });
        others.extend(of_kernels.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    others.sort();
    let why = match fs::read_dir(dir) {
        Err(error) => error.to_string(),
        Ok(_) if others.is_empty() => "it holds no modules".to_owned(),
        Ok(_) => format!("it holds those of {}", others.join(", ")),
    };
    Err(GuestError::BadModules {
        path: dir.to_owned(),
        release: release.to_owned(),
        why,
    })
}

/// depmod follows links, and takes any tree that looks like lib/modules/RELEASE.
fn indexed_elsewhere(dir: &Path, release: &str) -> Result<ModuleIndex, GuestError> {
    let tree = tempfile::Builder::new()
        .prefix("punchbench-modules-")
        .tempdir()
        .context("create a directory in", &std::env::temp_dir())?;
    let modules = tree.path().join("lib/modules").join(release);
    fs::create_dir_all(&modules).context("create", &modules)?;
    let dir = fs::canonicalize(dir).context("find", dir)?;
    for entry in fs::read_dir(&dir).context("read", &dir)?.flatten() {
        // `build` and `source` lead to a kernel's sources, with modules of whatever was built there.
        if entry.file_name() != "build" && entry.file_name() != "source" {
            let link = modules.join(entry.file_name());
            symlink(entry.path(), &link).context("link", &link)?;
        }
    }
    depmod(tree.path(), release)?;
    ModuleIndex::read(&modules)
}

/// The kernel refuses modules of another release one by one; said once, beforehand, it is clearer.
fn check_release(index: &ModuleIndex, dir: &Path, release: &str) -> Result<(), GuestError> {
    let Some(module) = index.any() else {
        return Ok(());
    };
    let bytes = read_module(&module)?;
    match built_for(&bytes) {
        Some(other) if other != release => Err(GuestError::BadModules {
            path: dir.to_owned(),
            release: release.to_owned(),
            why: format!("{} is of {other}", module.display()),
        }),
        _ => Ok(()),
    }
}

fn built_for(module: &[u8]) -> Option<String> {
    let at = module
        .windows(VERMAGIC.len())
        .position(|window| window == VERMAGIC)?;
    let text = &module[at + VERMAGIC.len()..];
    let word = text.split(|byte| !byte.is_ascii_graphic()).next()?;
    Some(String::from_utf8_lossy(word).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "6.1.0-x";

    /// A modules directory with one module, as its package unpacks it.
    fn tree(release: &str) -> (tempfile::TempDir, PathBuf) {
        let tree = tempfile::tempdir().expect("tempdir");
        let modules = tree.path().join("lib/modules").join(RELEASE);
        fs::create_dir_all(modules.join("kernel/fs")).expect("mkdir");
        let module = format!("\x7fELF\0vermagic={release} SMP mod_unload \0");
        fs::write(modules.join("kernel/fs/some.ko"), module).expect("write");
        (tree, modules)
    }

    fn with_index(modules: &Path) {
        fs::write(modules.join(INDEX), "kernel/fs/some.ko:\n").expect("write");
    }

    #[test]
    fn modules_are_found_from_above_and_from_inside() {
        let (tree, modules) = tree(RELEASE);
        with_index(&modules);
        for dir in [tree.path(), &tree.path().join("lib/modules"), &modules] {
            let index = index(dir, RELEASE).expect("index");
            assert_eq!(index.any(), Some(modules.join("kernel/fs/some.ko")));
        }
    }

    #[test]
    fn modules_of_another_release_are_refused() {
        let (tree, modules) = tree("6.9.0");
        with_index(&modules);
        let error = |dir: &Path, release| {
            index(dir, release)
                .expect_err("another release's")
                .to_string()
        };
        let text = error(tree.path(), "6.2.0");
        assert!(text.contains("6.2.0") && text.contains(RELEASE), "{text}");
        let text = error(&modules, RELEASE);
        assert!(text.contains("6.9.0"), "{text}");
        let text = error(&tree.path().join("lib"), RELEASE);
        assert!(text.contains("no modules"), "{text}");
        assert!(error(Path::new("/nonexistent"), RELEASE).contains("No such file"));
    }
}
