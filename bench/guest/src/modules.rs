//! Which modules something takes, and in which order, softdeps and crypto aliases included: libcrc32c, and with
//! it xfs, does not even load before a crc32c provider. The host packs by this what a guest may need; the guest
//! loads by the same, on first use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{GuestError, IoContext};
use crate::host;

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its file on the host, possibly compressed.
    pub path: PathBuf,
    /// Whether something that was asked for cannot work without it. A softdep is not: an accelerated
    /// checksum refuses to load on a CPU that lacks the instruction, and the generic one serves.
    pub required: bool,
}

/// The modules to load for some names, and the names that this kernel does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// In load order.
    pub load: Vec<Module>,
    /// Neither a module nor built in.
    pub missing: Vec<String>,
}

/// What a kernel's modules directory says about its modules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleIndex {
    dir: PathBuf,
    /// Name → file and the files it depends on, relative to `dir`.
    modules: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
    /// Name → loaded before it, loaded after it.
    soft: BTreeMap<String, (Vec<String>, Vec<String>)>,
    aliases: BTreeMap<String, Vec<String>>,
}

impl ModuleIndex {
    /// Reads `modules.dep`, `.builtin`, `.softdep` and `.alias` of a modules directory.
    pub fn read(dir: &Path) -> Result<Self, GuestError> {
        let mut index = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        let dep = dir.join("modules.dep");
        index.add_dependencies(&fs::read_to_string(&dep).context("read", &dep)?);
        // Any of the others may be absent, and then has nothing to say.
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        index.builtin = read("modules.builtin").lines().map(name_of).collect();
        index.add_softdeps(&read("modules.softdep"));
        index.add_aliases(&read("modules.alias"));
        Ok(index)
    }

    /// The same of modules that lie in `dir`.
    pub(crate) fn at(self, dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            ..self
        }
    }

    /// The index of some of its modules, which lie in `dir`, not compressed, each under its own name.
    pub(crate) fn of_packed(&self, dir: &Path, packed: &[&str]) -> Self {
        let is_packed = |name: &String| packed.contains(&name.as_str());
        let file = |name: &str| format!("{name}.ko");
        let modules = self.modules.iter().filter(|(name, _)| is_packed(name));
        let modules = modules.map(|(name, (_, needs))| {
            let needs = needs.iter().map(|need| name_of(need)).filter(is_packed);
            (
                name.clone(),
                (file(name), needs.map(|n| file(&n)).collect()),
            )
        });
        let soft = self.soft.iter().filter(|(name, _)| is_packed(name));
        let aliases = self.aliases.iter().filter_map(|(alias, names)| {
            let names: Vec<String> = names
                .iter()
                .filter(|name| is_packed(name))
                .cloned()
                .collect();
            (!names.is_empty()).then(|| (alias.clone(), names))
        });
        Self {
            dir: dir.to_owned(),
            modules: modules.collect(),
            builtin: self.builtin.clone(),
            soft: soft
                .map(|(name, lists)| (name.clone(), lists.clone()))
                .collect(),
            aliases: aliases.collect(),
        }
    }

    /// Writes what programs look for to see which modules there are: `modules.dep` and `modules.alias`.
    pub(crate) fn write(&self, dir: &Path) -> std::io::Result<()> {
        fs::create_dir_all(dir)?;
        let modules = self.modules.values();
        let dep: String = modules
            .map(|(file, needs)| format!("{file}: {}\n", needs.join(" ")))
            .collect();
        fs::write(dir.join("modules.dep"), dep)?;
        let aliases = self.aliases.iter().flat_map(|(alias, names)| {
            // A filesystem's is written so (MODULE_ALIAS_FS).
            let alias = alias.replacen("fs_", "fs-", usize::from(alias.starts_with("fs_")));
            names
                .iter()
                .map(move |name| format!("alias {alias} {name}\n"))
        });
        fs::write(dir.join("modules.alias"), aliases.collect::<String>())
    }

    /// The file of one of its modules, whichever; none if there are none.
    pub(crate) fn any(&self) -> Option<PathBuf> {
        let (file, _) = self.modules.values().next()?;
        Some(self.dir.join(file))
    }

    /// Everything to load so that all of `wanted` (names or aliases) can be used.
    pub fn closure(&self, wanted: &[String]) -> Closure {
        let mut walk = Walk {
            index: self,
            seen: BTreeMap::new(),
            load: Vec::new(),
        };
        let mut missing = Vec::new();
        for name in wanted {
            if !walk.visit_named(name, true) {
                missing.push(name.clone());
            }
        }
        Closure {
            load: walk.load,
            missing,
        }
    }

    /// `path: path path…`
    fn add_dependencies(&mut self, text: &str) {
        for (file, needs) in text.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            self.modules.insert(name_of(file), (file.to_owned(), needs));
        }
    }

    /// `softdep NAME pre: a b post: c`
    fn add_softdeps(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let (before, after) = self.soft.entry(normal(name)).or_default();
            let mut list = None;
            for word in words {
                match word {
                    "pre:" => list = Some(&mut *before),
                    "post:" => list = Some(&mut *after),
                    name => {
                        if let Some(list) = &mut list {
                            list.push(name.to_owned());
                        }
                    }
                }
            }
        }
    }

    /// `alias PATTERN NAME`; only exact names are of use here, not hardware's patterns.
    fn add_aliases(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(alias), Some(name)) =
                (words.next(), words.next(), words.next())
                && !alias.contains(['*', '?', '['])
            {
                self.aliases
                    .entry(normal(alias))
                    .or_default()
                    .push(normal(name));
            }
        }
    }
}

