//! Queries to answers, as CoreDNS gives them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::records::Records;

/// Seconds that an answer is good for: what kubeadm configures.
const TTL: u32 = 30;
/// How many aliases are followed.
const LONGEST_CHAIN: usize = 8;
/// The largest answer over UDP without extensions, and the largest with.
const PLAIN_UDP: u16 = 512;
const LARGEST_UDP: u16 = 1232;

/// How a query came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// The answer to a query in its wire format; nothing to what is no query.
pub(crate) fn answer(records: &Records, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let Ok(query) = Message::from_vec(query) else {
        // Whoever sent it can be told as much as its number.
        let id = u16::from_be_bytes([*query.first()?, *query.get(1)?]);
        let is_query = query.get(2)? & 0x80 == 0;
        return is_query.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok())?;
    };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.add_queries(query.queries.iter().cloned());
    let mut limit = PLAIN_UDP;
    if let Some(edns) = &query.edns {
        limit = edns.max_payload().clamp(PLAIN_UDP, LARGEST_UDP);
        let mut own = Edns::new();
        own.set_max_payload(LARGEST_UDP);
        message.set_edns(own);
    }
    message.metadata.response_code = match (query.metadata.op_code, query.queries.as_slice()) {
        (OpCode::Query, [one]) if one.query_class() == DNSClass::IN => resolve(records, one, &mut message),
        (OpCode::Query, [_]) => ResponseCode::Refused,
        (OpCode::Query, _) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    let bytes = message.to_vec().ok()?;
    if transport == Transport::Udp && bytes.len() > usize::from(limit) {
        return message.truncate().to_vec().ok();
    }
    Some(bytes)
}

fn resolve(records: &Records, query: &Query, message: &mut Message) -> ResponseCode {
    let mut name = query.name().clone();
    let Some(zone) = records.zone(&name.to_lowercase()) else { return ResponseCode::Refused };
    message.metadata.authoritative = true;
    let wanted = query.query_type();
    for _ in 0..LONGEST_CHAIN {
        let lower = name.to_lowercase();
        let alias = records.of(&lower).iter().find_map(|data| match data {
            RData::CNAME(target) if wanted != RecordType::CNAME => Some(target.0.clone()),
            _ => None,
        });
        let Some(target) = alias else {
            let found = lookup(records, &lower, wanted);
            let exists = records.has(&lower) || records.pod(&lower).is_some();
            if found.is_empty() {
                if records.zone(&lower).is_some() {
                    message.add_authority(authority(zone, records.serial));
                }
                // A name that an alias leads to and that is not ours is the client's to look up.
                let unknown = !exists && records.zone(&lower).is_some();
                return if unknown { ResponseCode::NXDomain } else { ResponseCode::NoError };
            }
            message.add_answers(found.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)));
            return ResponseCode::NoError;
        };
        let data = RData::CNAME(hickory_proto::rr::rdata::CNAME(target.clone()));
        message.add_answer(Record::from_rdata(name, TTL, data));
        name = target;
    }
    ResponseCode::ServFail
}

fn lookup(records: &Records, name: &Name, wanted: RecordType) -> Vec<RData> {
    let fits = |data: &RData| wanted == RecordType::ANY || data.record_type() == wanted;
    let mut found: Vec<RData> = records.of(name).iter().filter(|data| fits(data)).cloned().collect();
    if found.is_empty() {
        let pod = records.pod(name).map(|address| match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        });
        found.extend(pod.filter(fits));
    }
    // Clients take the first: each gets its turn.
    static TURN: AtomicUsize = AtomicUsize::new(0);
    if found.len() > 1 {
        let turn = TURN.fetch_add(1, Ordering::Relaxed) % found.len();
        found.rotate_left(turn);
    }
    found
}

