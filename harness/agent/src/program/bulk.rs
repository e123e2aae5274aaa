//! A single bulk transfer, printed: the command that repeats what a report says of one.

use alloc::vec::Vec;

use rustix::io::Errno;

use super::{Error, print_json};
use crate::flow::bulk::Bulks;
use crate::protocol::{Body, Bulk, Direction};
use crate::reactor::{Event, Reactor};

/// Timeout unless told otherwise, milliseconds.
const TIMEOUT_MS: u32 = 3_000;

/// How long it runs unless told otherwise, milliseconds.
const BULK_MS: u32 = 10_000;

/// Makes a bulk transfer and prints how it went.
pub(super) fn bulk(arguments: &[&str]) -> Result<(), Error> {
    let waiting = |errno: Errno| Error::system("wait for the transfer", errno, "raise the limit of open files");
    let bulk = parse(arguments)?;
    let mut reactor = Reactor::new().map_err(waiting)?;
    let mut bulks = Bulks::new();
    bulks.take(&mut reactor, 1, &bulk);
    let mut events = Vec::new();
    loop {
        match bulks.take_ended().pop() {
            Some((_, Body::Bulk(result))) => return print_json(&result),
            Some((_, Body::Failed(failure))) => return Err(Error::Failed(failure)),
            _ => {}
        }
        reactor.wait(&mut events, false).map_err(waiting)?;
        for event in events.drain(..) {
            match event {
                Event::Due(token) => bulks.due(&mut reactor, token.key()),
                Event::Ready(token, _) => bulks.ready(&mut reactor, token.key()),
            }
        }
    }
}

fn parse(arguments: &[&str]) -> Result<Bulk, Error> {
    let [target, options @ ..] = arguments else { return Err(Error::usage("a bulk transfer needs a target")) };
    let to = target.parse().map_err(|_| Error::usage("the target is no ADDRESS:PORT ([ADDRESS]:PORT for IPv6)"))?;
    let mut bulk = Bulk {
        to,
        from: None,
        source_port: None,
        direction: Direction::Send,
        bytes_per_second: None,
        connect_timeout_ms: TIMEOUT_MS,
        limit_ms: BULK_MS,
    };
    for option in options.chunks(2) {
        match *option {
            ["--direction", "send"] => bulk.direction = Direction::Send,
            ["--direction", "receive"] => bulk.direction = Direction::Receive,
            ["--bytes-per-second", number] => {
                let rate = number.parse().map_err(|_| Error::usage("--bytes-per-second takes a number"))?;
                bulk.bytes_per_second = Some(rate);
            }
            ["--for-ms", number] => {
                bulk.limit_ms = number.parse().map_err(|_| Error::usage("--for-ms takes a number"))?;
            }
            ["--timeout-ms", number] => {
                bulk.connect_timeout_ms = number.parse().map_err(|_| Error::usage("--timeout-ms takes a number"))?;
            }
            _ => return Err(Error::usage("unknown option of bulk, or one without its value")),
        }
    }
    Ok(bulk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_read_from_words() {
        let bulk = parse(&["[fd00::1]:80", "--bytes-per-second", "9", "--for-ms", "700"]).expect("a transfer");
        assert_eq!((bulk.direction, bulk.bytes_per_second, bulk.limit_ms), (Direction::Send, Some(9), 700));
        assert_eq!(parse(&["10.0.0.1:80", "--direction", "receive"]).expect("it").direction, Direction::Receive);
        for wrong in
            [&["10.0.0.1"][..], &[], &["10.0.0.1:1", "--direction"], &["10.0.0.1:1", "--bytes-per-second", "x"]]
        {
            assert!(matches!(parse(wrong), Err(Error::Usage { .. })), "{wrong:?}");
        }
    }
}
