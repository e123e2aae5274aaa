//! Migrations: a guest goes on at another node, with all that it knows.
//!
//! * [`course`]: one migration's way through its phases
//! * [`handover`]: the guest's way from emulator to emulator
//! * [`fault`]: what goes wrong on purpose
//! * [`record`]: the migration's own status, and what its instance says of it

mod course;
mod fault;
mod handover;
mod record;

pub(crate) use course::run;
