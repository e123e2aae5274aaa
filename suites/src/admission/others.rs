//! What is said of the kinds beside networks.

use super::{Group, accepted, refused};

/// Joints of networks.
pub(super) const CONNECTS: &[Group] = &[
    refused(&["spec.networkSelectors: Required value"], &[("CELX-CNC-01", "selectors-missing")]),
    refused(&["spec.networkSelectors", "should have at least 1 items"], &[("CELX-CNC-02", "selectors-empty")]),
    refused(&["spec.networkSelectors: Too many"], &[("CELX-CNC-03", "six-selectors")]),
    refused(
        &[r#"networkSelectionType: Unsupported value: "EveryNetwork""#],
        &[("CELX-CNC-04", "selector-of-unknown-type"), ("CELX-CNC-05", "selector-of-unknown-type-beside-another")],
    ),
    refused(
        &["Only ClusterUserDefinedNetworks or PrimaryUserDefinedNetworks can be selected"],
        &[
            ("CELX-CNC-06", "selector-of-secondary-networks"),
            ("CELX-CNC-07", "selector-of-attachments"),
            ("CELX-CNC-08", "selector-of-the-default-network"),
        ],
    ),
    refused(&["spec.connectivity: Required value"], &[("CELX-CNC-09", "connectivity-missing")]),
    refused(&["spec.connectivity", "should have at least 1 items"], &[("CELX-CNC-10", "connectivity-empty")]),
    refused(&["spec.connectivity: Too many"], &[("CELX-CNC-11", "three-connectivities")]),
    refused(
        &[r#"spec.connectivity[0]: Unsupported value: "EgressNetwork""#],
        &[("CELX-CNC-12", "connectivity-unknown")],
    ),
    refused(&["connectivity cannot contain duplicate values"], &[("CELX-CNC-13", "connectivity-twice")]),
    refused(
        &["spec.connectSubnets[0].networkPrefix", "should be greater than or equal to 1"],
        &[("CELX-CNC-14", "prefix-0")],
    ),
    refused(
        &["spec.connectSubnets[0].networkPrefix", "should be less than or equal to 127"],
        &[("CELX-CNC-15", "prefix-128")],
    ),
    refused(&["spec.connectSubnets: Too many"], &[("CELX-CNC-16", "three-subnets")]),
    refused(
        &["CIDR must be a valid network address"],
        &[("CELX-CNC-17", "subnet-with-host-bits"), ("CELX-CNC-18", "subnet-a-word")],
    ),
    refused(
        &["When 2 CIDRs are set, they must be from different IP families"],
        &[("CELX-CNC-19", "two-ipv4-subnets"), ("CELX-CNC-20", "two-ipv6-subnets")],
    ),
    refused(
        &["networkPrefix must have matching host bits"],
        &[("CELX-CNC-21", "parts-of-8-and-64-bits"), ("CELX-CNC-22", "parts-of-4-and-5-bits")],
    ),
    accepted(&[
        ("CELV-CNC-01", "cluster-networks"),
        ("CELV-CNC-02", "primary-networks-pods-and-services"),
        ("CELV-CNC-03", "both-families"),
        ("CELV-CNC-04", "ipv6-only"),
        ("CELV-CNC-05", "several-selectors"),
    ]),
];

/// Tunnel endpoints of EVPN.
pub(super) const VTEPS: &[Group] = &[
    refused(
        &["CIDR must be a valid network address"],
        &[("CELX-VTEP-01", "range-with-host-bits"), ("CELX-VTEP-04", "range-a-word")],
    ),
    refused(&["spec.cidrs: Invalid value", "should have at least 1 items"], &[("CELX-VTEP-02", "ranges-empty")]),
    refused(&["spec.cidrs: Too many"], &[("CELX-VTEP-03", "twenty-one-ranges")]),
    refused(&["spec.mode: Unsupported value"], &[("CELX-VTEP-05", "mode-unknown")]),
    refused(
        &["CIDRs must not overlap with each other"],
        &[("CELX-VTEP-06", "range-in-another"), ("CELX-VTEP-07", "range-twice")],
    ),
    accepted(&[
        ("CELV-VTEP-01", "ipv4"),
        ("CELV-VTEP-02", "ipv4-managed"),
        ("CELV-VTEP-03", "ipv4-unmanaged"),
        ("CELV-VTEP-04", "ipv6"),
        ("CELV-VTEP-05", "both-families"),
        ("CELV-VTEP-06", "several-ipv4"),
        ("CELV-VTEP-07", "several-of-both-families"),
    ]),
];

/// Tunnel endpoints that get other ranges.
pub(super) const VTEPS_CHANGED: &[Group] = &[
    refused(
        &["CIDRs cannot be removed in managed mode"],
        &[
            ("CELX-VTEPU-01", "loses-range"),
            ("CELX-VTEPU-02", "loses-two-ranges"),
            ("CELX-VTEPU-09", "becomes-managed-loses-range"),
            ("CELX-VTEPU-10", "loses-range-default-mode"),
        ],
    ),
    refused(
        &["In managed mode, existing CIDRs must remain at the same position"],
        &[
            ("CELX-VTEPU-03", "replaces-range"),
            ("CELX-VTEPU-04", "narrows-range"),
            ("CELX-VTEPU-05", "swaps-ranges"),
            ("CELX-VTEPU-06", "widens-to-another-range"),
            ("CELX-VTEPU-07", "narrows-range-to-an-address"),
            ("CELX-VTEPU-08", "replaces-address"),
        ],
    ),
    refused(
        &["CIDRs must not overlap with each other"],
        &[
            ("CELX-VTEPU-11", "gets-range-inside-another"),
            ("CELX-VTEPU-12", "widens-over-another-range"),
            ("CELX-VTEPU-13", "gets-range-inside-another-unmanaged"),
        ],
    ),
    accepted(&[
        ("CELV-VTEPU-01", "stays"),
        ("CELV-VTEPU-02", "gets-range"),
        ("CELV-VTEPU-03", "widens-range"),
        ("CELV-VTEPU-04", "widens-and-gets-range"),
        ("CELV-VTEPU-05", "loses-range-unmanaged"),
        ("CELV-VTEPU-06", "narrows-range-unmanaged"),
        ("CELV-VTEPU-07", "swaps-ranges-unmanaged"),
        ("CELV-VTEPU-08", "replaces-range-unmanaged"),
        ("CELV-VTEPU-09", "widens-range-unmanaged"),
        ("CELV-VTEPU-10", "becomes-unmanaged-loses-range"),
        ("CELV-VTEPU-11", "becomes-unmanaged"),
        ("CELV-VTEPU-12", "becomes-managed"),
    ]),
];
