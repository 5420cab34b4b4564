//! A DNS server on the loopback that has test zones, as blocklists have them.

#![allow(dead_code, reason = "shared by tests that each need a part")]
#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::rr::rdata::{A, SOA};
use hickory_server::proto::rr::{LowerName, Name, RData, Record};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

pub type Handler = Arc<InMemoryZoneHandler<TokioRuntimeProvider>>;

fn parsed(name: &str) -> Name {
    Name::from_str(name).unwrap()
}

/// A list without entries.
pub async fn zone(origin: &str) -> Handler {
    let handler = InMemoryZoneHandler::empty(parsed(origin), ZoneType::Primary, AxfrPolicy::Deny);
    let soa = SOA::new(parsed("ns.invalid."), parsed("h.invalid."), 1, 60, 60, 60, 60);
    handler.upsert(Record::from_rdata(parsed(origin), 60, RData::SOA(soa)), 0).await;
    Arc::new(handler)
}

/// Puts an address into it.
pub async fn list(zone: &Handler, name: &str, code: [u8; 4]) {
    let code = RData::A(A(Ipv4Addr::from(code)));
    assert!(zone.upsert(Record::from_rdata(parsed(name), 60, code), 0).await, "{name}");
}

/// Serves these zones, and refuses others. The server ends with what is returned.
pub async fn serve(zones: &[(&str, &Handler)]) -> (Server<Catalog>, SocketAddr) {
    let mut catalog = Catalog::new();
    for (origin, handler) in zones {
        let handler: Arc<dyn ZoneHandler> = Arc::clone(*handler) as _;
        catalog.upsert(LowerName::from(parsed(origin)), vec![handler]);
    }
    let mut server = Server::new(catalog);
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    server.register_socket(udp);
    if let Ok(tcp) = TcpListener::bind(address).await {
        server.register_listener(tcp, Duration::from_secs(5), 16);
    }
    (server, address)
}

/// Takes all entries of a name out.
pub async fn unlist(zone: &Handler, name: &str) {
    zone.records_mut().await.retain(|key, _| key.name != LowerName::from(parsed(name)));
}
