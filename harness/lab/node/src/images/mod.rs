//! Images: a short catalogue instead of a registry.
//!
//! * [`catalogue`]: from an image's reference to what it holds, and the words for one that is unknown
//! * [`tree`]: read-only directory trees of the lab as the root file systems of containers

mod catalogue;
mod tree;

pub(crate) use catalogue::{Contents, Image, find};
pub(crate) use tree::{Images, devices, private_directories};
