//! Options as agnhost takes them: `--name value`, `--name=value`, one word without dashes.

/// What followed the command.
pub(crate) struct Arguments {
    words: Vec<String>,
}

impl Arguments {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        Self { words: words.collect() }
    }

    /// Options (those named in `known`) and the words that are none.
    ///
    /// # Errors
    /// A sentence about the option that is unknown or lacks its value.
    pub(crate) fn parse(self, known: &[&str]) -> Result<(Vec<(String, String)>, Vec<String>), String> {
        let (mut options, mut rest) = (Vec::new(), Vec::new());
        let mut words = self.words.into_iter();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--") else {
                rest.push(word);
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (option.to_owned(), None),
            };
            if !known.contains(&name.as_str()) {
                return Err(format!("unknown option --{name}; known are {known:?}"));
            }
            let value = value.or_else(|| words.next()).ok_or_else(|| format!("--{name} needs a value"))?;
            options.push((name, value));
        }
        Ok((options, rest))
    }
}

/// The last value given to an option, as a number.
///
/// # Errors
/// A sentence about the value that is no number.
pub(crate) fn number(options: &[(String, String)], name: &str, default: i32) -> Result<i32, String> {
    match options.iter().rev().find(|(option, _)| option == name) {
        Some((_, value)) => value.parse().map_err(|_| format!("--{name} takes a number, not {value:?}")),
        None => Ok(default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Arguments {
        Arguments::new(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_spellings_are_taken() {
        let (options, rest) = arguments("--http-port=80 --udp-port -1 here").parse(&["http-port", "udp-port"]).expect("options");
        assert_eq!(number(&options, "http-port", 8080), Ok(80));
        assert_eq!(number(&options, "udp-port", 8081), Ok(-1));
        assert_eq!(number(&options, "port", 7), Ok(7));
        assert_eq!(rest, ["here"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (wrong, named) in [("--colour red", "--colour"), ("--http-port", "--http-port needs")] {
            let problem = arguments(wrong).parse(&["http-port"]).map(drop).expect_err("wrong");
            assert!(problem.contains(named), "{problem}");
        }
        let (options, _) = arguments("--http-port x").parse(&["http-port"]).expect("options");
        assert!(number(&options, "http-port", 1).is_err());
    }
}
