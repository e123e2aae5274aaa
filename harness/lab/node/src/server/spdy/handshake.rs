//! The HTTP request that becomes a connection.

use axum::body::Body;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::session;
use crate::server::channels::{Asked, Channels};

const SPDY: &str = "SPDY/3.1";
/// The only one that is served: the oldest one that carries exit codes, and the newest one that clients speak over SPDY.
const PROTOCOL: &str = "v4.channel.k8s.io";
const PROTOCOLS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// A request for SPDY, and whether it can be granted.
pub(in crate::server) struct Handshake(Result<OnUpgrade, Refusal>);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("unable to upgrade: missing upgrade headers in request: Connection: Upgrade is needed, over HTTP/1.1")]
    NoUpgrade,
    #[error("unable to upgrade: header X-Stream-Protocol-Version names no protocol; {PROTOCOL} is served")]
    NoProtocol,
    #[error("unable to upgrade: unable to negotiate protocol: client supports {0:?}, server accepts [{PROTOCOL:?}]")]
    UnknownProtocols(Vec<String>),
}

impl Handshake {
    /// None where the request is not for SPDY.
    pub(in crate::server) fn of(parts: &mut Parts) -> Option<Self> {
        values(&parts.headers, &UPGRADE).iter().any(|value| value.eq_ignore_ascii_case(SPDY)).then(|| {
            Self(agree(&parts.headers).and_then(|()| parts.extensions.remove::<OnUpgrade>().ok_or(Refusal::NoUpgrade)))
        })
    }

    /// Answers the request; where that leads to a connection, runs `session` when the client has opened its streams.
    pub(in crate::server) fn serve<F, S>(self, asked: Asked, session: S) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
        S: FnOnce(Channels) -> F + Send + 'static,
    {
        let upgrade = match self.0 {
            Ok(upgrade) => upgrade,
            Err(refusal) => return refusal.into_response(),
        };
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => {
                    if let Some(channels) = session::begin(TokioIo::new(connection), asked, session::DEADLINE).await {
                        session(channels).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "a SPDY connection ended before it began"),
            }
        });
        let headers = [
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static(SPDY)),
            (PROTOCOLS, HeaderValue::from_static(PROTOCOL)),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message = format!("{self}\n");
        match self {
            Self::NoUpgrade | Self::NoProtocol => (StatusCode::BAD_REQUEST, message).into_response(),
            Self::UnknownProtocols(_) => {
                (StatusCode::FORBIDDEN, [(ACCEPTED, HeaderValue::from_static(PROTOCOL))], message).into_response()
            }
        }
    }
}

/// Is there a protocol that both sides speak?
fn agree(headers: &HeaderMap) -> Result<(), Refusal> {
    let offered = values(headers, &PROTOCOLS);
    if offered.is_empty() {
        return Err(Refusal::NoProtocol);
    }
    if offered.contains(&PROTOCOL) {
        return Ok(());
    }
    Err(Refusal::UnknownProtocols(offered.into_iter().map(str::to_owned).collect()))
}

/// A header's values, whether they come as several headers or with commas between them.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|value| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn outcome(headers: &[(&str, &str)]) -> Option<StatusCode> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        Handshake::of(&mut parts).map(|handshake| match handshake.0 {
            Ok(_) => StatusCode::SWITCHING_PROTOCOLS,
            Err(refusal) => refusal.into_response().status(),
        })
    }

    #[test]
    fn other_requests_are_not_for_spdy() {
        assert_eq!(outcome(&[]), None);
        assert_eq!(outcome(&[("upgrade", "websocket")]), None);
    }

    #[test]
    fn without_a_common_protocol_it_is_forbidden() {
        let old = ("x-stream-protocol-version", "channel.k8s.io, v3.channel.k8s.io");
        assert_eq!(outcome(&[("upgrade", "SPDY/3.1"), old]), Some(StatusCode::FORBIDDEN));
        assert_eq!(outcome(&[("upgrade", "SPDY/3.1")]), Some(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn protocols_come_in_several_headers_or_one() {
        let name = "x-stream-protocol-version";
        for offered in [&[(name, "v5.channel.k8s.io"), (name, PROTOCOL)][..], &[(name, "x,v4.channel.k8s.io , y")]] {
            let mut headers = HeaderMap::new();
            for (name, value) in offered {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert!(agree(&headers).is_ok(), "{offered:?}");
        }
    }
}
