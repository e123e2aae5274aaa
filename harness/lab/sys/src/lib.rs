//! Namespaces, processes and the site facts that the parts of the lab share.
//!
//! * [`error`]: what can go wrong, with its remedy
//! * [`ground`]: underlay, nodes, Open vSwitch and OVN daemons, their health
//! * [`netns`]: network namespaces held by file descriptor, and sockets and netlink inside them
//! * [`offload`]: checksum offload of an interface
//! * [`ovsdb`]: requests to a database of Open vSwitch or OVN
//! * [`packages`]: Open vSwitch, OVN and the pods' image, found or fetched
//! * [`pod`]: what the node agent asks of the network for a pod
//! * [`sandbox`]: a process tree in namespaces of its own, that leaves nothing however it ends
//! * [`site`]: what exists once the lab is up: nodes, underlay, OVN, tools
//! * [`tap`]: interfaces for emulators

pub mod error;
pub mod ground;
pub mod netns;
pub mod offload;
pub mod ovsdb;
pub mod packages;
pub mod pod;
pub mod sandbox;
pub mod site;
pub mod tap;