fn authority(zone: &Name, serial: u32) -> Record {
    let below = |labels: &str| Name::from_ascii(labels).and_then(|it| it.append_domain(zone)).unwrap_or_default();
    let data = SOA::new(below("ns.dns"), below("hostmaster"), serial, 7200, 1800, 86400, TTL);
    Record::from_rdata(zone.clone(), TTL, RData::SOA(data))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::str::FromStr;

    use super::*;

    const FILE: &str = "cluster.local. ZONE\nlab.example. ZONE\nblue.pod.cluster.local. PODS\nblue.svc.cluster.local. NAME\n\
        web.blue.svc.cluster.local. A 10.96.0.7\nweb.blue.svc.cluster.local. AAAA fd00::7\n\
        _http._tcp.web.blue.svc.cluster.local. SRV 80 web.blue.svc.cluster.local.\n\
        old.blue.svc.cluster.local. CNAME web.blue.svc.cluster.local.\naway.blue.svc.cluster.local. CNAME www.example.com.\n\
        loop.blue.svc.cluster.local. CNAME loop.blue.svc.cluster.local.\n";

    fn ask(text: &str, name: &str, wanted: RecordType, transport: Transport) -> Message {
        let records = Records::read(text, 7).unwrap();
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_str(name).unwrap(), wanted));
        let answer = answer(&records, &query.to_vec().unwrap(), transport).unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        answer
    }

    fn said(name: &str, wanted: RecordType) -> (ResponseCode, Vec<String>) {
        let message = ask(FILE, name, wanted, Transport::Udp);
        let data = message.answers.iter().map(|record| record.data.to_string()).collect();
        (message.metadata.response_code, data)
    }

    #[test]
    fn what_is_listed_is_answered_and_nothing_else() {
        let ok =
            |texts: &[&str]| (ResponseCode::NoError, texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(said("web.blue.svc.cluster.local.", RecordType::A), ok(&["10.96.0.7"]));
        assert_eq!(said("WEB.Blue.svc.cluster.local.", RecordType::AAAA), ok(&["fd00::7"]));
        assert_eq!(
            said("_http._tcp.web.blue.svc.cluster.local.", RecordType::SRV),
            ok(&["0 100 80 web.blue.svc.cluster.local."])
        );
        assert_eq!(said("web.blue.svc.cluster.local.", RecordType::TXT), ok(&[]));
        assert_eq!(said("blue.svc.cluster.local.", RecordType::A), ok(&[]));
        assert_eq!(said("svc.cluster.local.", RecordType::A), ok(&[]));
        assert_eq!(said("10-0-0-1.blue.pod.cluster.local.", RecordType::A), ok(&["10.0.0.1"]));
        assert_eq!(said("10-0-0-1.blue.pod.cluster.local.", RecordType::AAAA), ok(&[]));
        let none = (ResponseCode::NXDomain, Vec::new());
        for name in [
            "db.blue.svc.cluster.local.",
            "10-0-0-1.red.pod.cluster.local.",
            "x.web.blue.svc.cluster.local.",
            "no.lab.example.",
        ] {
            assert_eq!(said(name, RecordType::A), none, "{name}");
        }
        assert_eq!(said("example.com.", RecordType::A), (ResponseCode::Refused, Vec::new()));
    }

    #[test]
    fn aliases_are_followed_as_far_as_they_are_ours() {
        assert_eq!(said("old.blue.svc.cluster.local.", RecordType::A).1, ["web.blue.svc.cluster.local.", "10.96.0.7"]);
        let away = said("away.blue.svc.cluster.local.", RecordType::A);
        assert_eq!(away, (ResponseCode::NoError, vec!["www.example.com.".to_owned()]));
        assert_eq!(said("loop.blue.svc.cluster.local.", RecordType::A).0, ResponseCode::ServFail);
    }

    #[test]
    fn a_negative_answer_says_for_how_long() {
        let message = ask(FILE, "db.blue.svc.cluster.local.", RecordType::A, Transport::Udp);
        assert!(message.metadata.authoritative);
        assert!(matches!(&message.authorities[0].data, RData::SOA(soa) if soa.minimum == TTL && soa.serial == 7));
    }

    #[test]
    fn what_does_not_fit_is_asked_for_again_over_tcp() {
        let mut text = "cluster.local. ZONE\n".to_owned();
        for number in 0..60 {
            writeln!(text, "many.cluster.local. A 10.0.0.{number}").unwrap();
        }
        let udp = ask(&text, "many.cluster.local.", RecordType::A, Transport::Udp);
        assert!(udp.metadata.truncation && udp.answers.is_empty());
        assert_eq!(ask(&text, "many.cluster.local.", RecordType::A, Transport::Tcp).answers.len(), 60);
    }

    #[test]
    fn nonsense_is_not_answered_with_sense() {
        let records = Records::default();
        assert_eq!(answer(&records, b"", Transport::Udp), None);
        let answered = answer(&records, &[0x12, 0x34, 0, 0, 0xff], Transport::Udp).unwrap();
        let message = Message::from_vec(&answered).unwrap();
        assert_eq!((message.metadata.id, message.metadata.response_code), (0x1234, ResponseCode::FormErr));
        let response = Message::response(1, OpCode::Query).to_vec().unwrap();
        assert_eq!(answer(&records, &response, Transport::Udp), None);
    }
}
