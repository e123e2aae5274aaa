//! What a target cluster must offer for a cell to be tried.

use serde::{Deserialize, Serialize};

use crate::words::Family;

/// What a target cluster must offer for a cell to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Layer2 and Layer3 primary networks by UserDefinedNetwork and ClusterUserDefinedNetwork.
    UserDefinedNetworks,
    /// Secondary networks by `k8s.v1.cni.cncf.io/networks`.
    MultiHoming,
    /// Static addresses for the primary network by `v1.multus-cni.io/default-network`.
    StaticPrimaryAddress,
    /// A vantage point outside the cluster.
    ExternalVantagePoint,
    /// At least two schedulable nodes.
    TwoNodes,
    /// Pods in the host network may be created.
    HostNetworkPods,
    /// Services of type LoadBalancer get addresses.
    LoadBalancers,
    /// There are addresses that services may claim as their `externalIPs`, and that the underlay routes to nodes.
    ExternalIps,
    /// CUDNs have a field for the transport without overlay.
    NoOverlay,
    /// CUDNs have a field for EVPN.
    Evpn,
    /// `VTEP` objects.
    Vteps,
    /// `ClusterNetworkConnect` objects.
    NetworkConnects,
    /// The cluster's DNS service.
    ClusterDns,
    /// The API server's service has an IPv4 address.
    ApiServerV4,
    /// The API server's service has an IPv6 address.
    ApiServerV6,
    /// A name outside of the cluster that has an IPv4 address.
    ExternalNameV4,
    /// A name outside of the cluster that has an IPv6 address.
    ExternalNameV6,
    /// The network plugin's node component runs in pods that may be deleted.
    NodeComponentPods,
    /// KubeVirt: `VirtualMachine`s run, and migrate.
    VirtualMachines,
    /// Addresses that stay a VM's: `IPAMClaim` objects and the networks' field `ipam.lifecycle`.
    PersistentAddresses,
    /// KubeVirt knows the network binding `l2bridge`.
    BridgeBinding,
    /// The guest's image can be had on the nodes.
    GuestImage,
}

impl Feature {
    /// That the API server's service has an address of this family.
    #[must_use]
    pub const fn api_server(family: Family) -> Self {
        match family {
            Family::V4 => Self::ApiServerV4,
            Family::V6 => Self::ApiServerV6,
        }
    }

    /// What a skipped cell says.
    #[must_use]
    pub const fn missing(self) -> &'static str {
        match self {
            Self::UserDefinedNetworks => {
                "the cluster does not serve k8s.ovn.org/v1 UserDefinedNetwork and ClusterUserDefinedNetwork"
            }
            Self::MultiHoming => "the cluster does not serve k8s.cni.cncf.io/v1 NetworkAttachmentDefinition",
            Self::StaticPrimaryAddress => {
                "the cluster has no NetworkAttachmentDefinition ovn-kubernetes/default, which static primary addresses need"
            }
            Self::ExternalVantagePoint => {
                "no vantage point outside the cluster: label a pod on an external host udn-conformance.io/vantage-point=external"
            }
            Self::TwoNodes => "the cluster has fewer than two schedulable nodes",
            Self::HostNetworkPods => "host-network pods may not be created",
            Self::LoadBalancers => {
                "nothing gives services of type LoadBalancer an address, or nobody says which node announces it (events `nodeAssigned`)"
            }
            Self::ExternalIps => {
                "no addresses are known that services may claim as externalIPs and that are routed to a node: annotate the external vantage \
                 point udn-conformance.io/external-ips=<CIDR>[,<CIDR>]"
            }
            Self::NoOverlay => "ClusterUserDefinedNetwork has no field spec.network.noOverlay in this cluster",
            Self::Evpn => "ClusterUserDefinedNetwork has no field spec.network.evpn in this cluster",
            Self::Vteps => "the cluster does not serve k8s.ovn.org/v1 VTEP",
            Self::NodeComponentPods => {
                "no pods labelled app=ovnkube-node in namespace ovn-kubernetes or openshift-ovn-kubernetes that may be deleted"
            }
            Self::VirtualMachines => {
                "the cluster does not serve kubevirt.io/v1 VirtualMachine and VirtualMachineInstanceMigration: install KubeVirt"
            }
            Self::PersistentAddresses => {
                "the cluster has no k8s.cni.cncf.io/v1alpha1 IPAMClaim or its networks no field ipam.lifecycle: install the IPAMClaim \
                 definition and kubevirt-ipam-controller"
            }
            Self::BridgeBinding => {
                "KubeVirt does not know the network binding l2bridge: register it in the KubeVirt object under \
                 spec.configuration.network.binding (domainAttachmentType managedTap)"
            }
            Self::GuestImage => {
                "no node has the guest's image udn-conformance.local/guest: write it with `udn-conformance image --archive FILE` and load \
                 it into the nodes (`kind load image-archive FILE`), or name one that can be pulled with --guest-image"
            }
            Self::NetworkConnects => "the cluster does not serve k8s.ovn.org/v1 ClusterNetworkConnect",
            Self::ClusterDns => "the cluster has no DNS service kube-system/kube-dns",
            Self::ApiServerV4 => "the service default/kubernetes has no IPv4 address",
            Self::ApiServerV6 => "the service default/kubernetes has no IPv6 address",
            Self::ExternalNameV4 => {
                "no name outside of the cluster is known: say one with --external-name, or annotate the external vantage point's pod with udn-conformance.io/external-name"
            }
            Self::ExternalNameV6 => {
                "no name outside of the cluster is known to have an IPv6 address: annotate the external vantage point's pod with udn-conformance.io/external-name"
            }
        }
    }
}
