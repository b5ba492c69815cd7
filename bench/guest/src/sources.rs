//! This machine's Debian mirrors, read from apt's configuration, and the source list for another suite
//! on the same mirrors. So no host name is built into punchbench, and a machine that may only talk to
//! its own mirror keeps doing so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{GuestError, IoContext};

/// Suite names that make a source Debian's own; other vendors' archives have other names, and what
/// passes by accident is refused later, because Debian's keys did not sign it.
const SUITES: [&str; 15] = [
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "stretch",
    "jessie",
    "experimental",
];

/// Suites that are their own updates.
const ROLLING: [&str; 3] = ["sid", "unstable", "experimental"];

/// The addresses of Debian's two archives, as configured here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirrors {
    main: BTreeSet<String>,
    security: BTreeSet<String>,
}

impl Mirrors {
    /// Reads `sources.list`, `sources.list.d/*.list` and `*.sources` below `etc_apt`.
    pub(crate) fn read(etc_apt: &Path) -> Result<Self, GuestError> {
        let mut files = vec![etc_apt.join("sources.list")];
        if let Ok(dir) = fs::read_dir(etc_apt.join("sources.list.d")) {
            files.extend(dir.flatten().map(|entry| entry.path()));
        }
        let mut mirrors = Self::default();
        for file in files.into_iter().filter(|file| file.is_file()) {
            let read = || fs::read_to_string(&file).context("read", &file);
            match file.extension().and_then(|e| e.to_str()) {
                Some("list") => mirrors.add_list(&read()?),
                Some("sources") => mirrors.add_stanzas(&read()?),
                _ => {}
            }
        }
        Ok(mirrors)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.main.is_empty()
    }

    /// The source list of `suite` on these mirrors, signed by Debian's own keys only.
    pub(crate) fn sources_for(&self, suite: &str, architecture: &str, keyring: &Path) -> String {
        let rolling = ROLLING.contains(&suite);
        let main = if rolling {
            suite.to_owned()
        } else {
            format!("{suite} {suite}-updates")
        };
        let old_style = matches!(suite, "jessie" | "stretch" | "buster");
        let security = if old_style {
            format!("{suite}/updates")
        } else {
            format!("{suite}-security")
        };
        let stanza = |uris: &BTreeSet<String>, suites: &str| {
            let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
            // A suite at its end of life is no longer given a new date; its signature still counts.
            format!(
                "Types: deb\nURIs: {}\nSuites: {suites}\nComponents: main\nArchitectures: {architecture}\n\
                 Targets: Packages\nCheck-Valid-Until: no\nSigned-By: {}\n\n",
                uris.join(" "),
                keyring.display()
            )
        };
        let mut text = stanza(&self.main, &main);
        if !rolling && !self.security.is_empty() {
            text += &stanza(&self.security, &security);
        }
        text
    }

    /// One source a line: `deb [options] URI SUITE COMPONENT…`.
    fn add_list(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some(rest) = line.trim_start().strip_prefix("deb ") else {
                continue;
            };
            let rest = rest.trim_start();
            let rest = match rest.strip_prefix('[') {
                Some(options) => options.split_once(']').map_or("", |(_, after)| after),
                None => rest,
            };
            let mut words = rest.split_whitespace().map(str::to_owned);
            if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
                self.add(&[uri], &[suite], &words.collect::<Vec<_>>());
            }
        }
    }

    /// Deb822 stanzas: `Field: value`, continued on indented lines, separated by empty ones.
    fn add_stanzas(&mut self, text: &str) {
        let (mut fields, mut last) = (Fields::default(), None);
        for line in text.lines().chain([""]) {
            if line.starts_with('#') {
                continue;
            }
            if line.trim().is_empty() {
                if fields.enabled && fields.types.iter().any(|t| t == "deb") {
                    self.add(&fields.uris, &fields.suites, &fields.components);
                }
                (fields, last) = (Fields::default(), None);
            } else if line.starts_with([' ', '\t']) {
                fields.extend(last, line);
            } else if let Some((name, value)) = line.split_once(':') {
                last = Field::named(name);
                fields.extend(last, value);
            }
        }
    }

    fn add(&mut self, uris: &[String], suites: &[String], components: &[String]) {
        if !components.iter().any(|c| c == "main") {
            return;
        }
        for suite in suites {
            let base = suite.split(['-', '/']).next().unwrap_or_default();
            let archive = match &suite[base.len()..] {
                "" | "-updates" => &mut self.main,
                "-security" | "/updates" => &mut self.security,
                _ => continue,
            };
            if SUITES.contains(&base) {
                archive.extend(uris.iter().map(|uri| uri.trim_end_matches('/').to_owned()));
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Types,
    Uris,
    Suites,
    Components,
    Enabled,
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "types" => Some(Self::Types),
            "uris" => Some(Self::Uris),
            "suites" => Some(Self::Suites),
            "components" => Some(Self::Components),
            "enabled" => Some(Self::Enabled),
            _ => None,
        }
    }
}

