//! One module per command.

pub(crate) mod bench;
pub(crate) mod cleanup;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod lab;
pub(crate) mod list;
pub(crate) mod manual;
mod repeat;
pub(crate) mod report;
pub(crate) mod run;
