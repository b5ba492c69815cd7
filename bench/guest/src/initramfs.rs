//! The guest's whole root: the program as init, the tools it calls, the libraries of all of them, the
//! kernel's modules and what to do, in one archive. Files keep the paths they have on the host, and
//! symbolic links stay links (mkfs.ext4 is one to mke2fs, and tools look at the name they are called by).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::cpio::Archive;
use crate::error::{GuestError, IoContext};
use crate::host;
use crate::modules::{Module, ModuleIndex, read_module};
use crate::run::FailedModule;
use crate::slim::loaded_part;

/// What the guest's init reads to know what to do.
pub(crate) const ORDERS_PATH: &str = "/punchbench.json";
/// Where the program itself lies in the guest.
pub(crate) const PROGRAM_PATH: &str = "/init";
/// Where modules lie there.
pub(crate) const MODULES_DIR: &str = "/modules";

const DIRECTORIES: [&str; 10] = [
    "/dev",
    "/proc",
    "/sys",
    "/tmp",
    "/run",
    "/mnt",
    "/root",
    "/etc",
    "/var",
    MODULES_DIR,
];
/// Settings that tools look for; each is packed if the host has it. The last lets the loader find
/// libraries outside the usual directories.
const SETTINGS: [&str; 4] = [
    "/etc/mke2fs.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/ld.so.cache",
];
/// For messages: the file itself has no name.
const NAME: &str = "the initramfs";
/// Longer chains of links are loops.
const MAX_LINKS: usize = 40;

/// What init is to do.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The command line, run as [`PROGRAM_PATH`].
    pub(crate) argv: Vec<String>,
    /// The modules that came along.
    pub(crate) modules: ModuleIndex,
}

/// A tool that is not in the guest, because of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTool {
    /// Its name.
    pub name: String,
    /// Why it could not be packed.
    pub why: String,
}

/// What was asked for and is not in an initramfs.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    pub(crate) tools: Vec<MissingTool>,
    pub(crate) modules: Vec<FailedModule>,
}

/// What goes into an initramfs.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    pub(crate) program: &'a Path,
    pub(crate) argv: &'a [String],
    /// Names of programs.
    pub(crate) tools: &'a [String],
    /// Below the root, and what is in them.
    pub(crate) files: &'a [(String, Vec<u8>)],
    pub(crate) modules: &'a [Module],
    /// What is known of them, and of others that do not come along.
    pub(crate) index: &'a ModuleIndex,
}

impl Contents<'_> {
    /// Writes the archive and gives what could not be put into it. Other trials need it no less for that.
    pub(crate) fn write(&self, file: &File) -> Result<LeftOut, GuestError> {
        let mut pack = Pack {
            archive: Archive::new(BufWriter::new(file)),
            packed: BTreeSet::new(),
        };
        pack.skeleton()?;
        let mut left_out = LeftOut::default();
        for tool in self.tools {
            if let Err(why) = pack.tool(tool)? {
                let name = tool.clone();
                left_out.tools.push(MissingTool { name, why });
            }
        }
        for setting in SETTINGS.map(Path::new) {
            if setting.exists() {
                pack.host_path(setting)?;
            }
        }
        pack.libraries(self.program)?;
        let program = fs::read(self.program).context("read", self.program)?;
        pack.put(PROGRAM_PATH, 0o755, &loaded_part(program))?;
        for (name, data) in self.files {
            pack.put(name, 0o644, data)?;
        }
        let packed = pack.modules(self.modules, &mut left_out.modules)?;
        let modules = self.index.of_packed(Path::new(MODULES_DIR), &packed);
        let orders = Orders {
            argv: self.argv.to_vec(),
            modules,
        };
        let orders = serde_json::to_vec(&orders).expect("strings always serialize");
        pack.put(ORDERS_PATH, 0o644, &orders)?;
        pack.archive.finish().context("write", Path::new(NAME))?;
        Ok(left_out)
    }
}

struct Pack<'a> {
    archive: Archive<BufWriter<&'a File>>,
    packed: BTreeSet<PathBuf>,
}

