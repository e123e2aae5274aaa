//! The page in a browser: it opens, filters, shows tables and evidence, and complains of nothing.
//!
//! Needs Chromium (Debian's package `chromium`); without it the tests are ignored, with the reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // a test from end to end

mod chromium;
mod run;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use chromium::Chromium;

/// Cells of the large page.
const MANY: usize = 20_000;
/// How long it may take from the navigation until everything is there, milliseconds, on a machine that does something else,
/// too. On one that does not it is to be below 1,000.
const READY_MS: f64 = 5_000.0;
/// How large the page may be, bytes.
const SIZE: u64 = 8 << 20;

fn main() {
    let arguments = Arguments::from_args();
    let folder = tempfile::tempdir().unwrap();
    // Made once, and only if a test runs.
    let file: Arc<LazyLock<PathBuf, _>> = {
        let folder = folder.path().to_owned();
        Arc::new(LazyLock::new(move || run::page(&folder, MANY)))
    };
    let trials = [
        ("page::opens_with_20000_cells", opens as fn(&mut Page) -> Result<(), String>),
        ("page::filters", filters),
        ("page::shows_a_table_and_evidence_by_keyboard", expands),
        ("page::follows_a_link_to_a_cell", follows),
    ];
    let trials = trials.into_iter().map(|(name, test)| {
        let file = Arc::clone(&file);
        Trial::ignorable_test(name, move || match chromium::find() {
            Some(program) => with_page(&program, &file, test),
            None => Ok(Completion::ignored_with("no Chromium here: install Debian's package chromium")),
        })
    });
    let conclusion = libtest_mimic::run(&Arguments { test_threads: Some(1), ..arguments }, trials.collect());
    drop(folder); // exit() drops nothing
    conclusion.exit();
}

/// A browser with the large page open.
struct Page {
    browser: Chromium,
    file: PathBuf,
}

fn with_page(program: &Path, file: &Path, test: fn(&mut Page) -> Result<(), String>) -> Result<Completion, Failed> {
    let mut page = Page { browser: Chromium::start(program)?, file: file.to_owned() };
    page.browser.open(file)?;
    test(&mut page)?;
    let complaints = page.browser.complaints();
    if complaints.is_empty() { Ok(Completion::Completed) } else { Err(complaints.join("\n").into()) }
}

impl Page {
    /// An expression has to give this.
    fn expect(&mut self, expression: &str, expected: impl Into<serde_json::Value>) -> Result<(), String> {
        let (found, expected) = (self.browser.evaluate(expression)?, expected.into());
        if found == expected { Ok(()) } else { Err(format!("{expression} gives {found}, not {expected}")) }
    }
}

fn opens(page: &mut Page) -> Result<(), String> {
    let size = page.file.metadata().map_err(|error| error.to_string())?.len();
    assert!(size < SIZE, "the page has {size} bytes");
    page.expect("rows.length", MANY)?;
    let ready = page.browser.evaluate("Number(document.documentElement.dataset.ready)")?.as_f64().unwrap_or(f64::MAX);
    assert!(ready < READY_MS, "ready after {ready} ms");
    // Tables are made when somebody looks at them.
    page.expect("document.querySelectorAll('button.c').length", 0)?;
    page.expect("document.querySelector('.counts .v-fail strong').textContent", run::FAILING.to_string())?;
    page.expect("document.querySelectorAll('#findings article').length", 1)
}

fn filters(page: &mut Page) -> Result<(), String> {
    let count = "document.getElementById('f-count').textContent";
    page.expect(count, "20,000 cells")?;
    page.browser.evaluate("document.querySelector('[data-verdict=fail]').click()")?;
    page.expect(count, format!("{} of 20,000 cells", run::FAILING))?;
    page.expect("document.querySelectorAll('button.c').length", run::FAILING)?;
    page.expect("location.hash", "#verdict=fail")?;
    page.browser.evaluate("document.getElementById('f-clear').click()")?;
    page.expect(count, "20,000 cells")?;
    let choose = "(() => { const s = document.getElementById('f-family'); s.value = 'v6'; s.dispatchEvent(new Event('change')); })()";
    page.browser.evaluate(choose)?;
    page.expect(count, "10,000 of 20,000 cells")
}

fn expands(page: &mut Page) -> Result<(), String> {
    page.browser.evaluate("document.querySelector('details.scenario').open = true")?;
    page.browser.evaluate("document.querySelector('details.phase').open = true")?;
    // `toggle` comes with the next frame.
    page.browser.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")?;
    page.expect("document.querySelectorAll('table.matrix tbody button.c').length", run::IN_A_PHASE)?;
    page.expect("document.querySelectorAll('table.matrix button.c[tabindex=\"0\"]').length", 1)?;
    page.browser.evaluate("document.querySelector('table.matrix button.c').focus()")?;
    page.browser.press("ArrowRight", 39)?;
    page.expect("document.activeElement.closest('td').cellIndex", 2)?;
    page.browser.evaluate("document.activeElement.click()")?;
    page.expect("document.getElementById('evidence').open", true)?;
    let said = page.browser.evaluate("document.getElementById('evidence').textContent")?.to_string();
    for part in
        ["isolation/same-network-open", "Pods of one primary network", "kubectl exec", "answered by", "OVN-Kubernetes"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    page.browser.press("Escape", 27)?;
    page.expect("document.getElementById('evidence').open", false)
}

fn follows(page: &mut Page) -> Result<(), String> {
    let id = page.browser.evaluate("cellId(19999)")?;
    let id = id.as_str().unwrap_or_default().to_owned();
    page.browser.evaluate("location.hash = '#cell=' + encodeURIComponent(cellId(19999))")?;
    page.browser.evaluate("new Promise((done) => setTimeout(done, 50))")?;
    page.expect("document.getElementById('evidence').open", true)?;
    page.expect("document.querySelector('#evidence code.id').textContent", id)
}
