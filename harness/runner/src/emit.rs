//! Stamps events and sends them on.

use tokio::sync::mpsc::UnboundedSender;
use udn_model::event::{Event, EventKind};

/// Where events go. A receiver that went away is no reason to stop: clean-up must still be done.
#[derive(Clone, Debug)]
pub(crate) struct Emitter(UnboundedSender<Event>);

impl Emitter {
    pub(crate) const fn new(sender: UnboundedSender<Event>) -> Self {
        Self(sender)
    }

    pub(crate) fn emit(&self, kind: EventKind) {
        let event = Event { at_us: jiff::Timestamp::now().as_microsecond(), kind };
        if self.0.send(event).is_err() {
            tracing::debug!("nobody listens to events any more");
        }
    }

    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.emit(EventKind::Warning { message: message.into() });
    }
}
