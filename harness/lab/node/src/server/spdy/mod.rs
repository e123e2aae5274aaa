//! Exec and attach over SPDY/3.1: `v4.channel.k8s.io`, each channel a stream that the client opens.
//!
//! * [`handshake`]: the HTTP request that becomes a connection
//! * [`frames`]: frames as bytes
//! * [`headers`], [`dictionary`]: compressed blocks of headers
//! * [`reader`]: frames out of a connection
//! * [`opening`]: the client's streams, until all are there
//! * [`incoming`], [`outgoing`]: what the client sends, and what it gets
//! * [`session`]: a connection from its beginning to its end
//!
//! Kubernetes' own implementations have no flow control, and neither has this one: a side that is too slow stops the
//! connection, and thereby the other side.

mod dictionary;
mod frames;
mod handshake;
mod headers;
mod incoming;
mod opening;
mod outgoing;
mod reader;
mod session;
#[cfg(test)]
mod tests;

pub(super) use handshake::Handshake;
