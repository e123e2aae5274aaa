//! DNS messages: as much of RFC 1035 as a question for addresses and its answer need.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::protocol::{DnsAnswer, RecordType};

const HEADER: usize = 12;
/// Recursion desired, as resolvers ask.
const RECURSION: u16 = 0x0100;
const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
/// Longest name as text, and longest label.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// How many aliases are followed.
const ALIASES: usize = 16;

/// What a message is to a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Its answer; the time is for the caller to say.
    Answer(DnsAnswer),
    /// The answer to another question.
    Another,
    /// None, for this reason.
    Garbled(String),
}

/// The question in its wire format.
///
/// # Errors
/// Why it is no name.
pub(super) fn question(id: u16, name: &str, record: RecordType) -> Result<Vec<u8>, String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(format!("ask for `{name}`: a name has 1 to {LONGEST_NAME} characters"));
    }
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    for word in [id, RECURSION, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LONGEST_LABEL as u8).contains(length));
        let length = length.ok_or_else(|| format!("ask for `{name}`: a label has 1 to {LONGEST_LABEL} characters"))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(number(record).to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Ok(message)
}

const fn number(record: RecordType) -> u16 {
    match record {
        RecordType::A => TYPE_A,
        RecordType::Aaaa => TYPE_AAAA,
    }
}

/// Reads what came back to the question of this number, name and kind.
pub(super) fn read(message: &[u8], id: u16, name: &str, record: RecordType) -> Reading {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    read_answer(message, id, &name, record).unwrap_or_else(|problem| problem)
}

fn read_answer(message: &[u8], id: u16, name: &str, record: RecordType) -> Result<Reading, Reading> {
    let garbled = |why: &str| Reading::Garbled(why.to_string());
    let mut reader = Reader { message, at: 0 };
    let mut header = [0; 6];
    for word in &mut header {
        *word = reader.word().ok_or_else(|| Reading::Garbled(format!("{} bytes are no DNS message", message.len())))?;
    }
    let [number_of, flags, questions, answers, ..] = header;
    if number_of != id {
        return Ok(Reading::Another);
    }
    if flags & 0x8000 == 0 {
        return Err(garbled("a question came back, not an answer"));
    }
    if flags & 0x7800 != 0 {
        return Err(garbled("the answer is to another kind of request"));
    }
    let rcode = (flags & 15) as u8;
    let truncated = flags & 0x0200 != 0;
    // A server that could not read the question need not repeat it.
    if questions != 0 || rcode == 0 {
        let asked = reader.name().zip(reader.word()).zip(reader.word());
        let ((asked, kind), class) = asked.ok_or_else(|| garbled("the question in the answer cannot be read"))?;
        if questions != 1 || asked != name || kind != number(record) || class != CLASS_IN {
            return Err(Reading::Garbled(format!("the answer is to another question: type {kind} of {asked}")));
        }
    }
    let mut found: Vec<(String, IpAddr)> = Vec::new();
    let mut aliases: Vec<(String, String)> = Vec::new();
    for _ in 0..answers {
        match reader.record() {
            Some((owner, kind, Data::Address(address))) if kind == number(record) => found.push((owner, address)),
            Some((owner, _, Data::Name(target))) => aliases.push((owner, target)),
            Some(_) => {}
            None if truncated => break,
            None => return Err(garbled("the answer ends in the middle, or a record in it cannot be read")),
        }
    }
    let mut chain = Vec::new();
    let mut owner = name;
    while chain.len() < ALIASES
        && let Some((_, target)) = aliases.iter().find(|(alias, _)| alias == owner)
    {
        chain.push(target.clone());
        owner = target;
    }
    let addresses = found.iter().filter(|(name, _)| name == owner).map(|(_, address)| *address).collect();
    let authoritative = flags & 0x0400 != 0;
    Ok(Reading::Answer(DnsAnswer { rcode, addresses, aliases: chain, truncated, authoritative, rtt_us: 0 }))
}

