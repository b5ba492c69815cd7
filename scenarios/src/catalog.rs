//! The scenarios that are built into the program: one YAML file each under `catalog/`, no line elsewhere.

use std::sync::OnceLock;

use include_dir::{Dir, include_dir};

use crate::{Scenario, load};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/catalog");

/// The text of every file of a built-in folder and of the folders in it, by path.
pub(crate) fn texts(dir: &'static Dir<'static>) -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<_> = dir
        .files()
        .filter_map(|f| Some((f.path().to_str()?, f.contents_utf8()?)))
        .filter(|(path, _)| path.ends_with(".yaml"))
        .collect();
    for inner in dir.dirs() {
        found.extend(texts(inner));
    }
    found.sort_unstable();
    found
}

/// Every built-in scenario, sorted by name.
///
/// # Panics
/// If one of them does not load; a test of this crate loads them all.
pub fn catalog() -> Vec<Scenario> {
    // Every known issue is checked against it.
    static ALL: OnceLock<Vec<Scenario>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let load =
            |(path, text)| load(text, path).unwrap_or_else(|e| panic!("built-in scenario:\n{e}"));
        let mut all: Vec<Scenario> = texts(&FILES).into_iter().map(load).collect();
        all.sort_by(|a, b| a.scenario.cmp(&b.scenario));
        all
    });
    all.clone()
}

/// The built-in scenarios whose names match a glob (`*` any characters, `?` one), sorted by name.
pub fn find(glob: &str) -> Vec<Scenario> {
    catalog()
        .into_iter()
        .filter(|s| matches_glob(glob, &s.scenario))
        .collect()
}

/// Whether a name matches a glob: `*` stands for any characters, `?` for one.
pub fn matches_glob(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    // Where the last star stood, and how far of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                g += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else {
                    return false;
                };
                star = Some((at, taken + 1));
                g = at + 1;
                n = taken + 1;
            }
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches_glob;

    #[test]
    fn globs() {
        for (glob, name) in [
            ("*", ""),
            ("*", "x"),
            ("a*c", "abbc"),
            ("a?c", "abc"),
            ("*-read*", "punch-while-read-and-fault"),
            ("**", "x"),
        ] {
            assert!(matches_glob(glob, name), "{glob} {name}");
        }
        for (glob, name) in [
            ("", "x"),
            ("a?c", "ac"),
            ("a*c", "abd"),
            ("read", "punch-while-read"),
            ("a*b*c", "acb"),
        ] {
            assert!(!matches_glob(glob, name), "{glob} {name}");
        }
    }
}
