//! The bytes of a bulk transfer: they are those of their place, so that whoever gets them sees if any is missing, comes twice
//! or is another's. TCP's own checksum is not always computed: between virtual machines it is often left out.

/// After so many bytes they begin anew. A prime: whatever segments and buffers are lost or come twice are no multiple of it.
/// Small: the agent has these bytes twice, and is to have a mebibyte at most.
const PERIOD: usize = 2_039;

/// Multiplied by this (the golden ratio of 64 bits) neighbouring numbers differ in all bytes.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Twice the period: from each place on a whole one is in one piece, and nothing is computed while it is sent or compared.
static BYTES: [u8; 2 * PERIOD] = bytes();

const fn bytes() -> [u8; 2 * PERIOD] {
    let mut bytes = [0; 2 * PERIOD];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = ((at % PERIOD) as u64 + 1).wrapping_mul(SPREAD).to_be_bytes()[0];
        at += 1;
    }
    bytes
}

/// The bytes from this place of the transfer on, at least [`PERIOD`] of them.
pub(super) fn from(place: u64) -> &'static [u8] {
    BYTES.get((place % PERIOD as u64) as usize..).unwrap_or_default()
}

/// Whether these are the bytes from this place on.
pub(super) fn is_right(place: u64, mut bytes: &[u8]) -> bool {
    let mut at = place;
    while !bytes.is_empty() {
        let should = from(at);
        let (piece, rest) = bytes.split_at(should.len().min(bytes.len()));
        if !should.starts_with(piece) {
            return false;
        }
        at += piece.len() as u64;
        bytes = rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn bytes_are_right_at_their_place_and_nowhere_else() {
        let mut whole: Vec<u8> = Vec::new();
        while whole.len() < 5 * 16 * 1024 {
            // However they are cut.
            let piece = from(whole.len() as u64);
            assert!(piece.len() >= PERIOD);
            whole.extend_from_slice(&piece[..1 + whole.len() % piece.len()]);
        }
        for place in [0, 1, PERIOD - 1, PERIOD, 3 * PERIOD + 5] {
            assert!(is_right(place as u64, &whole[place..]), "{place}");
        }
        for missing in [1, 8, 1, 1448, 16 * 1024, 64 * 1024] {
            assert!(!is_right(0, &whole[missing..]), "{missing} are missing");
            assert!(!is_right(missing as u64, &whole), "{missing} come again");
        }
        whole[2050] ^= 0x10;
        assert!(!is_right(0, &whole) && is_right(0, &whole[..2050]));
    }
}
