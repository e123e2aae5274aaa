//! Guests that boot: the agent as the first process of a VM under QEMU, in a namespace with a DHCP server and a router.
//!
//! Needs root and three things that are not looked for, so that nobody's machine decides what is tested:
//!
//! * `UDN_TEST_QEMU`: the command of qemu-system-x86_64 (or -aarch64), with whatever words it needs before its own
//! * `UDN_TEST_DNSMASQ`: the same for dnsmasq
//! * `UDN_TEST_KERNEL`: a folder that one package linux-image-*-cloud-* is unpacked in
//!
//! ```sh
//! cargo test -p udn-guest --test boot -- --ignored --test-threads=1
//! ```

mod console;
mod machine;
mod scenarios;
mod server;