struct Walk<'a> {
    index: &'a ModuleIndex,
    /// Name → its place in `load`, none while its dependencies are being visited.
    seen: BTreeMap<String, Option<usize>>,
    load: Vec<Module>,
}

impl Walk<'_> {
    /// Visits what a name or an alias stands for; false if it stands for nothing.
    fn visit_named(&mut self, name: &str, required: bool) -> bool {
        let name = normal(name);
        if self.index.modules.contains_key(&name) {
            self.visit(&name, required);
            return true;
        }
        let builtin = self.index.builtin.contains(&name);
        let index = self.index;
        let providers = index.aliases.get(&name).map_or(&[][..], Vec::as_slice);
        for provider in providers {
            // Any one of several is enough.
            self.visit(provider, required && providers.len() == 1 && !builtin);
        }
        builtin || !providers.is_empty()
    }

    /// A softdep may name an algorithm (f2fs: crc32) whose library is built in under the same name,
    /// while what the kernel then asks its crypto layer for is a module.
    fn visit_soft(&mut self, name: &str) {
        self.visit_named(name, false);
        self.visit_named(&format!("crypto-{name}"), false);
    }

    fn visit(&mut self, name: &str, required: bool) {
        let index = self.index;
        let Some((file, needs)) = index.modules.get(name) else {
            return;
        };
        match self.seen.get(name) {
            Some(&Some(place)) if required && !self.load[place].required => {
                self.load[place].required = true;
                for need in needs {
                    self.visit(&name_of(need), true);
                }
                return;
            }
            Some(_) => return,
            None => {}
        }
        self.seen.insert(name.to_owned(), None);
        let soft = index.soft.get(name);
        for before in soft.map_or(&[][..], |(before, _)| before) {
            self.visit_soft(before);
        }
        for need in needs {
            self.visit(&name_of(need), required);
        }
        self.seen.insert(name.to_owned(), Some(self.load.len()));
        self.load.push(Module {
            name: name.to_owned(),
            path: index.dir.join(file),
            required,
        });
        for after in soft.map_or(&[][..], |(_, after)| after) {
            self.visit_soft(after);
        }
    }
}

/// A module's bytes as finit_module(2) takes them on any kernel, that is, not compressed.
pub fn read_module(path: &Path) -> Result<Vec<u8>, GuestError> {
    let (program, package) = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => ("xz", "xz-utils (xz on Fedora, Arch and openSUSE)"),
        Some("zst") => ("zstd", "zstd"),
        Some("gz") => ("gzip", "gzip"),
        _ => return fs::read(path).context("read", path),
    };
    let program = host::require(
        program,
        "the kernel's modules are compressed with it",
        package,
    )?;
    host::output(Command::new(program).arg("-dc").arg(path))
}

fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    normal(base.split(".ko").next().unwrap_or(base))
}

