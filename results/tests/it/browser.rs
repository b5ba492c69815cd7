//! The page in a real browser, where there is one: what it shows, that its filters work, and that it complains of
//! nothing. Chromium is found as `chromium` or by PUNCHBENCH_CHROMIUM; without it these tests say that they were
//! skipped, unless PUNCHBENCH_REQUIRE_BROWSER=1.

use std::path::Path;
use std::process::Command;

use crate::compare::limit;
use crate::report::{large, page};

/// Chromium's output: the document after its scripts ran, and what it logged.
struct Shown {
    dom: String,
    log: String,
}

fn chromium() -> Option<String> {
    let name = std::env::var("PUNCHBENCH_CHROMIUM").unwrap_or_else(|_| "chromium".into());
    let found = Command::new(&name)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        let required = std::env::var("PUNCHBENCH_REQUIRE_BROWSER").is_ok_and(|v| v == "1");
        assert!(
            !required,
            "{name} cannot be started, and PUNCHBENCH_REQUIRE_BROWSER=1"
        );
        eprintln!("skipped: {name} cannot be started");
    }
    found.then_some(name)
}

fn run(chromium: &str, profile: &Path, args: &[&str]) -> Shown {
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args(["--enable-logging=stderr", "--timeout=30000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(args)
        .output()
        .expect("chromium can be started");
    Shown {
        dom: String::from_utf8_lossy(&output.stdout).into_owned(),
        log: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Shown {
    /// Of the page, `what` being a query or a fragment.
    fn of(chromium: &str, dir: &Path, what: &str) -> Shown {
        let url = format!("file://{}/report.html{what}", dir.display());
        let shown = run(chromium, &dir.join("profile"), &["--dump-dom", &url]);
        let complaints: Vec<&str> = shown
            .log
            .lines()
            .filter(|l| l.contains("CONSOLE"))
            .collect();
        assert_eq!(complaints, Vec::<&str>::new());
        assert!(shown.dom.contains("</html>"), "{}", shown.log);
        shown
    }

    /// Scenarios whose rows are to be seen.
    fn rows(&self) -> Vec<&str> {
        let rows = self.dom.split("<tr data-scenario=\"").skip(1);
        rows.filter(|row| !row[..row.find('>').unwrap()].contains("hidden"))
            .map(|row| &row[..row.find('"').unwrap()])
            .collect()
    }

    /// Squares that are to be seen, as the page counts them.
    fn count(&self) -> &str {
        let (_, rest) = self.dom.split_once("id=\"shown\"").expect("the counter");
        let (_, text) = rest.split_once('>').unwrap();
        text.split('<').next().unwrap()
    }

    fn hidden_kernels(&self) -> usize {
        let parts = self.dom.split("<section class=\"kernel\"").skip(1);
        parts
            .filter(|p| p[..p.find('>').unwrap()].contains("hidden"))
            .count()
    }
}

#[test]
fn filters_work_and_nothing_is_complained_of() {
    let Some(chromium) = chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("report.html"),
        page(&dir.path().join("history")),
    )
    .unwrap();
    let show = |what: &str| Shown::of(&chromium, dir.path(), what);

    // The first kernel alone, until another is chosen.
    let all = show("");
    assert_eq!((all.count(), all.hidden_kernels()), ("6 squares", 1));
    assert_eq!(all.rows().len(), 4, "{:?}", all.rows());
    let both = show("?kernel=");
    assert_eq!((both.count(), both.hidden_kernels()), ("7 squares", 0));
    let fault = show("?scenario=FAULT");
    assert_eq!(
        (fault.rows(), fault.count()),
        (vec!["punch-while-fault"], "1 square")
    );
    assert_eq!(show("?show=violation").count(), "2 squares");
    assert_eq!(show("?show=gap&kernel=").count(), "2 squares");
    assert_eq!(show("?kernel=1&show=unexpected").count(), "1 square");
    assert_eq!(show("?scenario=nonsense").count(), "0 squares");
}

#[test]
fn every_link_within_the_page_leads_somewhere() {
    let dir = tempfile::tempdir().unwrap();
    let page = page(dir.path());
    let targets: Vec<&str> = page
        .split("href=\"#")
        .skip(1)
        .map(|l| &l[..l.find('"').unwrap()])
        .collect();
    assert!(targets.len() > 20);
    for target in targets {
        assert!(page.contains(&format!("id=\"{target}\"")), "#{target}");
    }
}

#[test]
fn a_large_page_is_there_in_two_seconds() {
    let Some(chromium) = chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (page, _) = large(dir.path());
    std::fs::write(dir.path().join("report.html"), page).unwrap();
    let best = (0..3)
        .map(|_| {
            let dom = Shown::of(&chromium, dir.path(), "").dom;
            let (_, rest) = dom
                .split_once("data-loaded-ms=\"")
                .expect("the page tells its time");
            rest[..rest.find('"').unwrap()].parse::<u32>().unwrap()
        })
        .min();
    println!("100 nights of 1,000 cells load in {best:?} ms");
    let best = best.unwrap_or(u32::MAX);
    assert!(f64::from(best) < limit(2_000.0), "{best} ms");
}
