//! Short stable hashes of pod templates, for `pod-template-hash` and revision names.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Letters and digits that form no words by accident, as Kubernetes uses in generated names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten safe characters from the JSON of a value and a number that changes after a collision.
pub(crate) fn short_hash<T: Serialize>(value: &T, collisions: i32) -> Result<String, serde_json::Error> {
    // Through `Value`, whose maps are sorted: equal values give equal text.
    let text = serde_json::to_value(value)?.to_string();
    let mut hasher = Sha256::new();
    hasher.update(text.as_bytes());
    if collisions > 0 {
        hasher.update(collisions.to_be_bytes());
    }
    let digest = hasher.finalize();
    Ok(digest.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_and_differ_after_a_collision() {
        let first = short_hash(&["a"], 0).unwrap();
        assert_eq!(first, short_hash(&["a"], 0).unwrap());
        assert_ne!(first, short_hash(&["a"], 1).unwrap());
        assert_ne!(first, short_hash(&["b"], 0).unwrap());
        assert_eq!(first.len(), 10);
    }
}