impl Pack<'_> {
    fn skeleton(&mut self) -> Result<(), GuestError> {
        for directory in DIRECTORIES {
            self.packed.insert(directory.into());
            self.archive
                .directory(directory)
                .context("write", Path::new(NAME))?;
        }
        // Open as init's output before init could mount anything.
        self.archive
            .character_device("/dev/console", 0o600, (5, 1))
            .context("write", Path::new(NAME))?;
        self.archive
            .symlink("/etc/mtab", b"/proc/self/mounts")
            .context("write", Path::new(NAME))
    }

    /// A program of the host with all it needs to start, or why it cannot be had.
    fn tool(&mut self, name: &str) -> Result<Result<(), String>, GuestError> {
        let Some(path) = host::find(name) else {
            return Ok(Err(format!("{name} is not installed here")));
        };
        match libraries(&path) {
            Ok(libraries) => {
                self.host_path(&path)?;
                for library in libraries {
                    self.host_path(&library)?;
                }
                Ok(Ok(()))
            }
            Err(error @ GuestError::MissingProgram { .. }) => Err(error),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn libraries(&mut self, program: &Path) -> Result<(), GuestError> {
        for library in libraries(program)? {
            self.host_path(&library)?;
        }
        Ok(())
    }

    /// A host's path with all its directories and links, each once.
    fn host_path(&mut self, path: &Path) -> Result<(), GuestError> {
        self.follow(path, 0)
    }

    fn follow(&mut self, path: &Path, links: usize) -> Result<(), GuestError> {
        let mut here = PathBuf::from("/");
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            match part {
                Component::Normal(name) => here.push(name),
                Component::ParentDir => {
                    here.pop();
                    continue;
                }
                _ => continue,
            }
            let kind = fs::symlink_metadata(&here).context("look at", &here)?;
            let new = self.packed.insert(here.clone());
            let name = here.to_string_lossy().into_owned();
            if kind.is_symlink() {
                let target = fs::read_link(&here).context("read the link", &here)?;
                if new {
                    self.archive
                        .symlink(&name, target.as_os_str().as_bytes())
                        .context("write", Path::new(NAME))?;
                }
                if links == MAX_LINKS {
                    let looped = std::io::Error::from(nix::errno::Errno::ELOOP);
                    return Err(looped).context("follow the link", path);
                }
                here.pop();
                return self.follow(&here.join(target).join(parts.as_path()), links + 1);
            } else if kind.is_dir() {
                if new {
                    self.archive
                        .directory(&name)
                        .context("write", Path::new(NAME))?;
                }
            } else if new {
                self.copy(&here.clone(), &name)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, to: &str) -> Result<(), GuestError> {
        let mode = fs::metadata(from)
            .context("look at", from)?
            .permissions()
            .mode();
        let data = fs::read(from).context("read", from)?;
        self.put(to, mode, &data)
    }

    fn put(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<(), GuestError> {
        self.archive
            .file(name, mode, data)
            .context("write", Path::new(NAME))
    }

    /// Gives the names of those that were packed.
    fn modules<'m>(
        &mut self,
        modules: &'m [Module],
        left_out: &mut Vec<FailedModule>,
    ) -> Result<Vec<&'m str>, GuestError> {
        let mut packed = Vec::new();
        for module in modules {
            let data = match read_module(&module.path) {
                Ok(data) => data,
                Err(error @ GuestError::MissingProgram { .. }) => return Err(error),
                Err(error) => {
                    left_out.push(FailedModule {
                        name: module.name.clone(),
                        required: module.required,
                        error: error.to_string(),
                    });
                    continue;
                }
            };
            let path = format!("{MODULES_DIR}/{}.ko", module.name);
            self.put(&path, 0o644, &data)?;
            packed.push(module.name.as_str());
        }
        Ok(packed)
    }
}

/// The shared libraries a program starts with, and its loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, GuestError> {
    let ldd = host::require(
        "ldd",
        "a guest's libraries are found with it",
        "libc-bin (glibc elsewhere)",
    )?;
    match host::output(Command::new(ldd).arg(program)) {
        Ok(text) => parse_ldd(program, &String::from_utf8_lossy(&text)),
        // A static program or a script has none.
        Err(GuestError::Program { output, .. }) if output.contains("not a dynamic executable") => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// `name => /path (address)`, `/loader (address)`, `linux-vdso.so.1 (address)`
fn parse_ldd(program: &Path, text: &str) -> Result<Vec<PathBuf>, GuestError> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.ends_with("=> not found") {
            return Err(GuestError::BadImage {
                path: program.to_owned(),
                why: format!("a library is missing: {line}"),
            });
        }
        let found = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = found.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            paths.push(path.into());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_lines() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        let program = Path::new("/p");
        let expected = [
            PathBuf::from("/lib/x/libc.so.6"),
            PathBuf::from("/lib64/ld.so"),
        ];
        assert_eq!(parse_ldd(program, text).expect("libraries"), expected);
        assert!(
            parse_ldd(program, "\tstatically linked\n")
                .expect("static")
                .is_empty()
        );
        assert!(parse_ldd(program, "\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn what_cannot_be_packed_is_told_and_the_rest_is_packed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let module = |name: &str, required| Module {
            name: name.to_owned(),
            path: dir.path().join(format!("{name}.ko")),
            required,
        };
        let modules = [module("gone", true), module("here", false)];
        fs::write(&modules[1].path, "the module's bytes").expect("write");
        let out = tempfile::NamedTempFile::new().expect("tempfile");
        let left_out = Contents {
            program: Path::new("/bin/sh"),
            argv: &[],
            tools: &["no-such-tool".to_owned(), "sh".to_owned()],
            files: &[("/a-file".to_owned(), b"what it holds".to_vec())],
            modules: &modules,
            index: &ModuleIndex::default(),
        }
        .write(out.as_file())
        .expect("write");
        let names: Vec<&str> = left_out.tools.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["no-such-tool"]);
        assert!(left_out.tools[0].why.contains("not installed"));
        let [gone] = &left_out.modules[..] else {
            panic!("{left_out:?}")
        };
        assert!(gone.required && gone.name == "gone" && gone.error.contains("gone.ko"));
        let packed = fs::read(out.path()).expect("read");
        let text = String::from_utf8_lossy(&packed);
        assert!(text.contains("a-file\0") && text.contains("what it holds"));
        assert!(text.contains("the module's bytes") && !text.contains("modules/gone.ko"));
    }

    #[test]
    fn links_are_kept_and_everything_is_packed_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = fs::canonicalize(dir.path()).expect("canonical");
        fs::create_dir_all(root.join("usr/sbin")).expect("mkdir");
        fs::write(root.join("usr/sbin/mke2fs"), "#!/bin/true").expect("write");
        let link = |target: &str, at: &str| {
            std::os::unix::fs::symlink(target, root.join(at)).expect("link")
        };
        link("usr/sbin", "sbin");
        link("mke2fs", "usr/sbin/mkfs.ext4");
        link("loop", "loop");
        let out = root.join("out.cpio");
        let file = File::create(&out).expect("create");
        let mut pack = Pack {
            archive: Archive::new(BufWriter::new(&file)),
            packed: BTreeSet::new(),
        };
        pack.host_path(&root.join("sbin/mkfs.ext4")).expect("pack");
        pack.host_path(&root.join("sbin/mkfs.ext4"))
            .expect("pack again");
        assert!(pack.host_path(&root.join("loop")).is_err());
        assert!(pack.host_path(&root.join("nothing")).is_err());
        pack.archive.finish().expect("finish");
        let text = fs::read_to_string(&out).expect("read");
        let name = |path: &str| {
            format!(
                "{}/{path}\0",
                root.to_string_lossy().trim_start_matches('/')
            )
        };
        for path in ["sbin", "usr/sbin", "usr/sbin/mkfs.ext4", "usr/sbin/mke2fs"] {
            assert_eq!(text.matches(&name(path)).count(), 1, "{path}");
        }
        assert_eq!(text.matches("#!/bin/true").count(), 1);
    }
}
