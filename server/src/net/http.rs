//! The small HTTP port: `/metrics` for Prometheus, `/livez` and `/readyz` for supervisors. One request per connection, bounded in
//! size, time and number.

use std::{rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use forebay_engine::rt::{
    Class,
    local::Budget,
    net::{Listener, Stream},
};
use futures_util::future::join_all;

use crate::{
    metrics::{self, Snapshot},
    shard::Shard,
};

const REQUEST_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: u64 = 32;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the executor ends: `/readyz` tells when the broker drains.
pub async fn serve(shard: Rc<Shard>, listener: Listener) {
    let connections = Budget::new(CONNECTIONS_MAX);
    loop {
        let slot = connections.take(1).await;
        match listener.accept().await {
            Ok(stream) => {
                let here = shard.clone();
                let exchange = async move {
                    let _slot = slot;
                    let exchange = answer(&here, stream);
                    here.rt.timeout(REQUEST_TIME_MAX, exchange).await;
                };
                shard.rt.spawn(Class::Housekeeping, exchange).detach();
            }
            Err(_) => shard.rt.sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(shard: &Rc<Shard>, stream: Stream) {
    let (mut read, mut write) = stream.split();
    let mut request = BytesMut::with_capacity(REQUEST_BYTES_MAX);
    let route = loop {
        match route(&request) {
            Some(route) => break route,
            None if request.len() == REQUEST_BYTES_MAX => break Route::TooLarge,
            None => {}
        }
        match read.read_into(&mut request).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    let reply = reply(shard, route).await;
    // A scraper that left needs no answer.
    if write.write_all(&[Bytes::from(reply)]).await.is_ok() {
        let _ = write.shutdown().await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Route {
    Metrics,
    Live,
    Ready,
    NotFound,
    NotAllowed,
    Malformed,
    TooLarge,
}

/// `None`: the request is not complete yet.
fn route(request: &[u8]) -> Option<Route> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Partial) => None,
        Err(_) => Some(Route::Malformed),
        Ok(httparse::Status::Complete(_)) => {
            let path = parsed.path.unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            Some(match (parsed.method, path) {
                (Some("GET"), "/metrics") => Route::Metrics,
                (Some("GET"), "/livez") => Route::Live,
                (Some("GET"), "/readyz") => Route::Ready,
                (Some("GET"), _) => Route::NotFound,
                _ => Route::NotAllowed,
            })
        }
    }
}

async fn reply(shard: &Rc<Shard>, route: Route) -> String {
    let (status, kind, body) = match route {
        Route::Metrics => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ("200 OK", kind, metrics::encode(&gather(shard).await))
        }
        Route::Live => ("200 OK", "text/plain", "ok\n".to_owned()),
        Route::Ready if shard.front.is_draining() => (
            "503 Service Unavailable",
            "text/plain",
            "stopping\n".to_owned(),
        ),
        // Still ready: consumers are served, and it is them who wait.
        Route::Ready if shard.engine.stats().disk_low => (
            "200 OK",
            "text/plain",
            "ready, but the disk is low on space: produce is refused\n".to_owned(),
        ),
        Route::Ready => ("200 OK", "text/plain", "ready\n".to_owned()),
        Route::NotFound => ("404 Not Found", "text/plain", "not found\n".to_owned()),
        Route::NotAllowed => (
            "405 Method Not Allowed",
            "text/plain",
            "GET only\n".to_owned(),
        ),
        Route::Malformed => ("400 Bad Request", "text/plain", "malformed\n".to_owned()),
        Route::TooLarge => (
            "431 Request Header Fields Too Large",
            "text/plain",
            "too large\n".to_owned(),
        ),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

async fn gather(shard: &Rc<Shard>) -> Snapshot {
    let mut total = Snapshot::default();
    let asked = shard.shards().map(|to| shard.metrics(to, ()));
    for snapshot in join_all(asked).await.into_iter().flatten() {
        total.merge(&snapshot);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_route() {
        let check = |request: &str, expected| assert_eq!(route(request.as_bytes()), expected);
        check(
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            Some(Route::Metrics),
        );
        check("GET /metrics?a=b HTTP/1.1\r\n\r\n", Some(Route::Metrics));
        check("GET /livez HTTP/1.0\r\n\r\n", Some(Route::Live));
        check("GET /readyz HTTP/1.1\r\n\r\n", Some(Route::Ready));
        check("GET / HTTP/1.1\r\n\r\n", Some(Route::NotFound));
        check("POST /metrics HTTP/1.1\r\n\r\n", Some(Route::NotAllowed));
        check("GET /metrics HTTP/1.1\r\nHost", None);
        check("\x16\x03\x01\x02\x00", Some(Route::Malformed));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(HEADERS_MAX + 1)
        );
        check(&many, Some(Route::Malformed));
    }
}
