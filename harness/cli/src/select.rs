//! From what the user typed to a plan.

use std::collections::BTreeSet;
use std::path::Path;

use udn_fixtures::Fixtures;
use udn_model::baseline::Baseline;
use udn_model::cell::Cell;
use udn_model::filter::{Filter, FilterError, Unused};
use udn_model::plan::{Environment, Plan};
use udn_model::scenario::Suite;

use crate::args::Selection;
use crate::failure::Failure;

/// Words less alike than this are no suggestion; 1 is the same word.
const ALIKE: f64 = 0.75;
/// How many suggestions are made.
const SUGGESTIONS: usize = 3;

/// All suites, from the fixtures that the user chose.
///
/// # Errors
/// A fixture is wrong: usage.
pub(crate) fn suites(fixtures: Option<&Path>) -> Result<Vec<Suite>, Failure> {
    let fixtures = fixtures.map_or_else(Fixtures::embedded, Fixtures::from_folder);
    udn_suites::all(&fixtures).map_err(Failure::usage)
}

/// The known issues: of a file, or those beside the fixtures.
///
/// # Errors
/// The file cannot be read or is no baseline, or names what does not exist: usage.
pub(crate) fn baseline(file: Option<&Path>, fixtures: Option<&Path>, suites: &[Suite]) -> Result<Baseline, Failure> {
    let issues = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let what =
                    format!("cannot read the baseline {}: name a file that exists with --baseline", path.display());
                Failure::usage(anyhow::Error::new(error).context(what))
            })?;
            udn_fixtures::known_issues(&path.display().to_string(), &text)
        }
        // A folder of changed fixtures need not have one.
        None if fixtures.is_some_and(|folder| !folder.join("baseline.yaml").exists()) => Ok(Vec::new()),
        None => fixtures.map_or_else(Fixtures::embedded, Fixtures::from_folder).known_issues(),
    };
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let baseline = Baseline::new(issues.map_err(Failure::usage)?, &names).map_err(Failure::usage)?;
    let unused = baseline.issues().map(|issue| Ok((issue.name.as_str(), Unused::new(&issue.cells, &names)?)));
    let mut unused: Vec<_> = unused.collect::<Result<_, FilterError>>().map_err(Failure::usage)?;
    look_at_all(suites, |cell| unused.iter_mut().for_each(|(_, words)| words.see(cell)))?;
    for (name, words) in unused {
        let issue = || format!("known issue {name}");
        words.check().map_err(|error| Failure::usage(anyhow::Error::new(error).context(issue())))?;
    }
    Ok(baseline)
}

/// Looks at every cell that exists, and keeps none.
fn look_at_all(suites: &[Suite], mut look: impl FnMut(&Cell)) -> Result<(), Failure> {
    for scenario in Plan::each(suites, &Filter::default(), &Environment::complete()) {
        scenario.map_err(Failure::usage)?.cells().for_each(|planned| look(&planned.cell));
    }
    Ok(())
}

/// Every cell that exists.
///
/// # Errors
/// A fixture does not fit its scenario: usage.
pub(crate) fn everything(suites: &[Suite]) -> Result<Plan, Failure> {
    Plan::new(suites, &Filter::default(), &Environment::complete()).map_err(Failure::usage)
}

/// What the user selected, as it would go in this environment.
///
/// # Errors
/// A filter is wrong or unknown (usage), or all of them together select nothing.
pub(crate) fn plan(suites: &[Suite], selection: &Selection, environment: &Environment) -> Result<Plan, Failure> {
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let filter = Filter::parse(&selection.filters, &names).map_err(Failure::usage)?;
    let mut unused = Unused::new(&selection.filters, &names).map_err(Failure::usage)?;
    if !selection.filters.is_empty() {
        look_at_all(suites, |cell| unused.see(cell))?;
    }
    if let Err(error) = unused.check() {
        return Err(Failure::usage(with_suggestions(error, &names, suites)?));
    }
    let mut plan = Plan::new(suites, &filter, environment).map_err(Failure::usage)?;
    if let Some(shard) = selection.shard {
        shard.keep(&mut plan.scenarios);
    }
    if plan.is_empty() {
        let words = selection.typed().join(" ");
        return Err(Failure::nothing(anyhow::anyhow!(
            "nothing is selected: no cell is left by `{words}`; `udn-conformance list` shows what exists"
        )));
    }
    Ok(plan)
}

fn with_suggestions(error: FilterError, names: &[&str], suites: &[Suite]) -> Result<anyhow::Error, Failure> {
    let FilterError::Unknown { word, .. } = &error else { return Ok(error.into()) };
    let known = known_words(names, suites)?;
    let suggestions: Vec<_> = alike(word, &known).into_iter().map(|word| format!("`{word}`")).collect();
    Ok(match suggestions.as_slice() {
        [] => error.into(),
        suggestions => anyhow::anyhow!("{error}; did you mean {}?", suggestions.join(" or ")),
    })
}

/// What a user may have meant: suites, scenarios, parts of ids, rules.
fn known_words(names: &[&str], suites: &[Suite]) -> Result<Vec<String>, Failure> {
    let mut known: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    look_at_all(suites, |cell| {
        known.insert(format!("{}::{}", cell.suite, cell.scenario));
        known.insert(format!("rule:{}", cell.rule));
        known.extend(cell.id.as_str().split("::").skip(1).map(str::to_owned));
    })?;
    Ok(known.into_iter().collect())
}

/// The known words most like this one, most alike first.
#[must_use]
pub(crate) fn alike<'a>(word: &str, known: &'a [String]) -> Vec<&'a str> {
    let word = word.strip_prefix("not:").unwrap_or(word).to_lowercase();
    let mut scored: Vec<(f64, &str)> =
        known.iter().map(|known| (strsim::jaro_winkler(&word, &known.to_lowercase()), known.as_str())).collect();
    scored.retain(|(score, _)| *score >= ALIKE);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(SUGGESTIONS).map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognised() {
        let known = ["isolation", "addressing", "objects", "rule:isolation/no-window"].map(str::to_owned);
        assert_eq!(alike("isolaton", &known)[0], "isolation");
        assert_eq!(alike("not:objcts", &known)[0], "objects");
        assert!(alike("zzz", &known).is_empty());
    }
}
