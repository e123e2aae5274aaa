//! Colours.

use std::env;

use udn_model::verdict::Verdict;

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// No colours.
    #[must_use]
    pub const fn plain() -> Self {
        Self { colours: false }
    }

    /// Colours.
    #[must_use]
    pub const fn coloured() -> Self {
        Self { colours: true }
    }

    /// Colours on a terminal, unless `NO_COLOR` (<https://no-color.org>) is set to anything or the terminal is dumb.
    #[must_use]
    pub fn detect(terminal: &console::Term) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { colours: terminal.is_term() && !refused && !dumb }
    }

    /// Text in the colour of a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict, text: &str) -> String {
        let style = console::Style::new().bold();
        self.apply(
            match verdict {
                Verdict::Pass => style.green(),
                Verdict::Fail | Verdict::Error => style.red(),
                Verdict::Unstable | Verdict::Fixed => style.yellow(),
                Verdict::Known => style.magenta(),
                Verdict::Skip => style.blue(),
            },
            text,
        )
    }

    /// Text that matters.
    #[must_use]
    pub fn strong(self, text: &str) -> String {
        self.apply(console::Style::new().bold(), text)
    }

    /// Text that matters less.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.apply(console::Style::new().dim(), text)
    }

    fn apply(self, style: console::Style, text: &str) -> String {
        if self.colours { style.force_styling(true).apply_to(text).to_string() } else { text.to_owned() }
    }
}
