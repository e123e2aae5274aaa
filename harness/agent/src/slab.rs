//! Numbered slots. A number is never valid for a later occupant of its slot, so that an event which was on its way when
//! a socket was closed finds nobody instead of the wrong one.

use alloc::vec::Vec;

/// Number of an occupied slot: position in the low 32 bits, the slot's generation (24 bits) above.
pub(crate) type Key = u64;

const GENERATIONS: u32 = 1 << 24;

/// Values in numbered slots.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Puts a value into a free slot.
    pub(crate) fn insert(&mut self, value: T) -> Key {
        if let Some(position) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(position as usize)
        {
            slot.value = Some(value);
            return key(position, slot.generation);
        }
        // At most a few thousand sockets are open at once: the position fits.
        let position = self.slots.len() as u32;
        self.slots.push(Slot { generation: 0, value: Some(value) });
        key(position, 0)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        if slot.generation == generation(key) { slot.value.as_mut() } else { None }
    }

    /// Takes the value out and frees the slot.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        if slot.generation != generation(key) {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(key as u32);
        Some(value)
    }

    /// Keys of all occupied slots.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some());
        occupied.map(|(position, slot)| key(position as u32, slot.generation)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

fn key(position: u32, generation: u32) -> Key {
    u64::from(generation) << 32 | u64::from(position)
}

fn generation(key: Key) -> u32 {
    (key >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_value() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(first as u32, second as u32, "the slot is used again");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
        assert_eq!((slab.len(), slab.keys()), (1, vec![second]));
    }
}
