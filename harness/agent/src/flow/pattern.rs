//! The bytes of a bulk transfer: each eight are those of their place, so that whoever gets them sees if any is missing, comes
//! twice or is another's. TCP's own checksum is not always computed: between virtual machines it is often left out.

/// Bytes that tell their place.
const WORD: usize = 8;

/// Multiplied by this (the golden ratio of 64 bits) neighbouring numbers differ in all bytes.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills in the bytes from this place of the transfer on.
pub(super) fn fill(from: u64, mut buffer: &mut [u8]) {
    let mut at = from;
    while !buffer.is_empty() {
        let (word, skip) = word(at);
        let length = (WORD - skip).min(buffer.len());
        let (piece, rest) = buffer.split_at_mut(length);
        for (byte, should) in piece.iter_mut().zip(word.into_iter().skip(skip)) {
            *byte = should;
        }
        at += length as u64;
        buffer = rest;
    }
}

/// Whether these are the bytes from this place on.
pub(super) fn is_right(from: u64, mut bytes: &[u8]) -> bool {
    let mut at = from;
    while !bytes.is_empty() {
        let (word, skip) = word(at);
        let (piece, rest) = bytes.split_at((WORD - skip).min(bytes.len()));
        if !word.get(skip..).is_some_and(|should| should.starts_with(piece)) {
            return false;
        }
        at += piece.len() as u64;
        bytes = rest;
    }
    true
}

/// The word that a place is in, and the place in it.
const fn word(at: u64) -> ([u8; WORD], usize) {
    let word = WORD as u64;
    ((at / word).wrapping_mul(SPREAD).to_le_bytes(), (at % word) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn bytes_are_right_at_their_place_and_nowhere_else() {
        let mut whole = vec![0; 4096];
        fill(0, &mut whole);
        for (from, to) in [(0, 4096), (3, 4), (5, 21), (8, 16), (4095, 4096)] {
            let mut part = vec![0; to - from];
            fill(from as u64, &mut part);
            assert_eq!(part, whole[from..to], "however they are cut");
            assert!(is_right(from as u64, &part));
        }
        for shift in [1, 8, 1448] {
            assert!(!is_right(0, &whole[shift..]), "{shift} are missing");
            assert!(!is_right(2048 + shift as u64, &whole[2048..]), "{shift} come again");
        }
        whole[2049] ^= 0x10;
        assert!(!is_right(0, &whole) && is_right(0, &whole[..2049]));
    }
}