/// The data of a record, as far as it is of interest.
enum Data {
    Address(IpAddr),
    Name(String),
    Other,
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.message.get(self.at..self.at + N)?.try_into().ok()?;
        self.at += N;
        Some(bytes)
    }

    fn word(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    /// A name in lower case without the dot at its end; it may go on elsewhere, but only further to the front.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut behind = None;
        // Where the piece that is being read begins: each jump leads before it, so this ends.
        let mut piece = at;
        loop {
            let length = *self.message.get(at)?;
            match (length >> 6, usize::from(length & 63)) {
                (0, 0) => {
                    self.at = behind.unwrap_or(at + 1);
                    return Some(name);
                }
                (0, length) => {
                    let label = self.message.get(at + 1..at + 1 + length)?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                    at += 1 + length;
                }
                (3, high) => {
                    let target = high << 8 | usize::from(*self.message.get(at + 1)?);
                    if target >= piece {
                        return None;
                    }
                    behind.get_or_insert(at + 2);
                    (at, piece) = (target, target);
                }
                _ => return None,
            }
        }
    }

    /// Owner, type and data of the next record; of another class it is nobody's.
    fn record(&mut self) -> Option<(String, u16, Data)> {
        let owner = self.name()?;
        let (kind, class) = (self.word()?, self.word()?);
        let _time_to_live: [u8; 4] = self.bytes()?;
        let length = usize::from(self.word()?);
        let end = self.at + length;
        if end > self.message.len() {
            return None;
        }
        let data = match (class, kind, length) {
            (CLASS_IN, TYPE_A, 4) => Data::Address(IpAddr::V4(Ipv4Addr::from(self.bytes::<4>()?))),
            (CLASS_IN, TYPE_AAAA, 16) => Data::Address(IpAddr::V6(Ipv6Addr::from(self.bytes::<16>()?))),
            (CLASS_IN, TYPE_A | TYPE_AAAA, _) => return None,
            (CLASS_IN, TYPE_CNAME, _) => {
                let target = self.name()?;
                if self.at != end {
                    return None;
                }
                Data::Name(target)
            }
            _ => Data::Other,
        };
        self.at = end;
        Some((owner, kind, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these flags to a question for `www.blue`, type A: records as owner, type and data. An owner that
    /// begins with `*` is the name of the question, by a jump.
    fn answer(flags: u16, records: &[(&str, u16, &[u8])]) -> Vec<u8> {
        let mut message = question(7, "www.blue.", RecordType::A).expect("a question");
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).expect("few").to_be_bytes());
        for (owner, kind, data) in records {
            if *owner == "*" {
                message.extend([0xc0, 12]);
            } else {
                message.extend(wire(owner));
            }
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 30]);
            message.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            message.extend(*data);
        }
        message
    }

    fn wire(name: &str) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        bytes.push(0);
        bytes
    }

    fn reading(message: &[u8]) -> Reading {
        read(message, 7, "WWW.blue", RecordType::A)
    }

    fn addresses(message: &[u8]) -> Vec<String> {
        match reading(message) {
            Reading::Answer(answer) => answer.addresses.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_as_the_standard_says() {
        let asked = question(0x1234, "a.bc.", RecordType::Aaaa).expect("a question");
        assert_eq!(asked, [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 2, b'b', b'c', 0, 0, 28, 0, 1]);
        for wrong in ["", ".", "a..b", &"x".repeat(64), &["x"; 130].join(".")] {
            assert!(question(1, wrong, RecordType::A).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_of_the_name_and_of_its_aliases_count_and_no_others() {
        assert_eq!(
            addresses(&answer(0x8180, &[("*", 1, &[10, 0, 0, 1]), ("www.Blue", 1, &[10, 0, 0, 2])])),
            ["10.0.0.1", "10.0.0.2"]
        );
        let target = wire("web.red");
        let chain =
            answer(0x8180, &[("web.red", 1, &[10, 0, 0, 3]), ("*", 5, &target), ("other.red", 1, &[10, 0, 0, 4])]);
        assert_eq!(addresses(&chain), ["10.0.0.3"]);
        assert_eq!(addresses(&answer(0x8180, &[("*", 28, &[0; 16]), ("*", 16, b"\x01x")])), Vec::<String>::new());
        let looping = answer(0x8180, &[("*", 5, &wire("www.blue"))]);
        assert_eq!(addresses(&looping), Vec::<String>::new());
    }

    #[test]
    fn codes_and_flags_are_told() {
        let Reading::Answer(none) = reading(&answer(0x8583, &[])) else { panic!("no answer") };
        assert_eq!((none.rcode, none.authoritative, none.truncated), (3, true, false));
        let mut cut = answer(0x8380, &[("*", 1, &[10, 0, 0, 1])]);
        cut[7] = 9;
        let Reading::Answer(cut) = reading(&cut) else { panic!("no answer") };
        assert_eq!((cut.truncated, cut.addresses.len()), (true, 1));
        // A server that could not read the question sends its header back, with its complaint.
        let mut refused = answer(0x8181, &[]);
        refused.truncate(HEADER);
        refused[5] = 0;
        assert!(matches!(reading(&refused), Reading::Answer(DnsAnswer { rcode: 1, .. })));
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        let right = answer(0x8180, &[("*", 1, &[10, 0, 0, 1])]);
        let mut other = right.clone();
        other[1] = 8;
        assert_eq!(reading(&other), Reading::Another);
        for (wrong, about) in [
            (question(7, "www.blue", RecordType::A).expect("a question"), "question came back"),
            (right[..right.len() - 2].to_vec(), "ends in the middle"),
            (right[..5].to_vec(), "5 bytes are no DNS message"),
            (answer(0x8180, &[("*", 1, &[10, 0, 0])]), "cannot be read"),
            (right[..HEADER + 3].to_vec(), "cannot be read"),
        ] {
            assert!(matches!(reading(&wrong), Reading::Garbled(why) if why.contains(about)), "{about}");
        }
        let elsewhere = read(&right, 7, "www.red", RecordType::A);
        assert!(matches!(elsewhere, Reading::Garbled(why) if why.contains("another question: type 1 of www.blue")));
        assert!(matches!(read(&right, 7, "www.blue", RecordType::Aaaa), Reading::Garbled(_)));
    }

    #[test]
    fn names_that_go_round_in_circles_end() {
        let mut circle = answer(0x8180, &[("*", 1, &[10, 0, 0, 1])]);
        let at = circle.len() - 16;
        let pointer = 0xc000_u16 | u16::try_from(at).expect("short");
        circle[at..at + 2].copy_from_slice(&pointer.to_be_bytes());
        assert!(matches!(reading(&circle), Reading::Garbled(_)));
    }
}
