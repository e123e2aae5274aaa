//! The static programs that travel into pods, built and embedded.
//!
//! The build script compiles them with the profile `pod`; they run wherever a kernel of this machine's architecture runs.

/// The probe agent (`udn-agent`): at most 1 MiB.
pub static AGENT: &[u8] = include_bytes!(env!("UDN_PROGRAM_AGENT"));

/// The lab's stand-in for the `agnhost` and `pause` images (`udn-agnhost`).
pub static AGNHOST: &[u8] = include_bytes!(env!("UDN_PROGRAM_AGNHOST"));

/// The lab's stand-in for CoreDNS (`udn-dns`).
pub static DNS: &[u8] = include_bytes!(env!("UDN_PROGRAM_DNS"));

#[cfg(test)]
mod tests {
    use super::*;

    /// Types of the program headers of a 64-bit little-endian ELF file.
    fn segments(program: &[u8]) -> Vec<u32> {
        let number = |at: usize, length: usize| {
            program[at..at + length].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) as usize
        };
        assert_eq!(&program[..6], b"\x7fELF\x02\x01");
        let (table, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
        (0..count).map(|segment| number(table + segment * size, 4) as u32).collect()
    }

    #[test]
    fn programs_need_no_interpreter_and_no_library() {
        for (name, program) in [("agent", AGENT), ("agnhost", AGNHOST), ("dns", DNS)] {
            let segments = segments(program);
            // PT_LOAD 1, PT_DYNAMIC 2, PT_INTERP 3.
            assert!(segments.contains(&1), "{name}: nothing to load: {segments:?}");
            assert!(!segments.contains(&2) && !segments.contains(&3), "{name} is linked dynamically: {segments:?}");
        }
    }

    #[test]
    fn the_agent_is_at_most_a_mebibyte() {
        assert!(AGENT.len() <= 1 << 20, "the agent has {} bytes", AGENT.len());
    }
}
