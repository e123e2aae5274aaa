//! Sockets: UDP on one thread, each TCP connection on its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::answer::{Transport, answer};
use crate::records::Records;

/// The largest message over UDP that is read.
const LARGEST: usize = 4096;
/// A connection without query for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// The file's newest records.
struct Newest {
    file: PathBuf,
    /// What tells the file from its predecessors, and its records.
    seen: Mutex<(Option<(u64, i64, i64)>, Arc<Records>)>,
}

impl Newest {
    /// The records; those before where the newest cannot be read.
    fn get(&self) -> Arc<Records> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Files are replaced, never changed: asking for a file's identity is cheap enough for every query.
        let state = fs::metadata(&self.file).map(|state| (state.ino(), state.mtime(), state.mtime_nsec())).ok();
        if let Some(state) = state.filter(|state| seen.0 != Some(*state)) {
            let serial = u32::try_from(state.1).unwrap_or_default();
            let read = fs::read_to_string(&self.file).map_err(|error| error.to_string());
            match read.and_then(|text| Records::read(&text, serial)) {
                Ok(records) => seen.1 = Arc::new(records),
                Err(problem) => eprintln!("dns: {}: {problem}; the records before stay", self.file.display()),
            }
            seen.0 = Some(state);
        }
        seen.1.clone()
    }
}

/// Listens on `port` of all addresses and answers for ever, on threads of its own.
pub(crate) fn start(file: PathBuf, port: u16) -> Result<(), String> {
    if !file.exists() {
        return Err(format!("there is no file {}", file.display()));
    }
    let newest = Arc::new(Newest { file, seen: Mutex::new((None, Arc::default())) });
    newest.get();
    let refused = |what: &'static str| move |error: io::Error| format!("cannot listen on {what} port {port}: {error}");
    let any = (Ipv6Addr::UNSPECIFIED, port);
    let udp = UdpSocket::bind(any).map_err(refused("UDP"))?;
    let tcp = TcpListener::bind(any).map_err(refused("TCP"))?;
    let records = newest.clone();
    thread::spawn(move || datagrams(&udp, &records));
    thread::spawn(move || connections(&tcp, &newest));
    println!("dns: ready on port {port}");
    Ok(())
}

fn datagrams(socket: &UdpSocket, records: &Newest) {
    let mut buffer = vec![0; LARGEST];
    loop {
        // An error is an earlier answer's that nobody took.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = answer(&records.get(), &buffer[..length], Transport::Udp) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn connections(listener: &TcpListener, records: &Arc<Newest>) {
    for stream in listener.incoming().flatten() {
        let records = records.clone();
        // A connection for which there is no thread is closed.
        let _ = thread::Builder::new().stack_size(256 * 1024).spawn(move || {
            let _ = connection(stream, &records);
        });
    }
}

fn connection(mut stream: TcpStream, records: &Newest) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(answer) = answer(&records.get(), &query, Transport::Tcp) else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let mut message = length.to_be_bytes().to_vec();
        message.extend(answer);
        stream.write_all(&message)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_seen_and_a_bad_one_is_not() {
        let file = std::env::temp_dir().join(format!("udn-dns-{}", std::process::id()));
        let put = |text: &str| {
            let next = file.with_extension("next");
            fs::write(&next, text).unwrap();
            fs::rename(&next, &file).unwrap();
        };
        let newest = Newest { file: file.clone(), seen: Mutex::new((None, Arc::default())) };
        let has = |name: &str| newest.get().has(&name.parse().unwrap());
        put("a. ZONE\n");
        assert!(has("a."));
        put("b. ZONE\n");
        assert!(has("b.") && !has("a."));
        put("nonsense\n");
        assert!(has("b."));
        fs::remove_file(&file).unwrap();
        assert!(has("b."));
    }
}
