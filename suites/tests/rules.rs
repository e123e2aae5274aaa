//! `docs/rules.md` is made from the rules and the plan: this makes it again and compares.

#![allow(clippy::expect_used)] // the helpers are part of the test

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use udn_fixtures::Fixtures;
use udn_model::filter::Filter;
use udn_model::plan::{Environment, Plan};
use udn_model::rule::{RULES, Rule};

/// Set to anything, the test writes the file instead of comparing it.
const WRITE: &str = "UDN_WRITE_DOCS";

const HEAD: &str = "\
# Rules

Every promise that cells are judged by: its name, one sentence, who makes it, and where upstream asserts it (rows of
OVN-Kubernetes' end-to-end tests, steps of the workshop; “—”: nowhere). Behind it, how many cells of today's plan judge it on
a cluster that offers everything, and in which scenarios.

`udn-conformance run 'rule:isolation/*'` runs the cells of these rules; `explain CELL` tells a cell's rule.
Made from `harness/model/src/rule.rs` by `UDN_WRITE_DOCS=1 cargo test -p udn-suites --test rules`.
";

/// Cells by scenario.
type Judged = BTreeMap<String, usize>;

/// Cells by rule.
fn judged() -> BTreeMap<String, Judged> {
    let suites = udn_suites::all(&Fixtures::embedded()).expect("fixtures");
    let mut rules: BTreeMap<String, Judged> = BTreeMap::new();
    for scenario in Plan::each(&suites, &Filter::default(), &Environment::complete()) {
        let scenario = scenario.expect("plan");
        let name = format!("{}::{}", scenario.suite, scenario.scenario.name);
        for planned in scenario.cells() {
            *rules.entry(planned.cell.rule.to_string()).or_default().entry(name.clone()).or_default() += 1;
        }
    }
    rules
}

fn page() -> String {
    let judged = judged();
    let mut page = HEAD.to_owned();
    let mut areas: Vec<&str> = Vec::new();
    for (area, _) in RULES.iter().filter_map(|rule| rule.name.split_once('/')) {
        if !areas.contains(&area) {
            areas.push(area);
        }
    }
    for area in areas {
        let rules = RULES.iter().filter(|rule| rule.name.split('/').next() == Some(area));
        let _ = write!(page, "\n## {area}\n");
        for rule in rules {
            describe(&mut page, rule, judged.get(rule.name).unwrap_or(&Judged::new()));
        }
    }
    page
}

fn describe(page: &mut String, rule: &Rule, judged: &Judged) {
    let sources: Vec<String> = rule.sources.iter().map(ToString::to_string).collect();
    let scenarios: Vec<String> = judged.iter().map(|(scenario, cells)| format!("`{scenario}` {cells}")).collect();
    let cells: usize = judged.values().sum();
    let upstream = if rule.upstream.is_empty() { "—" } else { rule.upstream };
    let judged = match (cells, rule.name.starts_with("control/")) {
        (0, true) => "none; they come with the cells that need them".to_owned(),
        (0, false) => "none".to_owned(),
        _ => format!("{cells}: {}", scenarios.join(", ")),
    };
    // A namespace in angle brackets would be taken for a tag.
    let promise = rule.promise.replace('<', "&lt;").replace('>', "&gt;");
    let _ = write!(
        page,
        "\n### {}\n\n{promise}\n\n- Promised by: {}\n- Upstream: {upstream}\n- Cells: {judged}\n",
        rule.name,
        sources.join("; "),
    );
}

#[test]
fn the_reference_of_rules_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rules.md");
    let page = page();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &page).expect("docs/rules.md cannot be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(page.lines()).position(|(found, made)| found != made);
    let line = differs.unwrap_or_else(|| found.lines().count().min(page.lines().count())) + 1;
    assert!(
        found == page,
        "docs/rules.md is not what the rules and suites say today, from line {line} on: \
         write it again by `{WRITE}=1 cargo test -p udn-suites --test rules`, and commit it"
    );
}
