//! What can go wrong in a controller.

/// An error of a controller. Controllers retry all of them with a growing delay; only [`Error::Stopped`] reaches the
/// caller of [`crate::run`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("cannot {attempt} {kind} {object}: {source}; it is tried again, look at the API server if this repeats")]
    Request {
        /// What was attempted, a verb of the API.
        attempt: &'static str,
        /// The kind of the object.
        kind: String,
        /// `namespace/name`, or the name alone.
        object: String,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The kinds that the API server has could not be listed.
    #[error("cannot discover the kinds of the API server: {source}; check that /api and /apis answer")]
    Discovery {
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object's label selector means nothing.
    #[error("the label selector of {object} is invalid: {reason}; correct its spec.selector")]
    Selector {
        /// `kind namespace/name`.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object could not be written as JSON.
    #[error("cannot encode {object} as JSON: {source}; this is a defect of the controllers")]
    Encode {
        /// What was encoded.
        object: String,
        /// What the encoder said.
        #[source]
        source: serde_json::Error,
    },
    /// The names for kube-dns could not be written.
    #[error("cannot write the records of kube-dns to {file}: {source}; see whether its folder can be written to")]
    Records {
        /// The file.
        file: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A controller's task ended, which it never does by itself.
    #[error("controller task {task} ended: {reason}; start the controllers again and report this as a defect")]
    Stopped {
        /// Its name.
        task: String,
        /// A panic's message or `cancelled`.
        reason: String,
    },
}

impl Error {
    /// The API server's status code of a failed request, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Request { source, .. } => status_code(source),
            _ => None,
        }
    }

    /// The object was changed by somebody else meanwhile, or is being created twice.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Nothing to worry about: somebody else was faster, or the object or its namespace is going or gone.
    pub(crate) fn is_ordinary(&self) -> bool {
        self.is_conflict() || self.is_not_found() || self.server_message().contains("is being terminated")
    }

    /// The object is gone.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// What the API server answered, without our own words around it.
    pub(crate) fn server_message(&self) -> String {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }
}

/// The API server's status code, if it answered.
pub(crate) fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
