//! What is said of networks of other transports than the overlay.

use super::{Group, accepted, refused};

/// Networks without overlay.
pub(super) const NO_OVERLAY: &[Group] = &[
    refused(
        &["transport 'NoOverlay' is only supported for Layer3 primary networks"],
        &[
            ("CELX-NOV-01", "no-overlay-of-layer2"),
            ("CELX-NOV-02", "no-overlay-of-secondary-layer3"),
            ("CELX-NOV-03", "no-overlay-of-localnet"),
        ],
    ),
    refused(
        &["spec.noOverlay is required when type transport is 'NoOverlay'"],
        &[("CELX-NOV-04", "no-overlay-settings-missing")],
    ),
    refused(
        &["spec.noOverlay is forbidden when transport type is not 'NoOverlay'"],
        &[("CELX-NOV-05", "no-overlay-settings-without-transport")],
    ),
    accepted(&[
        ("CELV-NOV-01", "no-overlay-managed-with-snat"),
        ("CELV-NOV-02", "no-overlay-unmanaged-without-snat"),
        ("CELV-NOV-03", "no-overlay-managed-without-snat"),
        ("CELV-NOV-04", "no-overlay-unmanaged-with-snat"),
        ("CELV-NOV-05", "no-overlay-both-families"),
        ("CELV-NOV-06", "no-overlay-transport-unset"),
    ]),
];

/// Networks over EVPN.
pub(super) const EVPN: &[Group] = &[
    refused(&["spec.evpn field is required when transport is 'EVPN'"], &[("CELX-EVPN-01", "evpn-settings-missing")]),
    refused(
        &["spec.evpn field is forbidden when transport is not 'EVPN'"],
        &[("CELX-EVPN-02", "evpn-settings-without-transport")],
    ),
    refused(
        &["transport 'EVPN' is only supported for Layer2 or Layer3 primary networks"],
        &[("CELX-EVPN-03", "evpn-of-secondary"), ("CELX-EVPN-04", "evpn-of-localnet")],
    ),
    refused(
        &["spec.evpn.macVRF field is required for Layer2 topology when transport is 'EVPN'"],
        &[("CELX-EVPN-05", "evpn-layer2-without-mac-vrf")],
    ),
    refused(
        &["spec.evpn.ipVRF field is required for Layer3 topology when transport is 'EVPN'"],
        &[("CELX-EVPN-06", "evpn-layer3-without-ip-vrf")],
    ),
    refused(
        &["spec.evpn.macVRF field is forbidden for Layer3 topology when transport is 'EVPN'"],
        &[("CELX-EVPN-07", "evpn-layer3-with-mac-vrf")],
    ),
    refused(&["at least one of macVRF or ipVRF must be specified"], &[("CELX-EVPN-08", "evpn-without-any-vrf")]),
    refused(
        &["spec.network.evpn.macVRF.vni: Invalid value", "should be greater than or equal to 1"],
        &[("CELX-EVPN-09", "evpn-vni-0")],
    ),
    refused(
        &["spec.network.evpn.macVRF.vni: Invalid value", "should be less than or equal to"],
        &[("CELX-EVPN-10", "evpn-vni-of-25-bits")],
    ),
    refused(
        &["RT must contain exactly one colon"],
        &[
            ("CELX-EVPN-11", "evpn-target-a-word"),
            ("CELX-EVPN-15", "evpn-target-with-two-colons"),
            ("CELX-EVPN-16", "evpn-target-without-colon"),
        ],
    ),
    refused(
        &["RT with 4-byte ASN global administrator must have format GHJK:MN where GHJK <= 4294967295 and MN <= 65535"],
        &[("CELX-EVPN-12", "evpn-target-4-byte-as-number-too-large")],
    ),
    refused(
        &["RT global administrator must be either '*', an IPv4 address, or a number"],
        &[("CELX-EVPN-13", "evpn-target-no-ipv4-address")],
    ),
    refused(
        &["RT with IPv4 global administrator must have format A.B.C.D:MN where MN <= 65535"],
        &[("CELX-EVPN-14", "evpn-target-ipv4-number-too-large")],
    ),
    refused(&["spec.network.evpn.vtep: Required value"], &[("CELX-EVPN-17", "evpn-vtep-missing")]),
    refused(&["spec.network.evpn.vtep", "should be at least 1 chars long"], &[("CELX-EVPN-18", "evpn-vtep-empty")]),
    refused(&["RT local administrator must be a number"], &[("CELX-EVPN-19", "evpn-target-number-a-word")]),
    refused(
        &["RT with wildcard global administrator must have format *:OPQR where OPQR <= 4294967295"],
        &[("CELX-EVPN-20", "evpn-target-wildcard-number-too-large")],
    ),
    refused(&["macVRF and ipVRF must use different VNIs"], &[("CELX-EVPN-21", "evpn-one-vni-for-both")]),
    refused(&["spec.network.evpn.macVRF.routeTarget: Too long"], &[("CELX-EVPN-22", "evpn-target-of-22-characters")]),
    accepted(&[
        ("CELV-EVPN-01", "evpn-layer2"),
        ("CELV-EVPN-02", "evpn-layer2-with-target"),
        ("CELV-EVPN-03", "evpn-layer2-with-both-vrfs"),
        ("CELV-EVPN-04", "evpn-layer3"),
        ("CELV-EVPN-05", "evpn-layer3-with-target"),
        ("CELV-EVPN-06", "evpn-layer2-both-families"),
        ("CELV-EVPN-07", "evpn-vni-of-24-bits"),
        ("CELV-EVPN-08", "evpn-target-4-byte-as"),
        ("CELV-EVPN-09", "evpn-target-2-byte-as-long-number"),
        ("CELV-EVPN-10", "evpn-target-ipv4"),
        ("CELV-EVPN-11", "evpn-target-wildcard"),
        ("CELV-EVPN-12", "evpn-target-wildcard-long-number"),
        ("CELV-EVPN-13", "evpn-target-as-0"),
        ("CELV-EVPN-14", "evpn-target-number-0"),
        ("CELV-EVPN-15", "evpn-target-wildcard-number-0"),
        ("CELV-EVPN-16", "evpn-target-as-65535"),
        ("CELV-EVPN-17", "evpn-target-as-65536"),
        ("CELV-EVPN-18", "evpn-target-largest-number"),
        ("CELV-EVPN-19", "evpn-target-of-21-characters"),
    ]),
];
