//! Why a pod does not get what it asks for, in the words of the pod's event and of its claim's condition.

/// What an IPAMClaim's condition calls it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    /// No address of the subnet is left.
    Exhausted,
    /// Somebody has the address.
    AddressConflict,
    /// Somebody has the MAC.
    MacConflict,
    /// Anything else.
    Internal,
}

impl Cause {
    /// The condition's reason.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Exhausted => "SubnetExhausted",
            Self::AddressConflict => "IPAddressConflict",
            Self::MacConflict => "MACAddressConflict",
            Self::Internal => "InternalError",
        }
    }
}

/// A request that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Denied {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

impl Denied {
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { cause: Cause::Internal, message: message.into() }
    }
}

impl From<String> for Denied {
    fn from(message: String) -> Self {
        Self::internal(message)
    }
}
