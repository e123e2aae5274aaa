//! Whether there is room for one more guest: with too little, the kernel would end whatever it likes.

use std::path::Path;

use crate::error::Error;

/// What an emulator needs besides its guest's memory, MiB: measured 90 to 100.
const EMULATOR_MIB: u64 = 110;

/// Refuses a guest for which the host, or the lab's folder, has not enough.
pub(crate) fn check(guest_mib: u64, folder: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = available_mib(&text);
    judge(guest_mib + EMULATOR_MIB, host)?;
    // The guest's memory is a file there.
    let place = rustix::fs::statvfs(folder).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >> 20);
    judge(guest_mib, place)
}

fn judge(needed_mib: u64, free_mib: Option<u64>) -> Result<(), Error> {
    match free_mib {
        Some(free_mib) if free_mib < needed_mib => Err(Error::Memory { needed_mib, free_mib }),
        _ => Ok(()),
    }
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib >> 10)
}

/// A quantity such as `96Mi`, in MiB, rounded up.
pub(crate) fn mib(quantity: &str) -> Option<u64> {
    let split = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(split);
    let number: u64 = number.parse().ok()?;
    let bytes = number.checked_mul(match suffix {
        "" => 1,
        "k" => 1000,
        "Ki" => 1 << 10,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        "G" => 1_000_000_000,
        "Gi" => 1 << 30,
        _ => return None,
    })?;
    Some(bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_become_mebibytes() {
        for (text, expected) in [("96Mi", Some(96)), ("1Gi", Some(1024)), ("100M", Some(96)), ("1.5Gi", None), ("", None)] {
            assert_eq!(mib(text), expected, "{text}");
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_both_figures() {
        let free = available_mib("MemTotal: 1 kB\nMemAvailable:  102400 kB\n");
        assert_eq!(free, Some(100));
        let message = judge(206, free).unwrap_err().to_string();
        assert!(message.contains("206 MiB") && message.contains("100 MiB are free"), "{message}");
    }
}