/// The kernel takes dashes and underscores for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> ModuleIndex {
        let mut index = ModuleIndex {
            dir: "/m".into(),
            ..ModuleIndex::default()
        };
        index.add_dependencies(
            "fs/xfs.ko.xz: lib/libcrc32c.ko.xz\nfs/ext4.ko: fs/jbd2.ko fs/mbcache.ko\nfs/jbd2.ko:\n\
             fs/mbcache.ko:\nlib/libcrc32c.ko.xz:\ncrypto/crc32c_generic.ko:\nx/crc32c-intel.ko: x/helper.ko\n\
             x/helper.ko:\na.ko: b.ko\nb.ko: a.ko\nlate.ko:\n\
             fs/f2fs.ko:\ncrypto/crc32_generic.ko:\n",
        );
        index.add_softdeps(
            "# note\nsoftdep libcrc32c pre: crc32c\nsoftdep ext4 pre: crc32c nowhere post: late\n\
             softdep f2fs pre: crc32\n",
        );
        index.add_aliases(
            "alias crc32c crc32c_generic\nalias crc32c crc32c_intel\nalias fs-xfs xfs\nalias pci:v0* a\n\
             alias crypto-crc32 crc32_generic\n",
        );
        index.builtin.extend(["loop", "crc32"].map(str::to_owned));
        index
    }

    fn load(wanted: &[&str]) -> (Vec<(String, bool)>, Vec<String>) {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        let Closure { load, missing } = index().closure(&wanted);
        (
            load.into_iter().map(|m| (m.name, m.required)).collect(),
            missing,
        )
    }

    fn owned(list: &[(&str, bool)]) -> Vec<(String, bool)> {
        list.iter()
            .map(|&(name, required)| (name.to_owned(), required))
            .collect()
    }

    #[test]
    fn checksum_providers_come_before_who_needs_them() {
        let (modules, missing) = load(&["fs-xfs"]);
        let expected = [
            ("crc32c_generic", false),
            ("helper", false),
            ("crc32c_intel", false),
            ("libcrc32c", true),
            ("xfs", true),
        ];
        assert_eq!(modules, owned(&expected));
        assert!(missing.is_empty());
    }

    #[test]
    fn builtin_is_nothing_to_load_and_absent_is_told() {
        let (modules, missing) = load(&["loop", "gfs2", "crc32c-generic"]);
        assert_eq!(modules, owned(&[("crc32c_generic", true)]));
        assert_eq!(missing, ["gfs2"]);
    }

    #[test]
    fn a_builtin_library_does_not_hide_the_algorithm_of_its_name() {
        let (modules, missing) = load(&["f2fs"]);
        assert_eq!(modules, owned(&[("crc32_generic", false), ("f2fs", true)]));
        assert!(missing.is_empty());
    }

    #[test]
    fn each_once_with_what_comes_after_and_cycles_end() {
        let (modules, _) = load(&["ext4", "xfs", "ext4", "a", "crc32c_intel"]);
        let names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "crc32c_generic",
            "helper",
            "crc32c_intel",
            "jbd2",
            "mbcache",
            "ext4",
            "late",
            "libcrc32c",
            "xfs",
            "b",
            "a",
        ];
        assert_eq!(names, expected);
        // Asked for by name after all, so required, and what it needs too.
        assert!(modules[1].1 && modules[2].1 && !modules[0].1);
    }

    #[test]
    fn what_was_packed_loads_in_the_guest_as_on_the_host() {
        let wanted = ["fs-xfs", "ext4"].map(str::to_owned);
        let here = index().closure(&wanted).load;
        let names: Vec<&str> = here.iter().map(|m| m.name.as_str()).collect();
        let packed = index().of_packed(Path::new("/modules"), &names);
        let there = packed.closure(&wanted).load;
        let same = |a: &Module, b: &Module| (&a.name, a.required) == (&b.name, b.required);
        assert!(
            here.iter().zip(&there).all(|(a, b)| same(a, b)),
            "{there:?}"
        );
        assert_eq!(here.len(), there.len());
        assert_eq!(there[0].path, Path::new("/modules/crc32c_generic.ko"));
        // What is not there is not promised.
        assert_eq!(packed.closure(&["f2fs".to_owned()]).missing, ["f2fs"]);
        let dir = tempfile::tempdir().expect("tempdir");
        packed.write(dir.path()).expect("write");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("read");
        assert!(read("modules.alias").contains("alias fs-xfs xfs\n"));
        assert!(read("modules.dep").contains("xfs.ko: libcrc32c.ko\n"));
    }

    #[test]
    fn compressed_modules_are_unpacked() {
        let dir = tempfile::tempdir().expect("tempdir");
        let plain = dir.path().join("m.ko");
        fs::write(&plain, b"module").expect("write");
        host::run(Command::new("gzip").arg("-k").arg(&plain)).expect("gzip");
        assert_eq!(read_module(&plain).expect("plain"), b"module");
        assert_eq!(
            read_module(&dir.path().join("m.ko.gz")).expect("gz"),
            b"module"
        );
        fs::write(dir.path().join("n.ko.gz"), b"no gzip").expect("write");
        assert!(read_module(&dir.path().join("n.ko.gz")).is_err());
    }
}
