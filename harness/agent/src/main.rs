//! The agent as a program: an entry point, an allocator and a last word, for there is no standard library to bring them.
//! Everything else is in the library.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // The C entry point's arguments, and the C allocator: nobody else provides them.

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_char, c_int};
use core::panic::PanicInfo;

struct Malloc;

/// What the C library's allocator aligns to anyway.
const ALIGNED: usize = 2 * size_of::<usize>();

// SAFETY: the C library's allocator, asked for the size and alignment of the layout.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: both take any size; a layout's alignment is a power of two.
        unsafe {
            if layout.align() <= ALIGNED {
                libc::malloc(layout.size()).cast()
            } else {
                libc::memalign(layout.align(), layout.size()).cast()
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _layout: Layout) {
        // SAFETY: the caller got it from `alloc`.
        unsafe { libc::free(pointer.cast()) }
    }
}

#[global_allocator]
static ALLOCATOR: Malloc = Malloc;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: takes nothing, never returns. The message would cost more bytes than the program has to spare.
    unsafe { libc::abort() }
}

/// Named by the unwind tables of the prebuilt `core` and `alloc`; never called, since a panic aborts.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}

/// Where the C library starts the program.
///
/// # Safety
/// `arguments` points to `count` strings that live as long as the program, as the C library's do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    let words: Vec<&str> = (0..usize::try_from(count).unwrap_or(0))
        // SAFETY: as this function requires.
        .map(|position| unsafe { CStr::from_ptr(*arguments.add(position)) })
        .map(|argument| argument.to_str().unwrap_or("?"))
        .collect();
    udn_agent::program::run(&words)
}
