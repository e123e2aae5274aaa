//! Labels, annotations, finalizers, conditions and reasons as OVN-Kubernetes and Multus spell them.

/// Namespace label, empty value, set at creation: pods of the namespace wait for a primary network.
pub const PRIMARY_NETWORK_LABEL: &str = "k8s.ovn.org/primary-user-defined-network";
/// Label on attachment definitions that a UDN or CUDN owns.
pub const MANAGED_LABEL: &str = "k8s.ovn.org/user-defined-network";
/// Finalizer on UDN, CUDN and the attachment definitions they own.
pub const PROTECTION_FINALIZER: &str = "k8s.ovn.org/user-defined-network-protection";
/// Pod annotation written by the network: addresses, MAC, gateways, routes and role per network.
pub const POD_NETWORKS: &str = "k8s.ovn.org/pod-networks";
/// Pod annotation: secondary attachments.
pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// Pod annotation: what the pod's interfaces got.
pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// Pod annotation: requests for the primary attachment; immutable.
pub const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// Pod annotation: ports of the default-network address that are open although the pod's primary network is another.
pub const OPEN_DEFAULT_PORTS: &str = "k8s.ovn.org/open-default-ports";
/// Pod annotation: the IPAMClaim of the primary network (deprecated by OVN-Kubernetes).
pub const PRIMARY_IPAM_CLAIM: &str = "k8s.ovn.org/primary-udn-ipamclaim";
/// Node annotation: subnets per network.
pub const NODE_SUBNETS: &str = "k8s.ovn.org/node-subnets";
/// Node annotation: numeric network ids per network (older releases; newer ones put it on the NAD as [`NETWORK_ID`]).
pub const NETWORK_IDS: &str = "k8s.ovn.org/network-ids";
/// Attachment definition annotation: the network's numeric id.
pub const NETWORK_ID: &str = "k8s.ovn.org/network-id";
/// Attachment definition annotation: the network's name.
pub const NETWORK_NAME: &str = "k8s.ovn.org/network-name";
/// Node annotation: this node's number.
pub const NODE_ID: &str = "k8s.ovn.org/node-id";
/// Node annotation: version of the Layer2 topology that the node runs.
pub const LAYER2_TOPOLOGY_VERSION: &str = "k8s.ovn.org/layer2-topology-version";

/// Condition of an IPAMClaim: it has its addresses.
pub const IPS_ALLOCATED: &str = "IPsAllocated";
/// Condition of UDN and CUDN: attachment definitions exist.
pub const NETWORK_CREATED: &str = "NetworkCreated";
/// Condition of UDN and CUDN: every node has its subnet.
pub const NETWORK_ALLOCATION_SUCCEEDED: &str = "NetworkAllocationSucceeded";
