//! What is said of networks of other transports than the overlay.

use super::{Group, accepted, refused};

/// Networks without overlay.
pub(super) const NO_OVERLAY: &[Group] = &[
    refused(
        &["transport 'NoOverlay' is only supported for Layer3 primary networks"],
        &[("CELX-NOV-01", "of-layer2"), ("CELX-NOV-02", "of-secondary-layer3"), ("CELX-NOV-03", "of-localnet")],
    ),
    refused(&["spec.noOverlay is required when type transport is 'NoOverlay'"], &[("CELX-NOV-04", "settings-missing")]),
    refused(
        &["spec.noOverlay is forbidden when transport type is not 'NoOverlay'"],
        &[("CELX-NOV-05", "settings-without-transport")],
    ),
    accepted(&[
        ("CELV-NOV-01", "managed-with-snat"),
        ("CELV-NOV-02", "unmanaged-without-snat"),
        ("CELV-NOV-03", "managed-without-snat"),
        ("CELV-NOV-04", "unmanaged-with-snat"),
        ("CELV-NOV-05", "both-families"),
        ("CELV-NOV-06", "transport-unset"),
    ]),
];

/// Networks over EVPN.
pub(super) const EVPN: &[Group] = &[
    refused(&["spec.evpn field is required when transport is 'EVPN'"], &[("CELX-EVPN-01", "settings-missing")]),
    refused(
        &["spec.evpn field is forbidden when transport is not 'EVPN'"],
        &[("CELX-EVPN-02", "settings-without-transport")],
    ),
    refused(
        &["transport 'EVPN' is only supported for Layer2 or Layer3 primary networks"],
        &[("CELX-EVPN-03", "of-secondary"), ("CELX-EVPN-04", "of-localnet")],
    ),
    refused(
        &["spec.evpn.macVRF field is required for Layer2 topology when transport is 'EVPN'"],
        &[("CELX-EVPN-05", "layer2-without-mac-vrf")],
    ),
    refused(
        &["spec.evpn.ipVRF field is required for Layer3 topology when transport is 'EVPN'"],
        &[("CELX-EVPN-06", "layer3-without-ip-vrf")],
    ),
    refused(
        &["spec.evpn.macVRF field is forbidden for Layer3 topology when transport is 'EVPN'"],
        &[("CELX-EVPN-07", "layer3-with-mac-vrf")],
    ),
    refused(&["at least one of macVRF or ipVRF must be specified"], &[("CELX-EVPN-08", "without-any-vrf")]),
    refused(
        &["spec.network.evpn.macVRF.vni: Invalid value", "should be greater than or equal to 1"],
        &[("CELX-EVPN-09", "vni-0")],
    ),
    refused(
        &["spec.network.evpn.macVRF.vni: Invalid value", "should be less than or equal to"],
        &[("CELX-EVPN-10", "vni-of-25-bits")],
    ),
    refused(
        &["RT must contain exactly one colon"],
        &[
            ("CELX-EVPN-11", "target-a-word"),
            ("CELX-EVPN-15", "target-with-two-colons"),
            ("CELX-EVPN-16", "target-without-colon"),
        ],
    ),
    refused(
        &["RT with 4-byte ASN global administrator must have format GHJK:MN where GHJK <= 4294967295 and MN <= 65535"],
        &[("CELX-EVPN-12", "target-4-byte-as-number-too-large")],
    ),
    refused(
        &["RT global administrator must be either '*', an IPv4 address, or a number"],
        &[("CELX-EVPN-13", "target-no-ipv4-address")],
    ),
    refused(
        &["RT with IPv4 global administrator must have format A.B.C.D:MN where MN <= 65535"],
        &[("CELX-EVPN-14", "target-ipv4-number-too-large")],
    ),
    refused(&["spec.network.evpn.vtep: Required value"], &[("CELX-EVPN-17", "vtep-missing")]),
    refused(&["spec.network.evpn.vtep", "should be at least 1 chars long"], &[("CELX-EVPN-18", "vtep-empty")]),
    refused(&["RT local administrator must be a number"], &[("CELX-EVPN-19", "target-number-a-word")]),
    refused(
        &["RT with wildcard global administrator must have format *:OPQR where OPQR <= 4294967295"],
        &[("CELX-EVPN-20", "target-wildcard-number-too-large")],
    ),
    refused(&["macVRF and ipVRF must use different VNIs"], &[("CELX-EVPN-21", "one-vni-for-both")]),
    refused(&["spec.network.evpn.macVRF.routeTarget: Too long"], &[("CELX-EVPN-22", "target-of-22-characters")]),
    accepted(&[
        ("CELV-EVPN-01", "layer2"),
        ("CELV-EVPN-02", "layer2-with-target"),
        ("CELV-EVPN-03", "layer2-with-both-vrfs"),
        ("CELV-EVPN-04", "layer3"),
        ("CELV-EVPN-05", "layer3-with-target"),
        ("CELV-EVPN-06", "layer2-both-families"),
        ("CELV-EVPN-07", "vni-of-24-bits"),
        ("CELV-EVPN-08", "target-4-byte-as"),
        ("CELV-EVPN-09", "target-2-byte-as-long-number"),
        ("CELV-EVPN-10", "target-ipv4"),
        ("CELV-EVPN-11", "target-wildcard"),
        ("CELV-EVPN-12", "target-wildcard-long-number"),
        ("CELV-EVPN-13", "target-as-0"),
        ("CELV-EVPN-14", "target-number-0"),
        ("CELV-EVPN-15", "target-wildcard-number-0"),
        ("CELV-EVPN-16", "target-as-65535"),
        ("CELV-EVPN-17", "target-as-65536"),
        ("CELV-EVPN-18", "target-largest-number"),
        ("CELV-EVPN-19", "target-of-21-characters"),
    ]),
];
