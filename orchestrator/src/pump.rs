//! From the hub to the core: what happens on connections, as events.

use orchestrator_core::Event;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use transport::{Hub, HubEvent};
use wire::Message;
use wire::neighbours::AS_SEEN;

/// Turns what happens on the hub into events.
pub(crate) async fn pump(hub: Arc<Hub>, events: mpsc::Sender<Event>) {
    while let Some(happened) = hub.next().await {
        let event = match happened {
            // A connection is nobody until it says hello.
            HubEvent::Joined(_) => continue,
            HubEvent::Frame { from, frame } => match frame.message {
                Message::Hello(hello) => Event::Arrived { from, hello, unix_s: unix_s() },
                Message::Reachable(addresses) => {
                    let addresses = as_seen(addresses, hub.address_of(from));
                    Event::Message { from, message: Message::Reachable(addresses) }
                }
                message => Event::Message { from, message },
            },
            HubEvent::Suspected(node) => Event::Suspected(node),
            HubEvent::Recovered(node) => Event::Recovered(node),
            HubEvent::Lost { peer, why } => Event::Lost { peer, why: why.to_string() },
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Puts where a node is seen in the place of what it does not know of itself, and drops what is then said twice.
fn as_seen(addresses: Vec<SocketAddr>, seen: Option<SocketAddr>) -> Vec<SocketAddr> {
    let mut known = Vec::new();
    for address in addresses {
        let address = if address == AS_SEEN { seen } else { Some(address) };
        known.extend(address.filter(|address| !known.contains(address)));
    }
    known
}

/// The time of day, in seconds since 1970.
fn unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_reached_where_it_is_seen_and_where_it_says_each_once() {
        let [seen, own] = ["203.0.113.7:4701", "192.168.1.7:4701"].map(|text| text.parse().unwrap());
        assert_eq!(as_seen(vec![AS_SEEN, own], Some(seen)), [seen, own]);
        assert_eq!(as_seen(vec![AS_SEEN, own, own], Some(own)), [own]);
        assert_eq!(as_seen(vec![own], Some(seen)), [own], "it says where, and nowhere else");
        assert_eq!(as_seen(vec![AS_SEEN, own], None), [own], "its connection is gone by now");
    }
}
