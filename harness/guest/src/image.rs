//! An image archive: an OCI image layout that is also what `docker save` writes, so that `docker load`,
//! `kind load image-archive`, `ctr image import` and `skopeo copy oci-archive:` take it.

use std::fs;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::initramfs::initramfs;
use crate::kernel::Kernel;
use crate::tar::Tar;

/// The image's name.
pub const NAME: &str = "udn-conformance.local/guest:latest";

/// Where in the image the kernel is.
pub const KERNEL: &str = "/boot/vmlinuz";

/// Where in the image the initramfs is.
pub const INITRAMFS: &str = "/boot/initramfs";

/// Where in the image the agent is, for guests of another image.
pub const AGENT: &str = "/agent";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Makes the archive of [`NAME`] with the kernel at [`KERNEL`], its initramfs at [`INITRAMFS`] and the agent
/// (`udn_binaries::AGENT`) at [`AGENT`]. The same agent and kernel give the same bytes.
///
/// # Errors
/// When the kernel or a module cannot be read.
pub fn archive(agent: &[u8], kernel: &Kernel) -> Result<Vec<u8>, Error> {
    let vmlinuz = fs::read(&kernel.image).map_err(|source| Error::Read { path: kernel.image.clone(), source })?;
    let mut layer = Tar::default();
    layer.file(AGENT.trim_start_matches('/'), 0o755, agent);
    layer.folder("boot");
    layer.file(INITRAMFS.trim_start_matches('/'), 0o644, &initramfs(agent, kernel)?);
    // Readable by everybody: where KubeVirt takes it from, it is another user.
    layer.file(KERNEL.trim_start_matches('/'), 0o644, &vmlinuz);
    Ok(layout(&layer.finish()))
}

/// The archive of an image with one layer.
fn layout(layer: &[u8]) -> Vec<u8> {
    let layer_digest = digest(layer);
    let config = text(&json!({
        "architecture": architecture(),
        "config": {"Entrypoint": [AGENT]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "udn-conformance image"}],
        "os": "linux",
        "rootfs": {"diff_ids": [format!("sha256:{layer_digest}")], "type": "layers"},
    }));
    let manifest = text(&json!({
        "config": descriptor(CONFIG_TYPE, &config),
        "layers": [descriptor(LAYER_TYPE, layer)],
        "mediaType": MANIFEST_TYPE,
        "schemaVersion": 2,
    }));
    let mut listed = descriptor(MANIFEST_TYPE, &manifest);
    let tag = NAME.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    // containerd reads the first, others the second.
    listed["annotations"] = json!({"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": tag});
    let index = text(&json!({
        "manifests": [listed],
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "schemaVersion": 2,
    }));
    let blob = |content: &[u8]| format!("blobs/sha256/{}", digest(content));
    let docker = text(&json!([{"Config": blob(&config), "Layers": [blob(layer)], "RepoTags": [NAME]}]));

    let mut archive = Tar::default();
    archive.folder("blobs");
    archive.folder("blobs/sha256");
    for content in [config.as_slice(), &manifest, layer] {
        archive.file(&blob(content), 0o644, content);
    }
    archive.file("index.json", 0o644, &index);
    archive.file("manifest.json", 0o644, &docker);
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.finish()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"digest": format!("sha256:{}", digest(content)), "mediaType": media_type, "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys come in alphabetical order, so the same value gives the same bytes.
fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// As Go calls it.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path and content of every file.
    fn files(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        while bytes[0] != 0 {
            let name = bytes[..100].split(|byte| *byte == 0).next().expect("a name");
            let size = std::str::from_utf8(&bytes[124..135]).expect("digits");
            let size = usize::from_str_radix(size, 8).expect("a number");
            files.push((String::from_utf8(name.to_vec()).expect("UTF-8"), bytes[512..512 + size].to_vec()));
            bytes = &bytes[512 + size.next_multiple_of(512)..];
        }
        files
    }

    #[test]
    fn every_blob_is_what_its_name_says_and_is_named_by_its_digest() {
        let layer = b"a layer".as_slice();
        let archive = layout(layer);
        assert_eq!(archive, layout(layer), "the same bytes");
        let files = files(&archive);
        let find = |path: &str| &files.iter().find(|(name, _)| name == path).expect("the file").1;
        for (name, content) in &files {
            if let Some(said) = name.strip_prefix("blobs/sha256/").filter(|said| !said.is_empty()) {
                assert_eq!(said, digest(content));
            }
        }
        let read = |content: &[u8]| serde_json::from_slice::<Value>(content).expect("JSON");
        let blob = |value: &Value| {
            let hash = value["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
            let content = find(&format!("blobs/sha256/{hash}"));
            assert_eq!(value["size"], content.len());
            content
        };
        let index = read(find("index.json"));
        let manifest = read(blob(&index["manifests"][0]));
        assert_eq!(blob(&manifest["layers"][0]), layer);
        let config = read(blob(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let docker = read(find("manifest.json"));
        assert_eq!(docker[0]["RepoTags"][0], NAME);
        assert_eq!(find(docker[0]["Layers"][0].as_str().expect("a path")), layer);
    }
}
