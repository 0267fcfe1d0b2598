//! A small blocking Kafka client for the command line: it works against any broker that speaks the protocol.
//!
//! Promises: the highest version both sides know, bounded frames, a timeout on every wait, errors that name the
//! broker. Does not: run in the background, keep more than one connection per broker, or do TLS and SASL.

mod assignment;
pub mod config;
mod connection;
mod error;
pub mod group;
pub mod group_admin;
mod metadata;
pub mod offsets;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    thread::sleep,
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{FindCoordinatorRequest, GroupId, TopicName},
    protocol::{Request, StrBytes},
};

pub use connection::{Connection, Pending};
pub use error::ClientError;
pub use metadata::{AutoCreate, Metadata, PartitionInfo, TopicInfo};

use super::signal;

/// A partition of a topic, the key of most maps in the client.
pub type TopicPartition = (String, i32);

/// Pause between attempts when a broker asks to come again.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// Reads `host:port`, `[v6]:port`, or with a `PROTOCOL://` in front; the port defaults to 9092.
    pub fn parse(text: &str) -> Result<Address, ClientError> {
        let bad = || ClientError::BadAddress(text.to_string());
        let rest = match text.split_once("://") {
            Some((protocol, _)) if !protocol.eq_ignore_ascii_case("plaintext") => {
                return Err(ClientError::UnsupportedSecurity(protocol.to_string()));
            }
            Some((_, rest)) => rest,
            None => text,
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
                (host, tail.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = port.map_or(Ok(9092), str::parse).map_err(|_| bad())?;
        if host.is_empty() || port == 0 {
            return Err(bad());
        }
        Ok(Address {
            host: host.to_string(),
            port,
        })
    }

    /// Reads a comma-separated list.
    pub fn parse_list(text: &str) -> Result<Vec<Address>, ClientError> {
        let list: Vec<Address> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Address::parse)
            .collect::<Result<_, _>>()?;
        if list.is_empty() {
            return Err(ClientError::BadAddress(text.to_string()));
        }
        Ok(list)
    }
}

#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub bootstrap: Vec<Address>,
    pub client_id: String,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
}

