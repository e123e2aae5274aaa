//! Socket options.

use core::ffi::c_int;
use core::mem::size_of_val;

use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::check;
use crate::protocol::TcpFigures;

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

/// Lets the kernel send this many bytes a second at most, evenly.
pub(crate) fn pace(socket: impl AsFd, bytes_per_second: u32) -> Result<(), Errno> {
    set(socket, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &bytes_per_second)
}

/// Lets the kernel queue this many bytes for a socket that many send to at once, as far as the system allows.
pub(crate) fn enlarge_queue(socket: impl AsFd, bytes: usize) {
    // Beyond `net.core.rmem_max` only with CAP_NET_ADMIN; less room is still room.
    if sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, bytes);
    }
}

/// Lets the kernel keep this many bytes of what a socket has sent, as far as the system allows.
pub(crate) fn enlarge_send_buffer(socket: impl AsFd, bytes: usize) {
    // As above, for `net.core.wmem_max`. rustix has no safe function for the first.
    if set_int(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes as c_int).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(&socket, bytes);
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

/// Bytes that the peer of a TCP connection has acknowledged, as far as the kernel counts them.
pub(crate) fn bytes_acknowledged(socket: impl AsFd) -> Result<u64, Errno> {
    // `struct tcp_info`: `tcpi_bytes_acked` is behind 26 words and two numbers of 64 bits.
    let mut words = [0_u64; 16];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`, for which any bytes are valid.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(returned as isize)?;
    Ok(words[15])
}

/// What the kernel knows of a TCP connection.
pub(crate) fn tcp_figures(socket: impl AsFd) -> Result<TcpFigures, Errno> {
    // `struct tcp_info` of `linux/tcp.h`: eight bytes, then numbers of 32 bits. An older kernel fills in fewer, a newer
    // one cuts it to what is asked for.
    let mut words = [0_u32; 26];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`, for which any bytes are valid.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(returned as isize)?;
    let [state, _, _, _] = words[0].to_ne_bytes();
    let [backoff, _, _, _] = words[1].to_ne_bytes();
    Ok(TcpFigures {
        state,
        retransmits: words[25],
        lost: words[8],
        unacked: words[6],
        backoff,
        rto_us: words[2],
        rtt_us: words[17],
    })
}

/// `linux/if_packet.h`.
const PACKET_STATISTICS: c_int = 6;

/// Bytes written to a terminal that have not left; 0 for what is none.
pub(crate) fn unsent(terminal: impl AsFd) -> Result<c_int, Errno> {
    let mut bytes: c_int = 0;
    // SAFETY: the kernel writes an `int` to `bytes`, or nothing.
    let returned = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match check(returned as isize) {
        Ok(_) => Ok(bytes),
        Err(Errno::NOTTY | Errno::INVAL) => Ok(0),
        Err(errno) => Err(errno),
    }
}
