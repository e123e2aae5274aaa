//! Answers, kept until the client says that it has them.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::protocol::{Body, Message};

/// Answers take at most about this much memory, bytes; requests beyond are refused until some are acknowledged.
const FULL: usize = 2 << 20;

/// Answers in the order of their numbers, without gaps.
pub(super) struct Outbox {
    kept: VecDeque<(u64, Vec<u8>)>,
    ids: BTreeSet<u64>,
    bytes: usize,
    last_seq: u64,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self { kept: VecDeque::new(), ids: BTreeSet::new(), bytes: 0, last_seq: 0 }
    }

    pub(super) const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= FULL
    }

    /// Is an answer to this request kept?
    pub(super) fn has(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    pub(super) fn put(&mut self, id: u64, body: Body) {
        self.last_seq += 1;
        let line = line(&Message { seq: self.last_seq, id, body });
        self.bytes += line.len();
        self.ids.insert(id);
        self.kept.push_back((id, line));
    }

    fn first_seq(&self) -> u64 {
        self.last_seq - self.kept.len() as u64 + 1
    }

    /// Forgets everything up to a number.
    pub(super) fn acknowledge(&mut self, up_to: u64) {
        while self.first_seq() <= up_to
            && let Some((id, line)) = self.kept.pop_front()
        {
            self.ids.remove(&id);
            self.bytes -= line.len();
        }
    }

    pub(super) fn clear(&mut self) {
        self.acknowledge(u64::MAX);
    }

    /// The first line from a number on, with its number.
    pub(super) fn from(&self, seq: u64) -> Option<(u64, &[u8])> {
        let seq = seq.max(self.first_seq());
        let (_, line) = self.kept.get(usize::try_from(seq - self.first_seq()).ok()?)?;
        Some((seq, line))
    }
}

/// A message as a line.
pub(super) fn line(message: &Message) -> Vec<u8> {
    // Nothing in a message can fail to serialize: no maps with odd keys, no foreign code.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(outbox: &Outbox, mut from: u64) -> Vec<u64> {
        let mut found = Vec::new();
        while let Some((seq, line)) = outbox.from(from) {
            let message: Message = serde_json::from_slice(line).expect("a message");
            assert_eq!(message.seq, seq);
            found.push(seq);
            from = seq + 1;
        }
        found
    }

    #[test]
    fn answers_stay_until_acknowledged_and_are_told_from_any_point() {
        let mut outbox = Outbox::new();
        (11..=15).for_each(|id| outbox.put(id, Body::Done));
        assert_eq!(sequence(&outbox, 0), [1, 2, 3, 4, 5]);
        outbox.acknowledge(2);
        assert_eq!(sequence(&outbox, 0), [3, 4, 5]);
        assert_eq!(sequence(&outbox, 5), [5]);
        assert!(sequence(&outbox, 6).is_empty());
        assert_eq!([12, 13].map(|id| outbox.has(id)), [false, true]);
        outbox.clear();
        assert_eq!((outbox.len(), outbox.bytes, outbox.ids.len()), (0, 0, 0));
        outbox.put(16, Body::Done);
        assert_eq!(sequence(&outbox, 0), [6]);
    }
}
