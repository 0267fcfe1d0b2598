//! One TCP connection to a broker: frames, correlation ids, negotiated versions.

use std::{
    any::type_name,
    collections::HashMap,
    io::{self, Read, Write},
    marker::PhantomData,
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

use super::{Address, ClientConfig, ClientError, str_bytes};

/// A broker's largest answer is a fetch, which we bound ourselves; this leaves room for one oversized batch in it.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// How often a wait looks up to see whether it should stop.
const WAIT_SLICE: Duration = Duration::from_millis(100);

pub struct Connection {
    stream: TcpStream,
    address: String,
    client_id: StrBytes,
    correlation_id: i32,
    versions: HashMap<i16, (i16, i16)>,
}

/// A request on its way; redeemed with [`Connection::receive`].
#[must_use = "a reply that is not collected stays in the way of the next one"]
pub struct Pending<R> {
    correlation_id: i32,
    version: i16,
    request: PhantomData<R>,
}

impl Connection {
    /// Connects (to any of the addresses the name resolves to) and asks for the broker's versions.
    pub fn open(address: &Address, config: &ClientConfig) -> Result<Connection, ClientError> {
        let stream = connect(address, config.connect_timeout)?;
        let mut connection = Connection {
            stream,
            address: address.to_string(),
            client_id: str_bytes(&config.client_id),
            correlation_id: 0,
            versions: HashMap::new(),
        };
        let setup = [
            connection.stream.set_nodelay(true),
            connection.stream.set_read_timeout(Some(WAIT_SLICE)),
            connection
                .stream
                .set_write_timeout(Some(config.request_timeout)),
        ];
        for outcome in setup {
            outcome.map_err(|error| connection.io(error))?;
        }
        connection.negotiate(config.request_timeout)?;
        Ok(connection)
    }

    /// The highest version of this API that both sides know, at most `version_max`.
    pub fn version_of<R: Request>(&self, version_max: i16) -> Result<i16, ClientError> {
        let unsupported = || ClientError::Unsupported {
            address: self.address.clone(),
            api: api_name::<R>(),
        };
        let (min, max) = *self.versions.get(&R::KEY).ok_or_else(unsupported)?;
        let version = version_max.min(R::VERSIONS.max).min(max);
        if version < min.max(R::VERSIONS.min) {
            return Err(unsupported());
        }
        Ok(version)
    }

    pub fn send<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<Pending<R>, ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(|error| {
                ClientError::Malformed(format!("{} v{version}: {error}", api_name::<R>()))
            })?;
        let length = i32::try_from(frame.len() - 4)
            .map_err(|_| ClientError::Malformed("request is larger than 2 GiB".to_string()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream
            .write_all(&frame)
            .map_err(|error| self.io(error))?;
        Ok(Pending {
            correlation_id: self.correlation_id,
            version,
            request: PhantomData,
        })
    }

    /// Waits for the reply, until the timeout or until `stop` says so.
    pub fn receive<R: Request>(
        &mut self,
        pending: Pending<R>,
        timeout: Duration,
        stop: fn() -> bool,
    ) -> Result<R::Response, ClientError> {
        let mut frame = self.read_frame(timeout, stop, api_name::<R>())?;
        let header_version = <R::Response as HeaderVersion>::header_version(pending.version);
        let header = ResponseHeader::decode(&mut frame, header_version)
            .map_err(|error| self.malformed::<R>(&error.to_string()))?;
        if header.correlation_id != pending.correlation_id {
            return Err(self.malformed::<R>("its correlation id belongs to another request"));
        }
        R::Response::decode(&mut frame, pending.version)
            .map_err(|error| self.malformed::<R>(&error.to_string()))
    }

    /// A broker that does not know our version of ApiVersions answers in version 0 with UNSUPPORTED_VERSION.
    fn negotiate(&mut self, timeout: Duration) -> Result<(), ClientError> {
        const UNSUPPORTED_VERSION: [u8; 2] = 35i16.to_be_bytes();
        let version = 3;
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("forebay"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let pending = self.send(&request, version)?;
        let never = || false;
        let mut frame = self.read_frame(timeout, never, "ApiVersions")?;
        let malformed = |error: &dyn std::fmt::Display| {
            ClientError::Malformed(format!("ApiVersions: {error}; is this a Kafka port?"))
        };
        let header = ResponseHeader::decode(&mut frame, 0).map_err(|error| malformed(&error))?;
        if header.correlation_id != pending.correlation_id {
            return Err(malformed(&"wrong correlation id"));
        }
        let response = if frame.starts_with(&UNSUPPORTED_VERSION) {
            let pending = self.send(&ApiVersionsRequest::default(), 0)?;
            self.receive(pending, timeout, never)?
        } else {
            Decodable::decode(&mut frame, version).map_err(|error| malformed(&error))?
        };
        let response: kafka_protocol::messages::ApiVersionsResponse = response;
        ClientError::check(response.error_code, || "ApiVersions".to_string())?;
        self.versions = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        Ok(())
    }

    fn read_frame(
        &mut self,
        timeout: Duration,
        stop: fn() -> bool,
        api: &'static str,
    ) -> Result<Bytes, ClientError> {
        let deadline = Instant::now() + timeout;
        let mut prefix = [0u8; 4];
        self.read_full(&mut prefix, deadline, stop, api)?;
        let length = usize::try_from(i32::from_be_bytes(prefix))
            .ok()
            .filter(|length| (4..=FRAME_BYTES_MAX).contains(length))
            .ok_or_else(|| {
                ClientError::Malformed(format!(
                    "{} sent a frame length that no Kafka broker sends; is this a Kafka port?",
                    self.address
                ))
            })?;
        let mut frame = BytesMut::zeroed(length);
        self.read_full(&mut frame, deadline, stop, api)?;
        Ok(frame.freeze())
    }

    /// `read_exact` that looks up every [`WAIT_SLICE`].
    fn read_full(
        &mut self,
        buffer: &mut [u8],
        deadline: Instant,
        stop: fn() -> bool,
        api: &'static str,
    ) -> Result<(), ClientError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ClientError::Disconnected(self.address.clone())),
                Ok(count) => filled += count,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) =>
                {
                    if stop() {
                        return Err(ClientError::Interrupted);
                    }
                    if Instant::now() >= deadline {
                        return Err(ClientError::TimedOut {
                            address: self.address.clone(),
                            api,
                        });
                    }
                }
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(())
    }

    fn io(&self, error: io::Error) -> ClientError {
        ClientError::Io {
            address: self.address.clone(),
            error,
        }
    }

    fn malformed<R: Request>(&self, what: &str) -> ClientError {
        ClientError::Malformed(format!("{} from {}: {what}", api_name::<R>(), self.address))
    }
}

/// Tries all addresses of a name: `localhost` is two, and the broker may listen on one of them only.
fn connect(address: &Address, timeout: Duration) -> Result<TcpStream, ClientError> {
    let fail = |error| ClientError::Connect {
        address: address.to_string(),
        error,
    };
    let resolved = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(fail)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket_address in resolved {
        match TcpStream::connect_timeout(&socket_address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(fail(last))
}

/// `Metadata` for `kafka_protocol::...::MetadataRequest`.
fn api_name<R: Request>() -> &'static str {
    let path = type_name::<R>();
    let name = path.rsplit("::").next().unwrap_or(path);
    debug_assert!(ApiKey::try_from(R::KEY).is_ok());
    name.strip_suffix("Request").unwrap_or(name)
}
