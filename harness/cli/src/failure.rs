//! Why the program ends with something else than a verdict: one message, one exit code.

use std::io;

use udn_model::verdict::ExitCode;

/// An exit code and the message that explains it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the program exits with.
    pub exit: ExitCode,
    error: anyhow::Error,
}

impl Failure {
    /// The command line or an input file is wrong.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: ExitCode::Usage, error: error.into() }
    }

    /// The target could not be set up, or the reports not be written.
    pub(crate) fn setup(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: ExitCode::SetupFailed, error: error.into() }
    }

    /// What a lab says of itself that a user can mend is usage; the rest is a set-up that failed.
    pub(crate) fn lab(error: udn_lab::Error) -> Self {
        use udn_lab::Error as Lab;
        match error {
            Lab::AlreadyUp { .. }
            | Lab::NotUp { .. }
            | Lab::Name { .. }
            | Lab::NoSuchPlace { .. }
            | Lab::Kubeconfig { .. } => Self::usage(error),
            _ => Self::setup(error),
        }
    }

    /// Nothing to do.
    pub(crate) fn nothing(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: ExitCode::NothingSelected, error: error.into() }
    }

    /// The message: the error and, behind colons, causes that it does not tell itself.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        message(self.error.as_ref())
    }
}

/// See [`Failure::message`].
#[must_use]
pub(crate) fn message(error: &(dyn std::error::Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// Standard output cannot be written to. A reader that went away (`| head`) has had enough: no failure.
pub(crate) fn printed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::setup(anyhow::Error::new(error).context("cannot write to standard output"))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = io::Error::other("connection refused");
        let told = anyhow::Error::new(cause).context("cannot reach the cluster: connection refused");
        assert_eq!(Failure::setup(told).message(), "cannot reach the cluster: connection refused");
        let cause = io::Error::other("connection refused");
        let untold = anyhow::Error::new(cause).context("cannot reach the cluster");
        assert_eq!(Failure::setup(untold).message(), "cannot reach the cluster: connection refused");
    }
}