impl ClientConfig {
    pub fn new(bootstrap: Vec<Address>, client_id: &str) -> ClientConfig {
        ClientConfig {
            bootstrap,
            client_id: client_id.to_string(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// Which broker a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whichever answers: the first that is connected, or that can be.
    Any,
    /// The node with this id, as the last metadata named it.
    Broker(i32),
}

pub struct Client {
    config: ClientConfig,
    /// Addresses by node id, from the last metadata.
    brokers: BTreeMap<i32, Address>,
    connections: HashMap<Address, Connection>,
    /// Whether Ctrl-C ends a wait. Switched off to say goodbye to a group.
    interruptible: bool,
}

impl Client {
    /// Connects to the first address that answers.
    pub fn connect(config: ClientConfig) -> Result<Client, ClientError> {
        let mut client = Client {
            config,
            brokers: BTreeMap::new(),
            connections: HashMap::new(),
            interruptible: true,
        };
        client.any_address()?;
        Ok(client)
    }

    /// Ids of the brokers that metadata named, in order.
    pub fn brokers(&self) -> impl Iterator<Item = i32> {
        self.brokers.keys().copied()
    }

    /// The address of a broker, or `-` if metadata has not named it.
    pub fn broker_address(&self, node: i32) -> String {
        let address = self.brokers.get(&node);
        address.map_or("-".to_string(), ToString::to_string)
    }

    pub fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    /// From here on Ctrl-C no longer ends a wait: the caller finishes what it began. A second one still ends the process.
    pub fn ignore_interrupts(&mut self) {
        self.interruptible = false;
    }

    /// Sends a request and waits for its reply. `build` gets the version agreed with that broker, at most `version_max`.
    pub fn call<R: Request>(
        &mut self,
        target: Target,
        version_max: i16,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let timeout = self.config.request_timeout;
        self.call_within(target, version_max, timeout, build)
    }

    /// As [`Client::call`], for requests that a broker may hold back longer than the usual timeout.
    pub fn call_within<R: Request>(
        &mut self,
        target: Target,
        version_max: i16,
        timeout: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let pending = self.send(target, version_max, build)?;
        self.receive(pending, timeout)
    }

    /// Sends a request whose reply is collected later with [`Client::receive`], in the order of sending per broker.
    pub fn send<R: Request>(
        &mut self,
        target: Target,
        version_max: i16,
        build: impl FnOnce(i16) -> R,
    ) -> Result<(Address, Pending<R>), ClientError> {
        let address = self.address_of(target)?;
        let connection = self.connection(&address)?;
        let sent = connection
            .version_of::<R>(version_max)
            .and_then(|version| connection.send(&build(version), version));
        match sent {
            Ok(pending) => Ok((address, pending)),
            Err(error) => Err(self.drop_if_broken(&address, error)),
        }
    }

    pub fn receive<R: Request>(
        &mut self,
        (address, pending): (Address, Pending<R>),
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        let stop = if self.interruptible {
            signal::interrupted
        } else {
            || false
        };
        let Some(connection) = self.connections.get_mut(&address) else {
            return Err(ClientError::Disconnected(address.to_string()));
        };
        connection
            .receive(pending, timeout, stop)
            .map_err(|error| self.drop_if_broken(&address, error))
    }

    /// The version `call` would use with this broker; `None` if the broker does not offer the API.
    pub fn version_of<R: Request>(&mut self, target: Target, version_max: i16) -> Option<i16> {
        let address = self.address_of(target).ok()?;
        let connection = self.connection(&address).ok()?;
        connection.version_of::<R>(version_max).ok()
    }

    /// The node that coordinates a group. Waits while the coordinator is being set up.
    pub fn coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        let key = StrBytes::from_string(group.to_string());
        self.retry(|client| {
            let response = client.call(Target::Any, 6, |version| {
                let request = FindCoordinatorRequest::default();
                if version >= 4 {
                    request.with_coordinator_keys(vec![key.clone()])
                } else {
                    request.with_key(key.clone())
                }
            })?;
            let (code, node, host, port) = match response.coordinators.first() {
                Some(found) => (found.error_code, found.node_id, &found.host, found.port),
                None => (
                    response.error_code,
                    response.node_id,
                    &response.host,
                    response.port,
                ),
            };
            ClientError::check(code, || format!("group '{group}'"))?;
            client.note_broker(node.0, host, port)?;
            Ok(node.0)
        })
    }

    /// Repeats `attempt` while it fails in a way that time heals, up to the request timeout.
    pub fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.config.request_timeout;
        loop {
            match attempt(self) {
                Err(error) if error.is_retriable() && Instant::now() < deadline => {
                    if self.interruptible && signal::interrupted() {
                        return Err(ClientError::Interrupted);
                    }
                    sleep(RETRY_BACKOFF);
                }
                outcome => return outcome,
            }
        }
    }

    fn note_broker(&mut self, node: i32, host: &str, port: i32) -> Result<(), ClientError> {
        let port = u16::try_from(port)
            .map_err(|_| ClientError::Malformed(format!("broker {node} has port {port}")))?;
        let host = host.to_string();
        self.brokers.insert(node, Address { host, port });
        Ok(())
    }

    fn address_of(&mut self, target: Target) -> Result<Address, ClientError> {
        match target {
            Target::Any => self.any_address(),
            Target::Broker(node) => match self.brokers.get(&node) {
                Some(address) => Ok(address.clone()),
                None => Err(ClientError::Broker {
                    error: ResponseError::BrokerNotAvailable,
                    what: format!("broker {node}"),
                    message: None,
                }),
            },
        }
    }

    fn any_address(&mut self) -> Result<Address, ClientError> {
        if let Some(address) = self.connections.keys().next() {
            return Ok(address.clone());
        }
        let known = self.config.bootstrap.iter().chain(self.brokers.values());
        let candidates: Vec<Address> = known.cloned().collect();
        let mut last = ClientError::BadAddress(String::new());
        for address in candidates {
            match self.connection(&address) {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connection(&mut self, address: &Address) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(address) {
            let connection = Connection::open(address, &self.config)?;
            self.connections.insert(address.clone(), connection);
        }
        Ok(self
            .connections
            .get_mut(address)
            .expect("inserted above if it was missing"))
    }

    fn drop_if_broken(&mut self, address: &Address, error: ClientError) -> ClientError {
        if error.breaks_connection() {
            self.connections.remove(address);
        }
        error
    }
}

/// The names of the wire are their own types; these make them from ours.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

pub fn group_id(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_string()))
}

pub fn str_bytes(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kafka_reads_them() {
        let check = |text: &str, want: Option<(&str, u16)>| {
            let got = Address::parse(text).ok();
            let want = want.map(|(host, port)| Address {
                host: host.to_string(),
                port,
            });
            assert_eq!(got, want, "{text}");
        };
        check("localhost:9092", Some(("localhost", 9092)));
        check("localhost", Some(("localhost", 9092)));
        check("PLAINTEXT://h:1", Some(("h", 1)));
        check("[::1]:9093", Some(("::1", 9093)));
        check("SSL://h:1", None);
        check("h:0", None);
        check("h:70000", None);
        check(":9092", None);
        assert_eq!(Address::parse_list("a:1, b:2").unwrap().len(), 2);
        assert!(Address::parse_list(" , ").is_err());
    }
}
