//! Which shared libraries a program asks for: enough of ELF (64 bit, little endian) to check that a tree is complete.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

const PROGRAM_LOAD: u32 = 1;
const PROGRAM_DYNAMIC: u32 = 2;
const DYNAMIC_NEEDED: u64 = 1;
const DYNAMIC_STRINGS: u64 = 5;

/// Names of the libraries that `bytes` needs; empty for anything that is not a dynamic 64-bit little-endian ELF file.
#[must_use]
pub fn needed(bytes: &[u8]) -> Vec<String> {
    read(bytes).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Option<Vec<String>> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let start = usize::try_from(u64_at(bytes, 0x20)?).ok()?;
    let size = usize::from(u16_at(bytes, 0x36)?);
    let count = usize::from(u16_at(bytes, 0x38)?);
    let headers: Vec<usize> = (0..count).map(|index| start + index * size).collect();
    let of_kind = |kind| headers.iter().copied().filter(move |&at| u32_at(bytes, at) == Some(kind));
    // A virtual address lies in the one segment that is loaded around it.
    let in_file = |address: u64| {
        of_kind(PROGRAM_LOAD).find_map(|at| {
            let (offset, base) = (u64_at(bytes, at + 8)?, u64_at(bytes, at + 16)?);
            let length = u64_at(bytes, at + 32)?;
            (base..base.checked_add(length)?).contains(&address).then(|| offset + (address - base))
        })
    };
    let dynamic = of_kind(PROGRAM_DYNAMIC).next()?;
    let (from, length) = (u64_at(bytes, dynamic + 8)?, u64_at(bytes, dynamic + 32)?);
    let from = usize::try_from(from).ok()?;
    let entries: Vec<(u64, u64)> = (0..usize::try_from(length).ok()? / 16)
        .map_while(|index| Some((u64_at(bytes, from + index * 16)?, u64_at(bytes, from + index * 16 + 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let strings = entries.iter().find(|(tag, _)| *tag == DYNAMIC_STRINGS).and_then(|(_, at)| in_file(*at))?;
    let names = entries.iter().filter(|(tag, _)| *tag == DYNAMIC_NEEDED).filter_map(|(_, offset)| {
        let rest = bytes.get(usize::try_from(strings + offset).ok()?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    });
    Some(names.collect())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Every library that a program or library below `root` needs and that is not in `libraries`, with one file that needs
/// it.
///
/// # Errors
/// When the tree cannot be read.
pub fn missing(root: &Path, libraries: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let present: HashSet<String> =
        std::fs::read_dir(libraries)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let mut missing: Vec<(String, PathBuf)> = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                for name in needed(&std::fs::read(entry.path())?) {
                    if !present.contains(&name) && !missing.iter().any(|(known, _)| *known == name) {
                        missing.push((name, entry.path()));
                    }
                }
            }
        }
    }
    missing.sort();
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_this_test_program_needs() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        assert!(needed(&program).iter().any(|name| name.starts_with("libc.so")), "{:?}", needed(&program));
    }

    #[test]
    fn anything_else_needs_nothing() {
        assert!(needed(b"#!/bin/sh\n").is_empty());
        assert!(needed(b"\x7fELF\x02\x01 cut short").is_empty());
    }
}
