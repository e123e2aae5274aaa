//! What a user types to select cells.

use globset::{GlobBuilder, GlobMatcher};

use crate::cell::Cell;

/// One parsed word.
#[derive(Clone, Debug)]
enum Term {
    Suite(String),
    Id(Pattern),
    Rule(Pattern),
}

#[derive(Clone, Debug)]
enum Pattern {
    Substring(String),
    Glob(Box<GlobMatcher>),
}

/// A selection: a cell is in when it matches any plain term (or there is none) and no `not:` term.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    any: Vec<Term>,
    none: Vec<Term>,
}

/// A word that cannot be a filter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// Nothing behind `rule:` or `not:`.
    #[error("filter `{word}` is empty behind the colon: write for example `rule:isolation/no-window` or `not:icmp`")]
    Empty {
        /// The word as typed.
        word: String,
    },
    /// Not a glob.
    #[error("filter `{word}` is not a glob: {why}")]
    Glob {
        /// The word as typed.
        word: String,
        /// What is wrong with it.
        why: String,
    },
    /// Selects nothing.
    #[error("filter `{word}` matches no cell; `udn-conformance list` shows what exists, suites are {suites}")]
    Unknown {
        /// The word as typed.
        word: String,
        /// The names of the suites.
        suites: String,
    },
}

impl Filter {
    /// Parses words: a bare word is a suite's name, else a substring (or with `*`, `?`, `[` a glob) of cell ids;
    /// `rule:` selects by rule name, `not:` before any of these excludes.
    ///
    /// # Errors
    /// A word that is empty or no glob.
    pub fn parse<S: AsRef<str>>(words: &[S], suites: &[&str]) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for word in words {
            let word = word.as_ref();
            let (terms, body) = match word.strip_prefix("not:") {
                Some(body) => (&mut filter.none, body),
                None => (&mut filter.any, word),
            };
            terms.push(term(word, body, suites)?);
        }
        Ok(filter)
    }

    /// Whether the cell is selected.
    #[must_use]
    pub fn selects(&self, cell: &Cell) -> bool {
        (self.any.is_empty() || self.any.iter().any(|term| term.matches(cell)))
            && !self.none.iter().any(|term| term.matches(cell))
    }
}

/// Words that no cell has matched yet: most likely typing errors.
#[derive(Clone, Debug)]
pub struct Unused {
    words: Vec<(String, Term)>,
    suites: String,
}

impl Unused {
    /// All of these words; see [`Filter::parse`].
    ///
    /// # Errors
    /// A word that is empty or no glob.
    pub fn new<S: AsRef<str>>(words: &[S], suites: &[&str]) -> Result<Self, FilterError> {
        let parsed = words.iter().map(|word| {
            let word = word.as_ref();
            let body = word.strip_prefix("not:").unwrap_or(word);
            Ok((word.to_owned(), term(word, body, suites)?))
        });
        Ok(Self { words: parsed.collect::<Result<_, FilterError>>()?, suites: suites.join(", ") })
    }

    /// Looks at one of all cells that there are.
    pub fn see(&mut self, cell: &Cell) {
        self.words.retain(|(_, term)| !term.matches(cell));
    }

    /// What is left once every cell was seen.
    ///
    /// # Errors
    /// [`FilterError::Unknown`] for the first word left.
    pub fn check(self) -> Result<(), FilterError> {
        let Self { words, suites } = self;
        words.into_iter().next().map_or(Ok(()), |(word, _)| Err(FilterError::Unknown { word, suites }))
    }
}

fn term(word: &str, body: &str, suites: &[&str]) -> Result<Term, FilterError> {
    let (rule, text) = match body.strip_prefix("rule:") {
        Some(text) => (true, text),
        None => (false, body),
    };
    if text.is_empty() {
        return Err(FilterError::Empty { word: word.into() });
    }
    if !rule && suites.contains(&text) {
        return Ok(Term::Suite(text.into()));
    }
    let pattern = if text.contains(['*', '?', '[']) {
        let glob = GlobBuilder::new(text)
            .build()
            .map_err(|error| FilterError::Glob { word: word.into(), why: error.kind().to_string() })?;
        Pattern::Glob(Box::new(glob.compile_matcher()))
    } else {
        Pattern::Substring(text.into())
    };
    Ok(if rule { Term::Rule(pattern) } else { Term::Id(pattern) })
}

impl Term {
    fn matches(&self, cell: &Cell) -> bool {
        match self {
            Self::Suite(suite) => cell.suite == *suite,
            Self::Id(pattern) => pattern.matches(cell.id.as_str()),
            Self::Rule(pattern) => pattern.matches(cell.rule.as_str()),
        }
    }
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Substring(part) => text.contains(part.as_str()),
            Self::Glob(glob) => glob.is_match(text),
        }
    }
}
