//! tar archives (format `ustar`).

/// A block; headers and contents are whole ones.
const BLOCK: usize = 512;

/// An archive; no times, no owners: the same content gives the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// Adds a folder. `path` has at most 99 bytes, as all paths here.
    pub(crate) fn folder(&mut self, path: &str) {
        self.header(&format!("{path}/"), 0o755, 0, b'5');
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.header(path, mode, content.len(), b'0');
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8) {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            for (slot, byte) in header.iter_mut().skip(at).zip(bytes) {
                *slot = *byte;
            }
        };
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        // User, group.
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        // Time.
        put(136, b"00000000000");
        // The checksum is over a header in which it is blanks.
        put(148, b"        ");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        for (slot, byte) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
            *slot = byte;
        }
        self.bytes.extend(header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_add_up_and_contents_are_padded() {
        let mut tar = Tar::default();
        tar.folder("boot");
        tar.file("boot/a", 0o644, &[7; 513]);
        let bytes = tar.finish();
        assert_eq!(bytes.len(), BLOCK * (1 + 1 + 2 + 2));
        for header in [&bytes[..BLOCK], &bytes[BLOCK..2 * BLOCK]] {
            let said = std::str::from_utf8(&header[148..154]).expect("digits");
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            let own: u32 = header[148..156].iter().map(|byte| u32::from(*byte)).sum();
            assert_eq!(u32::from_str_radix(said, 8).expect("a number"), sum - own + 8 * 32);
        }
        assert_eq!(&bytes[..6], b"boot/\0");
    }
}
