//! Blocks of headers. Those of one direction are one compressed stream as long as the connection lasts, so that each
//! must go through here in its order, even if nobody wants to know what it says.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::{IDENTITY, dictionary};
use super::frames::Malformed;

/// The longest block that is taken, bytes when decompressed.
const LONGEST: usize = 16 * 1024;

/// Names and values.
pub(super) type Headers = Vec<(String, String)>;

/// The direction to here.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of the next block.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<Headers, Malformed> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Malformed> {
        // One more than allowed: a block that fills it is too long.
        let mut plain = vec![0; LONGEST + 1];
        let mut length = 0;
        loop {
            let (taken, made) = (self.0.total_in(), self.0.total_out());
            let outcome = self.0.decompress(block, &mut plain[length..], FlushDecompress::Sync);
            // Neither exceeds what was passed.
            let taken = (self.0.total_in() - taken) as usize;
            length += (self.0.total_out() - made) as usize;
            block = &block[taken..];
            match outcome {
                Err(error) if error.needs_dictionary() == Some(IDENTITY) => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| Malformed::Compression)?;
                }
                Ok(Status::Ok | Status::BufError) if length > LONGEST => return Err(Malformed::LongHeaders(LONGEST)),
                Ok(Status::Ok | Status::BufError) if block.is_empty() => {
                    plain.truncate(length);
                    return Ok(plain);
                }
                Ok(Status::Ok) if taken > 0 => {}
                // The stream must go on, and bytes that do not count cannot be left.
                Ok(_) | Err(_) => return Err(Malformed::Compression),
            }
        }
    }
}

/// The direction from here.
pub(super) struct Deflater(Compress);

impl Deflater {
    /// Errors where the library does not take the dictionary.
    pub(super) fn new() -> Result<Self, Malformed> {
        let mut stream = Compress::new(Compression::fast(), true);
        stream.set_dictionary(&dictionary()).map_err(|_| Malformed::Compression)?;
        Ok(Self(stream))
    }

    /// The next block, with these headers.
    pub(super) fn block(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, Malformed> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        // What cannot be compressed gets a little longer.
        let mut block = Vec::with_capacity(plain.len() + plain.len() / 8 + 64);
        let taken = self.0.total_in();
        self.0.compress_vec(&plain, &mut block, FlushCompress::Sync).map_err(|_| Malformed::Compression)?;
        let all = self.0.total_in() - taken == plain.len() as u64 && block.len() < block.capacity();
        if all { Ok(block) } else { Err(Malformed::Compression) }
    }
}

/// How many, then names and values, each after its length.
fn parse(mut plain: &[u8]) -> Result<Headers, Malformed> {
    let count = plain.try_get_u32().map_err(|_| Malformed::Headers)? as usize;
    // Each has two lengths at least; more would reserve memory for nothing.
    if count > plain.len() / 8 {
        return Err(Malformed::Headers);
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push((text(&mut plain)?, text(&mut plain)?));
    }
    if plain.is_empty() { Ok(headers) } else { Err(Malformed::Headers) }
}

fn text(plain: &mut &[u8]) -> Result<String, Malformed> {
    let length = plain.try_get_u32().map_err(|_| Malformed::Headers)? as usize;
    let (text, rest) = plain.split_at_checked(length).ok_or(Malformed::Headers)?;
    *plain = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Malformed::Headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(headers: &[(&str, &str)]) -> Headers {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// As zlib itself makes it: level 9, sync flush, `streamtype: error`, then `streamtype: stdin`.
    const BLOCKS: [&[u8]; 2] = [
        &[
            0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xa6, 0x23, 0x46, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc, 0x85,
            0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x06, 0x00, 0x00, 0x00, 0xff, 0xff,
        ],
        &[0xc2, 0x2e, 0x55, 0x5c, 0x02, 0xcc, 0x2e, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff],
    ];

    #[test]
    fn blocks_of_another_implementation_are_understood() {
        let mut inflater = Inflater::new();
        assert_eq!(inflater.block(BLOCKS[0]), Ok(owned(&[("streamtype", "error")])));
        assert_eq!(inflater.block(BLOCKS[1]), Ok(owned(&[("streamtype", "stdin")])));
    }

    #[test]
    fn one_stream_carries_many_blocks() {
        let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::new());
        for number in 0..100_usize {
            let value = "v".repeat(number * 100);
            let headers = [("streamtype", "stdout"), ("x", value.as_str())];
            let headers = &headers[..number % 3];
            let block = deflater.block(headers).unwrap();
            assert_eq!(inflater.block(&block), Ok(owned(headers)));
        }
    }

    #[test]
    fn a_block_that_inflates_without_bound_is_an_error() {
        let huge = "a".repeat(10_000_000);
        let mut block = Deflater::new().unwrap().block(&[("x", &huge)]).unwrap();
        assert_eq!(Inflater::new().block(&block), Err(Malformed::LongHeaders(LONGEST)));
        block.truncate(LONGEST);
        assert_eq!(Inflater::new().block(&block), Err(Malformed::LongHeaders(LONGEST)));
    }

    #[test]
    fn a_damaged_block_is_an_error() {
        let block = Deflater::new().unwrap().block(&[("streamtype", "stdin")]).unwrap();
        for length in 0..block.len() {
            // What ends within its last byte's flush may be whole already.
            let _ = Inflater::new().block(&block[..length]).map(|headers| assert_eq!(headers.len(), 1));
        }
        for place in 0..block.len() {
            for bit in 0..8 {
                let mut damaged = block.clone();
                damaged[place] ^= 1 << bit;
                let _ = Inflater::new().block(&damaged);
            }
        }
        assert_eq!(Inflater::new().block(b""), Err(Malformed::Headers));
        assert_eq!(Inflater::new().block(b"no zlib"), Err(Malformed::Compression));
        // Another dictionary, and a stream that ends.
        assert_eq!(Inflater::new().block(&[0x78, 0xbb, 1, 2, 3, 4, 0]), Err(Malformed::Compression));
        let mut ended = Vec::with_capacity(100);
        Compress::new(Compression::fast(), true).compress_vec(&[0; 4], &mut ended, FlushCompress::Finish).unwrap();
        assert_eq!(Inflater::new().block(&ended), Err(Malformed::Compression));
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors() {
        for plain in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\x01",
            b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
            b"\0\0\0\x01\0\0\0\x01a\xff\xff\xff\xff",
            b"\0\0\0\x01\0\0\0\x09a\0\0\0\0",
            b"\0\0\0\x01\0\0\0\x01\xff\0\0\0\0",
            b"\0\0\0\0more",
        ] {
            assert_eq!(parse(plain), Err(Malformed::Headers), "{plain:?}");
        }
        assert_eq!(parse(b"\0\0\0\0"), Ok(Vec::new()));
    }
}
