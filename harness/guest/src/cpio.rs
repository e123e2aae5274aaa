//! cpio archives as the kernel unpacks them (format `newc`).

/// The file that ends an archive.
const END: &str = "TRAILER!!!";

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive; no times, no owners, inode numbers in order: the same content gives the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// Adds a folder. Its parent has to be there.
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, (0, 0), content);
    }

    /// Adds a character device by its numbers.
    pub(crate) fn device(&mut self, path: &str, mode: u32, numbers: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | mode, numbers, &[]);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry(END, 0, (0, 0), &[]);
        // As cpio itself does.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let is_end = path == END;
        if !is_end {
            self.entries += 1;
        }
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // inode, mode, user, group, links, time, size, device (2), device number (2), length of the name, checksum.
        let size = content.len() as u32;
        let name = path.len() as u32 + 1;
        let inode = if is_end { 0 } else { self.entries };
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode and content of every entry.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let field = |number: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * number..14 + 8 * number]).expect("digits");
                u32::from_str_radix(text, 16).expect("a number")
            };
            assert_eq!(&bytes[..6], b"070701");
            let (size, length) = (field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + length - 1].to_vec()).expect("a name");
            let start = (110 + length).next_multiple_of(4);
            if name == END {
                return entries;
            }
            entries.push((name, field(1), bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn an_archive_holds_what_was_put_in() {
        let mut cpio = Cpio::default();
        cpio.folder("dev");
        cpio.device("dev/console", 0o600, (5, 1));
        cpio.file("init", 0o755, b"12345");
        cpio.file("a", 0o644, b"");
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 512, 0);
        let expected = [
            ("dev".to_owned(), 0o040_755, vec![]),
            ("dev/console".to_owned(), 0o020_600, vec![]),
            ("init".to_owned(), 0o100_755, b"12345".to_vec()),
            ("a".to_owned(), 0o100_644, vec![]),
        ];
        assert_eq!(read(&bytes), expected);
    }
}