struct Fields {
    types: Vec<String>,
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    enabled: bool,
}

impl Default for Fields {
    fn default() -> Self {
        let (types, uris, suites, components) = Default::default();
        Self {
            types,
            uris,
            suites,
            components,
            enabled: true,
        }
    }
}

impl Fields {
    fn extend(&mut self, field: Option<Field>, value: &str) {
        let words = value.split_whitespace().map(str::to_owned);
        match field {
            Some(Field::Types) => self.types.extend(words),
            Some(Field::Uris) => self.uris.extend(words),
            Some(Field::Suites) => self.suites.extend(words),
            Some(Field::Components) => self.components.extend(words),
            Some(Field::Enabled) => {
                self.enabled = !["no", "false", "0", "off"]
                    .contains(&value.trim().to_ascii_lowercase().as_str());
            }
            None => {}
        }
    }
}

/// The keys that sign Debian's archives.
pub(crate) fn debian_keyring() -> Result<PathBuf, GuestError> {
    [
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "/usr/share/keyrings/debian-archive-keyring.pgp",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|path| path.is_file())
    .ok_or(GuestError::MissingProgram {
        program: "debian-archive-keyring".to_owned(),
        purpose: "a Debian kernel's package is only used if its signature holds",
        package: "debian-archive-keyring",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(uris: &[&str]) -> BTreeSet<String> {
        uris.iter().map(|&uri| uri.to_owned()).collect()
    }

    #[test]
    fn both_formats_are_read_and_others_left_out() {
        let dir = tempfile::tempdir().expect("tempdir");
        let parts = dir.path().join("sources.list.d");
        fs::create_dir(&parts).expect("mkdir");
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("write");
        write(
            dir.path().join("sources.list"),
            "# deb http://commented.example/debian stable main\n\
             deb [arch=amd64 signed-by=/k] http://one.example/debian/ bookworm main contrib # note\n\
             deb-src http://source.example/debian bookworm main\n\
             deb http://ubuntu.example/ubuntu noble main\n\
             deb http://vendor.example/apt bookworm stable\n\
             deb http://ports.example/debian bookworm-backports main\n\
             deb http://old.example/security buster/updates main\n",
        );
        write(
            parts.join("debian.sources"),
            "Types: deb deb-src\n# a note\nURIs: http://two.example/debian\n http://three.example/debian\n\
             Suites: trixie trixie-updates\nComponents: main\n\n\
             Types: deb\nURIs: mirror+file:/etc/apt/mirrors/security.list\nSuites: trixie-security\nComponents: main\n\n\
             Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: sid\nComponents: main\n",
        );
        write(
            parts.join("debian.sources.bak"),
            "deb http://backup.example/debian sid main\n",
        );
        let mirrors = Mirrors::read(dir.path()).expect("read");
        assert_eq!(
            mirrors.main,
            set(&[
                "http://one.example/debian",
                "http://two.example/debian",
                "http://three.example/debian"
            ])
        );
        assert_eq!(
            mirrors.security,
            set(&[
                "http://old.example/security",
                "mirror+file:/etc/apt/mirrors/security.list"
            ])
        );
    }

    #[test]
    fn the_suite_is_replaced_and_nothing_is_trusted_blindly() {
        let mirrors = Mirrors {
            main: set(&["http://a.example/d"]),
            security: set(&["http://s.example/d"]),
        };
        let text = mirrors.sources_for("bullseye", "amd64", Path::new("/keys"));
        assert!(text.contains("URIs: http://a.example/d\nSuites: bullseye bullseye-updates\n"));
        assert!(text.contains("URIs: http://s.example/d\nSuites: bullseye-security\n"));
        assert_eq!(text.matches("Signed-By: /keys\n").count(), 2);
        assert!(!text.to_lowercase().contains("trusted"));
        let text = mirrors.sources_for("sid", "amd64", Path::new("/keys"));
        assert!(
            text.contains("Suites: sid\n") && !text.contains("s.example"),
            "{text}"
        );
    }

    #[test]
    fn no_sources_is_empty() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(Mirrors::read(dir.path()).expect("read").is_empty());
    }
}
