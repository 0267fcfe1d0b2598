//! `listeners` and `advertised.listeners`: where we listen and what we tell clients.

use std::collections::HashMap;

use super::value::elements;

/// One address, under the name that joins `listeners` with `advertised.listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    /// Empty: every address of the machine.
    pub host: String,
    pub port: u16,
}

impl Listener {
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::")
    }
}

/// What the keys about listeners come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Where clients connect to. One, for now.
    pub listener: Listener,
    /// What Metadata tells them; port 0 stands for the port that was bound.
    pub advertised: Listener,
}

impl Endpoints {
    /// Listeners named in `controller_names` are left out: a stock KRaft file names one, and our metadata needs none.
    pub fn parse(
        listeners: &str,
        advertised: Option<&str>,
        protocols: &str,
        controller_names: &str,
    ) -> Result<Endpoints, String> {
        let controllers: Vec<&str> = elements(controller_names).collect();
        let of_clients = |text: &str| -> Result<Vec<Listener>, String> {
            let mut parsed = elements(text)
                .map(parse_one)
                .collect::<Result<Vec<_>, _>>()?;
            parsed.retain(|listener| !controllers.contains(&listener.name.as_str()));
            Ok(parsed)
        };
        let mut own = of_clients(listeners)?;
        let Some(listener) = own.pop() else {
            return Err("listeners: no listener for clients".to_owned());
        };
        if !own.is_empty() {
            return Err("listeners: one listener for clients is supported".to_owned());
        }
        let protocols: HashMap<&str, &str> = elements(protocols)
            .filter_map(|pair| pair.split_once(':'))
            .collect();
        let name = listener.name.as_str();
        let protocol = protocols.get(name).copied().unwrap_or(name);
        if protocol != "PLAINTEXT" {
            return Err(format!(
                "listeners: {name} is {protocol}, but only PLAINTEXT is served"
            ));
        }
        let told = of_clients(advertised.unwrap_or(""))?;
        let advertised = match told.into_iter().find(|told| told.name == listener.name) {
            Some(told) if told.is_wildcard() => {
                return Err("advertised.listeners: clients need a host to connect to".to_owned());
            }
            Some(told) => told,
            None if advertised.is_some() => {
                return Err(format!(
                    "advertised.listeners: {name} of listeners is missing"
                ));
            }
            None => default_advertised(&listener),
        };
        Ok(Endpoints {
            listener,
            advertised,
        })
    }
}

/// A listener on every address is told as 127.0.0.1: it works for every client on this host, needs no name service, and is not
/// "localhost" because some clients try ::1 first. For other hosts there is no right guess (a host name that does not resolve
/// at the client is the most common misconfiguration of Kafka), so the operator says it, and the start-up report says so.
fn default_advertised(listener: &Listener) -> Listener {
    let mut advertised = listener.clone();
    if listener.is_wildcard() {
        advertised.host = "127.0.0.1".to_owned();
    }
    advertised
}

/// `NAME://host:port`, with an IPv6 host in brackets.
fn parse_one(text: &str) -> Result<Listener, String> {
    let wrong = || format!("{text:?} is not NAME://host:port");
    let (name, address) = text.split_once("://").ok_or_else(wrong)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if bracketed.is_none() && host.contains(':') {
        return Err(format!("{text:?}: an IPv6 address goes in brackets"));
    }
    if name.is_empty() || host.len() > 255 {
        return Err(wrong());
    }
    Ok(Listener {
        name: name.to_ascii_uppercase(),
        host: bracketed.unwrap_or(host).to_owned(),
        port: port.parse().map_err(|_| wrong())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT,SSL:SSL";

    /// `expected` is "listen host:port advertised host:port" or a part of the error.
    fn check(listeners: &str, advertised: Option<&str>, expected: Result<&str, &str>) {
        let got = Endpoints::parse(listeners, advertised, MAP, "CONTROLLER").map(|ends| {
            let (own, told) = (ends.listener, ends.advertised);
            format!("{}:{} {}:{}", own.host, own.port, told.host, told.port)
        });
        match expected {
            Ok(text) => assert_eq!(got.as_deref(), Ok(text), "{listeners}"),
            Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{got:?}"),
        }
    }

    #[test]
    fn listeners_are_parsed_and_advertised() {
        check("PLAINTEXT://:9092", None, Ok(":9092 127.0.0.1:9092"));
        check("PLAINTEXT://0.0.0.0:1", None, Ok("0.0.0.0:1 127.0.0.1:1"));
        check("PLAINTEXT://[::1]:1", None, Ok("::1:1 ::1:1"));
        check("plaintext://h:1", None, Ok("h:1 h:1"));
        check("INSIDE://h:0", None, Ok("h:0 h:0"));
        check("PLAINTEXT://:1,CONTROLLER://:2", None, Ok(":1 127.0.0.1:1"));
        check(
            "PLAINTEXT://:1",
            Some("PLAINTEXT://b.example:2"),
            Ok(":1 b.example:2"),
        );
        check("CONTROLLER://:2", None, Err("no listener"));
        check("PLAINTEXT://:1,INSIDE://:2", None, Err("one listener"));
        check("SSL://:1", None, Err("only PLAINTEXT"));
        check("OTHER://:1", None, Err("only PLAINTEXT"));
        check("PLAINTEXT://:1", Some("INSIDE://h:2"), Err("missing"));
        check("PLAINTEXT://:1", Some("PLAINTEXT://:2"), Err("need a host"));
        check("PLAINTEXT://::1:1", None, Err("brackets"));
        check("PLAINTEXT://:99999", None, Err("is not NAME"));
        check("localhost:9092", None, Err("is not NAME"));
    }
}
