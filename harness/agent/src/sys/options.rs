//! Socket options.

use core::ffi::c_int;
use core::mem::size_of_val;

use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::check;

/// One instruction of a classic packet filter (`struct sock_filter`): code, jump if true, jump if false, operand.
pub(crate) type Instruction = (u16, u8, u8, u32);

/// Sets an option whose value is an `int`.
pub(crate) fn set_int(socket: impl AsFd, level: c_int, option: c_int, value: c_int) -> Result<(), Errno> {
    set(socket, level, option, &value)
}

/// Sets an option whose value is bytes.
pub(crate) fn set_bytes<const N: usize>(
    socket: impl AsFd,
    level: c_int,
    option: c_int,
    value: [u8; N],
) -> Result<(), Errno> {
    set(socket, level, option, &value)
}

/// Sets an option whose value is plain data.
fn set<T: Copy>(socket: impl AsFd, level: c_int, option: c_int, value: &T) -> Result<(), Errno> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the pointer is valid for `length` bytes while the call lasts; the kernel only reads.
    let returned = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, core::ptr::from_ref(value).cast(), length)
    };
    check(returned as isize).map(drop)
}

/// Lets the kernel drop what the filter does not accept, before it is queued.
pub(crate) fn attach_filter(socket: impl AsFd, program: &[Instruction]) -> Result<(), Errno> {
    let mut instructions: alloc::vec::Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    // `instructions` outlives the call, which copies it.
    set(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_FILTER,
        &libc::sock_fprog { len: length, filter: instructions.as_mut_ptr() },
    )
}

/// Lets the kernel queue this many bytes for a socket that many send to at once, as far as the system allows.
pub(crate) fn enlarge_queue(socket: impl AsFd, bytes: usize) {
    // Beyond `net.core.rmem_max` only with CAP_NET_ADMIN; less room is still room.
    if sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, bytes);
    }
}

/// Packets that a capture socket lost because nobody read them in time, since the last call.
pub(crate) fn capture_drops(socket: impl AsFd) -> Result<u32, Errno> {
    // `struct tpacket_stats`: packets, drops.
    let mut statistics = [0_u32; 2];
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `statistics`, for which any bytes are valid.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(returned as isize)?;
    Ok(statistics[1])
}

/// `linux/if_packet.h`.
const PACKET_STATISTICS: c_int = 6;
