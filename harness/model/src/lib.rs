//! What must hold: the words, rules, oracle and plan of User Defined Network conformance.
//!
//! Pure data and pure functions: nothing here opens a socket, reads a clock or knows Kubernetes' client. A reader who
//! wants to know *what is asserted* needs this crate and the suites, nothing else.
//!
//! | module | what it holds |
//! |---|---|
//! | [`words`] | topology, role, transport, family: the nouns that everything else is made of |
//! | [`rule`] | every promise with its name, sentence and source |
//! | [`world`] | namespaces, networks and pods, read from plain manifests |
//! | [`cell`] | one assertion: vantage point × target × transport × family, and its expectation |
//! | [`claim`] | objects, and what is promised of them |
//! | [`feature`] | what a cluster must offer for a cell to be tried |
//! | [`flow`] | connections that go on from phase to phase, and how they fared |
//! | [`migration`] | migrations of VMs and their course |
//! | [`dns`] | names that DNS knows, or must not know |
//! | [`oracle`] | computes every cell's expectation from a world by the rules |
//! | [`fact`] | what a pod must look like inside: interfaces, addresses, routes |
//! | [`scenario`] | fixtures and phases as data |
//! | [`series`] | many connections to one address, and what is promised of them together |
//! | [`plan`] | suites and filters into the list of cells, each with the reason it would be skipped |
//! | [`naming`] | names of a world and names of a run |
//! | [`baseline`] | which cells are known to fail, where and why |
//! | [`filter`] | what a user types to select cells |
//! | [`observation`] | what was seen: outcomes, attempts, arrivals |
//! | [`verdict`] | pass, fail, unstable, error, skip, known, fixed, and how one is reached |
//! | [`event`] | everything a run reports, in order |

pub mod baseline;
pub mod cell;
pub mod claim;
pub mod dns;
pub mod event;
pub mod fact;
pub mod feature;
pub mod filter;
pub mod flow;
pub mod migration;
pub mod naming;
pub mod observation;
pub mod oracle;
pub mod plan;
pub mod rule;
pub mod scenario;
pub mod series;
pub mod verdict;
pub mod words;
pub mod world;
