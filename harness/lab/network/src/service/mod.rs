//! Services: what of them matters, and which rows of OVN and flows of br-ex follow from it. All pure.
//!
//! * [`facts`]: a Service and its EndpointSlices, reduced to addresses, ports and endpoints
//! * [`rows`]: facts and networks to load balancers
//! * [`change`]: from the load balancers that OVN has to those it should have
//! * [`claims`]: which of two services an external address belongs to
//! * [`exposure`]: what br-ex lets in, and for whom

pub(crate) mod change;
pub(crate) mod claims;
pub(crate) mod exposure;
pub(crate) mod facts;
pub(crate) mod rows;

/// Label with the name of a slice's service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// … of a mirrored slice's.
pub(crate) const MIRRORED_SERVICE_NAME: &str = "k8s.ovn.org/service-name";

/// Kubernetes' default range of node ports.
pub(crate) const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
