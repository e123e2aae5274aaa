//! What a container has printed.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::stream;
use jiff::{SignedDuration, Timestamp};

use super::{Query, Target, find_pod, flag, value};
use crate::kubelet::Host;
use crate::output::{Entry, Output};
use crate::pod::record::{ContainerRecord, State as ContainerState};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    follow: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<usize>,
}

pub(super) async fn handle(
    State(host): State<Arc<Host>>,
    Target { 0: (namespace, pod, container) }: Target,
    Query { 0: query }: Query,
) -> Response {
    let bad = |message: String| (StatusCode::BAD_REQUEST, message).into_response();
    let wanted = match Wanted::parse(&query, Timestamp::now()) {
        Ok(wanted) => wanted,
        Err(message) => return bad(message),
    };
    let cell = match find_pod(&host, &namespace, &pod) {
        Ok(cell) => cell,
        Err(refusal) => return refusal.into_response(),
    };
    let record = cell.record().containers.into_iter().find(|record| record.name == container);
    let Some(record) = record else {
        let message = format!("container \"{container}\" in pod \"{pod}\" is not available\n");
        return (StatusCode::NOT_FOUND, message).into_response();
    };
    match choose(&record, flag(&query, "previous"), &pod) {
        Ok(output) => {
            let kind = [(header::CONTENT_TYPE, "text/plain")];
            (kind, Body::from_stream(lines(output, wanted))).into_response()
        }
        Err(message) => bad(message),
    }
}

fn choose(record: &ContainerRecord, previous: bool, pod: &str) -> Result<Arc<Output>, String> {
    let name = &record.name;
    let waits = matches!(record.state, ContainerState::Waiting { .. });
    // While a container waits for its restart, the latest run is the previous one, too.
    let chosen = match (previous, waits) {
        (true, true) => &record.output,
        (true, false) => &record.previous_output,
        (false, _) => &record.output,
    };
    if let Some(output) = chosen {
        return Ok(Arc::clone(output));
    }
    if previous {
        return Err(format!("previous terminated container \"{name}\" in pod \"{pod}\" not found\n"));
    }
    let reason = match &record.state {
        ContainerState::Waiting { reason, .. } => reason.as_str(),
        _ => "it has not printed anything",
    };
    Err(format!("container \"{name}\" in pod \"{pod}\" is waiting to start: {reason}\n"))
}

impl Wanted {
    fn parse(query: &[(String, String)], now: Timestamp) -> Result<Self, String> {
        let number = |name: &str| -> Result<Option<i64>, String> {
            let Some(text) = value(query, name).filter(|text| !text.is_empty()) else { return Ok(None) };
            match text.parse::<i64>() {
                Ok(number) if number >= 0 => Ok(Some(number)),
                _ => Err(format!("invalid value \"{text}\" of {name}: must be a whole number, 0 or more\n")),
            }
        };
        let since_time = value(query, "sinceTime").filter(|text| !text.is_empty()).map(|text| {
            text.parse().map_err(|_| format!("invalid value \"{text}\" of sinceTime: must be a time as in RFC 3339\n"))
        });
        let since = match number("sinceSeconds")? {
            Some(seconds) => now.checked_sub(SignedDuration::from_secs(seconds)).ok(),
            None => since_time.transpose()?,
        };
        let size = |number: Option<i64>| number.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        Ok(Self {
            follow: flag(query, "follow"),
            timestamps: flag(query, "timestamps"),
            tail: size(number("tailLines")?),
            since,
            limit: size(number("limitBytes")?),
        })
    }
}

/// Where a stream of lines is.
struct Position {
    output: Arc<Output>,
    wanted: Wanted,
    changes: tokio::sync::watch::Receiver<()>,
    next: u64,
    first: bool,
    over: bool,
    at_line_start: bool,
    left: usize,
}

fn lines(output: Arc<Output>, wanted: Wanted) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let changes = output.changes();
    let left = wanted.limit.unwrap_or(usize::MAX);
    let position = Position { output, wanted, changes, next: 0, first: true, over: false, at_line_start: true, left };
    stream::unfold(position, async |mut position| {
        let piece = position.next().await?;
        Some((Ok(piece), position))
    })
}

