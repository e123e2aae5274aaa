//! Options as agnhost takes them: `--name value`, `--name=value`, words without dashes.

/// What followed the command.
#[derive(Debug)]
pub(crate) struct Arguments {
    options: Vec<(String, String)>,
    rest: Vec<String>,
}

impl Arguments {
    /// # Errors
    /// A sentence about the option that is not among the `known` ones or lacks its value.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>, known: &[&str]) -> Result<Self, String> {
        let (mut options, mut rest) = (Vec::new(), Vec::new());
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
        Ok(Self { options, rest })
    }

    /// The last value given to an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }

    /// The last value given to an option, as a port; -1 stands for no server.
    ///
    /// # Errors
    /// A sentence about the value that is no port.
    pub(crate) fn port(&self, name: &str, default: u16) -> Result<Option<u16>, String> {
        match self.value(name) {
            None => Ok(Some(default)),
            Some("-1") => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| format!("--{name} takes a port or -1, not {value:?}")),
        }
    }

    /// The words that are no options.
    pub(crate) fn rest(&self) -> &[String] {
        &self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Arguments, String> {
        Arguments::parse(text.split_whitespace().map(str::to_owned), &["http-port", "udp-port"])
    }

    #[test]
    fn both_spellings_are_taken() {
        let arguments = parse("--http-port=80 --udp-port -1 here").expect("options");
        assert_eq!(arguments.port("http-port", 8080), Ok(Some(80)));
        assert_eq!(arguments.port("udp-port", 8081), Ok(None));
        assert_eq!(arguments.port("port", 7), Ok(Some(7)));
        assert_eq!(arguments.rest(), ["here"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (wrong, named) in [("--colour red", "--colour"), ("--http-port", "--http-port needs")] {
            let problem = parse(wrong).expect_err("wrong");
            assert!(problem.contains(named), "{problem}");
        }
        for wrong in ["x", "70000", "-2"] {
            let arguments = parse(&format!("--http-port {wrong}")).expect("options");
            assert!(arguments.port("http-port", 1).is_err_and(|problem| problem.contains(wrong)));
        }
    }
}
