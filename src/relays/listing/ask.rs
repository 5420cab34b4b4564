//! The edge: one question to the configured resolver.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::answer::{Failure, Heard, read};

/// Asks one resolver, by UDP and, where an answer is cut, by TCP.
pub struct Asker {
    resolver: TokioResolver,
    timeout: Duration,
}

impl Asker {
    /// Asks `server`; an answer may take `timeout_ms` in all.
    ///
    /// # Errors
    /// Where no client can be made, in the library's words.
    pub fn new(server: SocketAddr, timeout_ms: u32) -> Result<Self, NetError> {
        let timeout = Duration::from_millis(timeout_ms.into());
        let to = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = vec![to(ConnectionConfig::udp()), to(ConnectionConfig::tcp())];
        let servers = vec![NameServerConfig::new(server.ip(), true, connections)];
        let mut options = ResolverOpts::default();
        // The resolver that is asked has a cache, and keeps to what each list allows.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.attempts = 1;
        options.timeout = timeout / 2;
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let resolver =
            Resolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()?;
        Ok(Self { resolver, timeout })
    }

    /// Asks for the A records of a name, which must be absolute. Waits no longer than the time-out.
    pub async fn ask(&self, name: &str) -> Heard {
        match tokio::time::timeout(self.timeout, self.resolver.lookup(name, RecordType::A)).await {
            Err(_) | Ok(Err(NetError::Timeout)) => Heard::Failed(Failure::Silent),
            Ok(Ok(lookup)) => {
                let address = |data: &RData| if let RData::A(a) = data { Some(a.0) } else { None };
                read(lookup.answers().iter().filter_map(|record| address(&record.data)).collect())
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(no)))) => match no.response_code {
                ResponseCode::NXDomain | ResponseCode::NoError => Heard::Clean,
                code => Heard::Failed(Failure::Server(code.to_string())),
            },
            Ok(Err(error)) => Heard::Failed(Failure::Server(error.to_string())),
        }
    }
}