impl Position {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.over || self.left == 0 {
                return None;
            }
            self.changes.borrow_and_update();
            let batch = self.output.read(self.next);
            self.next = batch.next;
            self.over = batch.closed || !self.wanted.follow;
            let mut entries = batch.entries;
            if let Some(since) = self.wanted.since {
                entries.retain(|entry| entry.time >= since);
            }
            let first = std::mem::take(&mut self.first);
            if let Some(tail) = self.wanted.tail.filter(|_| first) {
                entries = last_lines(entries, tail);
            }
            let text = self.render(&entries);
            if !text.is_empty() {
                return Some(text);
            }
            if !self.over && self.changes.changed().await.is_err() {
                return None;
            }
        }
    }

    fn render(&mut self, entries: &[Entry]) -> Bytes {
        let mut text = BytesMut::new();
        for entry in entries {
            if self.at_line_start && self.wanted.timestamps {
                text.extend_from_slice(format!("{:.9} ", entry.time).as_bytes());
            }
            text.extend_from_slice(&entry.text);
            self.at_line_start = entry.text.ends_with(b"\n");
        }
        text.truncate(self.left);
        self.left -= text.len();
        text.freeze()
    }
}

/// The entries of the last `count` lines; a long line may have several entries.
fn last_lines(entries: Vec<Entry>, count: usize) -> Vec<Entry> {
    let mut kept = VecDeque::new();
    let mut lines = 0;
    for (index, entry) in entries.into_iter().rev().enumerate() {
        if entry.text.ends_with(b"\n") || index == 0 {
            lines += 1;
        }
        if lines > count {
            break;
        }
        kept.push_front(entry);
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::output::Stream;

    fn query(text: &[(&str, &str)]) -> Wanted {
        let query: Vec<_> = text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Wanted::parse(&query, Timestamp::now()).unwrap()
    }

    async fn read(output: &Arc<Output>, wanted: Wanted) -> String {
        let pieces: Vec<_> = lines(Arc::clone(output), wanted).collect().await;
        pieces.into_iter().map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap()).collect()
    }

    fn three_lines() -> Arc<Output> {
        let output = Output::new();
        output.take(Stream::Out, b"one\ntwo\nthree\n", &mut Vec::new());
        output
    }

    #[tokio::test]
    async fn tail_and_limit() {
        let output = three_lines();
        assert_eq!(read(&output, query(&[])).await, "one\ntwo\nthree\n");
        assert_eq!(read(&output, query(&[("tailLines", "2")])).await, "two\nthree\n");
        assert_eq!(read(&output, query(&[("tailLines", "0")])).await, "");
        assert_eq!(read(&output, query(&[("limitBytes", "5")])).await, "one\nt");
        assert_eq!(read(&output, query(&[("sinceSeconds", "60")])).await, "one\ntwo\nthree\n");
        assert_eq!(read(&output, query(&[("sinceTime", "2999-01-01T00:00:00Z")])).await, "");
    }

    #[tokio::test]
    async fn following_ends_with_the_container() {
        let output = three_lines();
        let reader = tokio::spawn({
            let output = Arc::clone(&output);
            async move { read(&output, query(&[("follow", "true"), ("tailLines", "1")])).await }
        });
        tokio::task::yield_now().await;
        output.take(Stream::Err, b"four\n", &mut Vec::new());
        output.close();
        assert_eq!(reader.await.unwrap(), "three\nfour\n");
    }

    #[tokio::test]
    async fn timestamps_have_nanoseconds() {
        let text = read(&three_lines(), query(&[("timestamps", "true"), ("tailLines", "1")])).await;
        let (time, line) = text.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == "2026-01-01T00:00:00.000000000Z".len(), "{time}");
        assert_eq!(line, "three\n");
    }

    #[test]
    fn nonsense_is_refused() {
        let query = [("tailLines".to_owned(), "many".to_owned())];
        assert!(Wanted::parse(&query, Timestamp::now()).unwrap_err().contains("tailLines"));
    }
}
