//! Whether the gateways of a pod's default routes answer it: the proof that its interface is connected, both ways. Isolated
//! interfaces have nobody who answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use udn_lab_sys::netns::Netns;

use super::links::Links;
use crate::annotation::Attachment;
use crate::error::Error;

/// How long all gateways of a pod may take; on idle cores it takes a few milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the kernel's table of neighbours is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How often a gateway that the kernel has given up is asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// The discard port: what is sent there only makes the kernel ask for the gateway's link-layer address.
const DISCARD: u16 = 9;

/// Waits until every gateway of the pod's default routes has answered address resolution. Guests have theirs themselves.
///
/// # Errors
/// The gateways that did not, in time: the port's flows are there as ovn-controller says, and yet nothing comes of it.
pub(crate) async fn wait(netns: &Netns, attachments: &[Attachment]) -> Result<(), Error> {
    let mut missing: BTreeSet<IpAddr> =
        attachments.iter().filter(|it| it.guest.is_none()).flat_map(|it| it.gateways.iter().copied()).collect();
    let links = Links::open(netns)?;
    let (begun, mut asked) = (Instant::now(), None::<Instant>);
    loop {
        if asked.is_none_or(|asked| asked.elapsed() >= AGAIN) {
            ask(netns, &missing)?;
            asked = Some(Instant::now());
        }
        let known = links.neighbours().await?;
        missing.retain(|gateway| !known.contains(gateway));
        if missing.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= DEADLINE {
            let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let what = format!("the gateways {} to answer address resolution in {}", names.join(", "), netns.name());
            return Err(Error::Timeout { what, seconds: DEADLINE.as_secs() });
        }
        sleep(POLL).await;
    }
}

/// Makes the kernel of the pod's namespace ask who these are.
fn ask(netns: &Netns, gateways: &BTreeSet<IpAddr>) -> Result<(), Error> {
    let sent = netns.run(|| {
        for gateway in gateways {
            let any = if gateway.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            // What cannot be sent is not answered, and told as that.
            if let Ok(socket) = UdpSocket::bind(any) {
                let _ = socket.set_nonblocking(true);
                let _ = socket.send_to(&[], SocketAddr::new(*gateway, DISCARD));
            }
        }
    });
    sent.map_err(|error| Error::Link {
        action: "ask for gateways".into(),
        netns: netns.name().into(),
        reason: error.to_string(),
    })
}
