//! What is said of networks: topologies and their settings.

use super::{Group, accepted, refused};

/// A topology and the settings of another.
pub(super) const TOPOLOGY: &[Group] = &[
    refused(
        &["spec.localnet is required when topology is Localnet and forbidden otherwise"],
        &[("CELX-MIS-01", "localnet-with-layer2-settings"), ("CELX-MIS-02", "localnet-with-layer3-settings")],
    ),
    refused(
        &["spec.layer2 is required when topology is Layer2 and forbidden otherwise"],
        &[("CELX-MIS-03", "layer2-with-localnet-settings"), ("CELX-MIS-04", "layer2-with-layer3-settings")],
    ),
    refused(
        &["spec.layer3 is required when topology is Layer3 and forbidden otherwise"],
        &[("CELX-MIS-05", "layer3-with-localnet-settings"), ("CELX-MIS-06", "layer3-with-layer2-settings")],
    ),
];

/// Localnet networks.
pub(super) const LOCALNET: &[Group] = &[
    refused(&["spec.network.localnet.role: Required value"], &[("CELX-LNR-01", "localnet-role-missing")]),
    refused(
        &[r#"spec.network.localnet.role: Unsupported value: "Primary""#],
        &[("CELX-LNR-02", "localnet-role-primary")],
    ),
    refused(
        &["spec.network.localnet.physicalNetworkName: Required value"],
        &[("CELX-LNP-01", "localnet-physical-name-missing")],
    ),
    refused(
        &["spec.network.localnet.physicalNetworkName", "should be at least 1 chars long"],
        &[("CELX-LNP-02", "localnet-physical-name-empty")],
    ),
    refused(
        &["spec.network.localnet.physicalNetworkName: Too long"],
        &[("CELX-LNP-03", "localnet-physical-name-of-254")],
    ),
    refused(
        &["physicalNetworkName cannot contain `,` or `:` characters"],
        &[
            ("CELX-LNP-04", "localnet-physical-name-colon-inside"),
            ("CELX-LNP-05", "localnet-physical-name-comma-inside"),
            ("CELX-LNP-06", "localnet-physical-name-colon-first"),
            ("CELX-LNP-07", "localnet-physical-name-comma-first"),
            ("CELX-LNP-08", "localnet-physical-name-colon-last"),
            ("CELX-LNP-09", "localnet-physical-name-comma-last"),
        ],
    ),
    refused(
        &["Subnets is required with ipam.mode is Enabled or unset, and forbidden otherwise"],
        &[
            ("CELX-LNS-01", "localnet-no-subnets"),
            ("CELX-LNS-02", "localnet-no-subnets-ipam-enabled"),
            ("CELX-LNS-03", "localnet-subnets-ipam-disabled"),
            ("CELX-LNS-07", "localnet-subnets-and-exclusions-ipam-disabled"),
        ],
    ),
    refused(
        &["spec.network.localnet.subnets", "should have at least 1 items"],
        &[("CELX-LNS-04", "localnet-subnets-empty")],
    ),
    refused(
        &["excludeSubnets must be unset when subnets is unset"],
        &[
            ("CELX-LNS-05", "localnet-exclusions-of-nothing"),
            ("CELX-LNS-06", "localnet-exclusions-of-nothing-ipam-disabled"),
        ],
    ),
    refused(
        &["spec.network.localnet.subnets[0]", "CIDR is invalid"],
        &[("CELX-LNS-08", "localnet-subnet-no-ipv4"), ("CELX-LNS-09", "localnet-subnet-no-ipv6")],
    ),
    refused(
        &["spec.network.localnet.subnets", "When 2 CIDRs are set, they must be from different IP families"],
        &[("CELX-LNS-10", "localnet-two-ipv4-subnets"), ("CELX-LNS-11", "localnet-two-ipv6-subnets")],
    ),
    refused(
        &["spec.network.localnet.excludeSubnets", "should have at least 1 items"],
        &[("CELX-LNS-12", "localnet-exclusions-empty")],
    ),
    refused(
        &["spec.network.localnet.excludeSubnets[0]", "CIDR is invalid"],
        &[("CELX-LNS-13", "localnet-exclusion-no-ipv4"), ("CELX-LNS-14", "localnet-exclusion-no-ipv6")],
    ),
    refused(
        &["lifecycle Persistent is only supported when ipam.mode is Enabled"],
        &[("CELX-LNS-15", "localnet-persistent-ipam-disabled")],
    ),
    refused(
        &["spec.network.localnet.mtu", "should be less than or equal to 65536"],
        &[("CELX-LNM-01", "localnet-mtu-65537")],
    ),
    refused(
        &["spec.network.localnet.mtu", "should be greater than or equal to 576"],
        &[("CELX-LNM-02", "localnet-mtu-575")],
    ),
    refused(
        &["MTU should be greater than or equal to 1280 when an IPv6 subnet is used"],
        &[("CELX-LNM-03", "localnet-mtu-1279-ipv6"), ("CELX-LNM-04", "localnet-mtu-1279-both-families")],
    ),
    refused(
        &[r#"spec.network.localnet.vlan.mode: Unsupported value: "Disabled""#],
        &[("CELX-LNV-01", "localnet-vlan-mode-unknown")],
    ),
    refused(
        &["vlan access config is required when vlan mode is 'Access', and forbidden otherwise"],
        &[("CELX-LNV-02", "localnet-vlan-access-missing")],
    ),
    refused(&["spec.network.localnet.vlan.access.id: Required value"], &[("CELX-LNV-03", "localnet-vlan-id-missing")]),
    refused(
        &["spec.network.localnet.vlan.access.id", "should be greater than or equal to 1"],
        &[("CELX-LNV-04", "localnet-vlan-id-0")],
    ),
    refused(
        &["spec.network.localnet.vlan.access.id", "should be less than or equal to 4094"],
        &[("CELX-LNV-05", "localnet-vlan-id-4095")],
    ),
    accepted(&[
        ("CELV-LN-01", "localnet-plain"),
        ("CELV-LN-02", "localnet-persistent-with-vlan"),
        ("CELV-LN-03", "localnet-without-ipam"),
    ]),
];

/// Layer2 networks of a cluster.
pub(super) const LAYER2: &[Group] = &[
    refused(
        &["defaultGatewayIPs is only supported for Primary network"],
        &[("CELX-L2-01", "layer2-gateway-of-secondary")],
    ),
    refused(
        &["defaultGatewayIPs must belong to one of the subnets specified in the subnets field"],
        &[
            ("CELX-L2-02", "layer2-gateway-outside"),
            ("CELX-L2-04", "layer2-gateway-outside-one-of-two"),
            ("CELX-L2-12", "layer2-gateway-outside-ipv6"),
        ],
    ),
    refused(
        &["defaultGatewayIPs have to belong to infrastructureSubnets"],
        &[("CELX-L2-03", "layer2-gateway-outside-infrastructure")],
    ),
    refused(
        &["reservedSubnets must be unset when subnets is unset"],
        &[("CELX-L2-05", "layer2-reserved-without-subnets")],
    ),
    refused(
        &["infrastructureSubnets must be unset when subnets is unset"],
        &[("CELX-L2-06", "layer2-infrastructure-without-subnets")],
    ),
    refused(
        &["infrastructureSubnets and reservedSubnets must not overlap"],
        &[
            ("CELX-L2-07", "layer2-infrastructure-overlaps-reserved"),
            ("CELX-L2-08", "layer2-infrastructure-overlaps-reserved-both-families"),
        ],
    ),
    refused(
        &["reservedSubnets must be subnetworks of the networks specified in the subnets field"],
        &[("CELX-L2-09", "layer2-reserved-outside"), ("CELX-L2-11", "layer2-reserved-outside-ipv6")],
    ),
    refused(
        &["infrastructureSubnets must be subnetworks of the networks specified in the subnets field"],
        &[("CELX-L2-10", "layer2-infrastructure-outside")],
    ),
    accepted(&[
        ("CELV-L2-01", "layer2-with-gateway"),
        ("CELV-L2-02", "layer2-with-two-gateways"),
        ("CELV-L2-03", "layer2-with-infrastructure"),
        ("CELV-L2-04", "layer2-with-gateway-in-infrastructure"),
        ("CELV-L2-05", "layer2-with-reserved"),
        ("CELV-L2-06", "layer2-with-infrastructure-and-reserved"),
        ("CELV-L2-07", "layer2-with-everything"),
        ("CELV-L2-08", "layer2-ipv6-only"),
        ("CELV-L2-09", "layer2-plain"),
    ]),
];

/// The same of one namespace.
pub(super) const LAYER2_UDN: &[Group] = &[
    refused(&["defaultGatewayIPs is only supported for Primary network"], &[("CELX-L2-13", "gateway-of-secondary")]),
    refused(
        &["defaultGatewayIPs must belong to one of the subnets specified in the subnets field"],
        &[("CELX-L2-14", "gateway-outside")],
    ),
    refused(
        &["defaultGatewayIPs have to belong to infrastructureSubnets"],
        &[("CELX-L2-15", "gateway-outside-infrastructure")],
    ),
    refused(&["reservedSubnets must be unset when subnets is unset"], &[("CELX-L2-16", "reserved-without-subnets")]),
    refused(
        &["infrastructureSubnets must be unset when subnets is unset"],
        &[("CELX-L2-17", "infrastructure-without-subnets")],
    ),
    accepted(&[
        ("CELV-L2-10", "with-gateway"),
        ("CELV-L2-11", "with-two-gateways"),
        ("CELV-L2-12", "with-infrastructure"),
        ("CELV-L2-13", "with-gateway-in-infrastructure"),
        ("CELV-L2-14", "with-reserved"),
        ("CELV-L2-15", "with-infrastructure-and-reserved"),
        ("CELV-L2-16", "with-everything"),
        ("CELV-L2-17", "ipv6-only"),
    ]),
];

/// Layer3 networks.
pub(super) const LAYER3: &[Group] = &[
    refused(&["Secondary networks may define at most 2 subnets"], &[("CELX-L3-02", "layer3-secondary-with-three")]),
    refused(
        &["When 2 CIDRs are set for Secondary networks, they must be from different IP families"],
        &[("CELX-L3-03", "layer3-secondary-with-two-of-one-family")],
    ),
    refused(
        &["Subnets must not overlap or contain each other"],
        &[("CELX-L3-05", "layer3-overlapping-ipv4"), ("CELX-L3-10", "layer3-overlapping-ipv6")],
    ),
    refused(
        &["Subnets with same CIDR are not allowed"],
        &[("CELX-L3-06", "layer3-twice-the-same-ipv4"), ("CELX-L3-11", "layer3-twice-the-same-ipv6")],
    ),
    refused(
        &["Subnets from the same IP family must use the same hostSubnet value"],
        &[("CELX-L3-08", "layer3-two-host-subnets-ipv4"), ("CELX-L3-13", "layer3-two-host-subnets-ipv6")],
    ),
    accepted(&[
        ("CELV-L3-01", "layer3-several-ipv4"),
        ("CELV-L3-03", "layer3-several-ipv6"),
        ("CELV-L3-05", "layer3-several-of-both-families"),
    ]),
];

/// Layer3 networks that get other subnets.
pub(super) const LAYER3_CHANGED: &[Group] = &[
    refused(&["Subnets is immutable for Secondary role"], &[("CELX-L3-01", "layer3-secondary-gets-subnet")]),
    refused(
        &["Removing existing subnets is not allowed"],
        &[("CELX-L3-04", "layer3-loses-subnet-ipv4"), ("CELX-L3-09", "layer3-loses-subnet-ipv6")],
    ),
    refused(
        &["hostSubnet is immutable"],
        &[("CELX-L3-07", "layer3-other-host-subnet-ipv4"), ("CELX-L3-12", "layer3-other-host-subnet-ipv6")],
    ),
    accepted(&[("CELV-L3-02", "layer3-gets-subnet-ipv4"), ("CELV-L3-04", "layer3-gets-subnet-ipv6")]),
];
