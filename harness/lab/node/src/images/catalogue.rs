//! The images that exist. Every other one is unknown, as on a node without a registry.

/// What an image's root file system consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// The lab's image root.
    Base,
    /// The image root and the agnhost stand-in at `/agnhost` and `/pause`.
    Agnhost,
    /// The image root and the DNS server at `/coredns`.
    Dns,
    /// The image root and the probe agent at `/agent`.
    Agent,
    /// The package tree with the OVN and Open vSwitch tools, and the node's run directories.
    Ovn,
}

/// An image: what to run unless the pod says otherwise, in which file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// As the pod names it.
    pub asked: String,
    /// Full reference, as container runtimes report it.
    pub reference: String,
    /// `containerStatuses[].imageID`.
    pub id: String,
    /// What `command` replaces.
    pub entrypoint: Vec<String>,
    /// What `args` replaces.
    pub arguments: Vec<String>,
    /// The file system.
    pub contents: Contents,
}

/// An image that no catalogue entry answers for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to pull and unpack image \"{reference}\": failed to resolve reference \"{reference}\": {reference}: not found"
)]
pub(crate) struct Unknown {
    /// Full reference.
    pub reference: String,
}

/// Looks an image up by the last component of its repository: the lab does not care which registry mirrors it.
pub(crate) fn find(image: &str) -> Result<Image, Unknown> {
    let reference = full_reference(image);
    let repository = repository(&reference);
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let own = repository.starts_with("udn-conformance.local/");
    let (contents, entrypoint, arguments): (_, &[&str], &[&str]) = match name {
        "agnhost" => (Contents::Agnhost, &["/agnhost"], &["pause"]),
        "pause" => (Contents::Agnhost, &["/pause"], &[]),
        "coredns" => (Contents::Dns, &["/coredns"], &[]),
        "busybox" => (Contents::Base, &[], &["sh"]),
        // The guest itself is the node's business; its launcher holds the place, and its image says which it is.
        "virt-launcher" => (Contents::Agnhost, &["/pause"], &[]),
        "guest" if own => (Contents::Base, &["true"], &[]),
        "agent" if own => (Contents::Agent, &["/agent"], &[]),
        "ovn" if own => (Contents::Ovn, &["/pause"], &[]),
        _ => return Err(Unknown { reference }),
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let id = format!("lab://{repository}");
    Ok(Image {
        asked: image.to_owned(),
        reference,
        id,
        entrypoint: owned(entrypoint),
        arguments: owned(arguments),
        contents,
    })
}

/// `busybox` → `docker.io/library/busybox:latest`, as container runtimes complete references.
fn full_reference(image: &str) -> String {
    let mut reference = match image.split_once('/') {
        None => format!("docker.io/library/{image}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
    };
    let last = reference.rsplit('/').next().unwrap_or_default();
    if !last.contains([':', '@']) {
        reference.push_str(":latest");
    }
    reference
}

fn repository(reference: &str) -> &str {
    let without_digest = reference.split('@').next().unwrap_or(reference);
    match without_digest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => without_digest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agnhost_is_known_from_any_registry() {
        for image in [
            "registry.k8s.io/e2e-test-images/agnhost:2.45",
            "registry.k8s.io/e2e-test-images/agnhost@sha256:0123",
            "localhost:5000/agnhost",
            "mirror.example/a/b/agnhost:1",
        ] {
            let found = find(image).unwrap();
            assert_eq!((found.contents, found.entrypoint), (Contents::Agnhost, vec!["/agnhost".to_owned()]), "{image}");
        }
    }

    #[test]
    fn references_are_completed_as_container_runtimes_do() {
        assert_eq!(find("busybox").unwrap().reference, "docker.io/library/busybox:latest");
        assert_eq!(find("library/busybox:1.36").unwrap().reference, "docker.io/library/busybox:1.36");
        assert_eq!(find("localhost:5000/pause:3.9").unwrap().id, "lab://localhost:5000/pause");
    }

    #[test]
    fn an_unknown_image_is_refused_in_containerds_words() {
        let unknown = find("nicolaka/netshoot").unwrap_err().to_string();
        assert_eq!(
            unknown,
            "failed to pull and unpack image \"docker.io/nicolaka/netshoot:latest\": failed to resolve reference \
             \"docker.io/nicolaka/netshoot:latest\": docker.io/nicolaka/netshoot:latest: not found"
        );
        assert!(find("somewhere.example/ovn").is_err(), "only our own registry's name has the ovn image");
    }
}
