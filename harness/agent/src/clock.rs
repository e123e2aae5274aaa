//! Time in microseconds.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Microseconds per millisecond.
pub(crate) const MILLISECOND: u64 = 1_000;

/// Microseconds by a clock that never jumps; for durations and deadlines.
pub(crate) fn monotonic_us() -> u64 {
    microseconds(clock_gettime(ClockId::Monotonic))
}

/// Microseconds since 1970; for timestamps that are compared with another machine's.
pub(crate) fn wall_us() -> u64 {
    microseconds(clock_gettime(ClockId::Realtime))
}

fn microseconds(time: Timespec) -> u64 {
    time.tv_sec.cast_unsigned().wrapping_mul(1_000_000).wrapping_add(time.tv_nsec.cast_unsigned() / 1_000)
}
