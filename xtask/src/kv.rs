//! Records of the key-value service, through `clusterkit-client`: routed by key, byte for byte.
//!
//! The service speaks JSON, whose strings are text; [`encode`] makes any bytes text and back.

use std::time::Duration;

use anyhow::{Context, bail};
use clusterkit_client::{Client, Target};
use clusterkit_http::client::{HttpClient, HttpError, HttpRequest};
use clusterkit_http::headers;
use clusterkit_http::query::escape;
use serde_json::{Value, json};

/// The longest one attempt may take before the client tries elsewhere.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(1_000);

/// The records of a running cluster.
#[derive(Debug)]
pub(crate) struct Records {
    client: Client,
    http: HttpClient,
}

/// What a primary says of a write it accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// The node.
    pub(crate) node: String,
    /// The partition of the key.
    pub(crate) partition: u64,
    /// The epoch of the partition under which it was accepted.
    pub(crate) epoch: u64,
    /// Its number among the writes of that epoch.
    pub(crate) seq: u64,
    /// The epoch of the ownership token under which it was acknowledged.
    pub(crate) token: u64,
}

impl Acceptance {
    fn read(document: &Value) -> Option<Self> {
        let (epoch, seq) = document["version"].as_str()?.split_once('.')?;
        Some(Self {
            node: document["node_id"].as_str()?.to_owned(),
            partition: document["partition"].as_u64()?,
            epoch: epoch.parse().ok()?,
            seq: seq.parse().ok()?,
            token: document["token"].as_u64()?,
        })
    }
}

impl Records {
    /// Connects through any of `seeds`.
    pub(crate) async fn connect(seeds: &[String]) -> anyhow::Result<Self> {
        let client = Client::connect(seeds.iter().map(String::as_str))
            .await
            .with_context(|| format!("cannot connect through {}", seeds.join(", ")))?;
        Ok(Self {
            client,
            http: HttpClient::default(),
        })
    }

    /// Writes a record; Ok means acknowledged.
    pub(crate) async fn put(&self, key: &str, value: &[u8], limit: Duration) -> anyhow::Result<()> {
        let document = json!({"key": key, "value": encode(value)});
        self.client
            .call(key.as_bytes())
            .idempotent(true)
            .deadline(limit)
            .send(|target| self.set(target, &document))
            .await
            .with_context(|| format!("cannot write `{key}`"))
    }

    /// Writes a record as a client that knows the topology does: to its primary, with the epoch it
    /// was routed by, refused elsewhere. Returns who accepted it, and under which version.
    pub(crate) async fn write(
        &self,
        key: &str,
        value: &[u8],
        limit: Duration,
    ) -> anyhow::Result<Acceptance> {
        let document = json!({"key": key, "value": encode(value)});
        let accepted = self
            .client
            .call(key.as_bytes())
            .idempotent(true)
            .deadline(limit)
            .send(|target| self.set_routed(target, &document))
            .await
            .with_context(|| format!("cannot write `{key}`"))?;
        Acceptance::read(&accepted).with_context(|| format!("not understood: {accepted}"))
    }

    async fn set(&self, target: Target, document: &Value) -> Result<(), HttpError> {
        let request = HttpRequest::post("/kv/set")
            .json_body(document)
            .within(ATTEMPT_LIMIT);
        let answer = self.http.send(&service(&target)?, request).await?;
        answer.require_success(target.address())?;
        Ok(())
    }

    async fn set_routed(&self, target: Target, document: &Value) -> Result<Value, HttpError> {
        let request = HttpRequest::post("/kv/set")
            .header(headers::EPOCH, target.topology().epoch().to_string())
            .json_body(document)
            .within(ATTEMPT_LIMIT);
        let answer = self.http.send(&service(&target)?, request).await?;
        let answer = answer.require_success(target.address())?;
        answer.json(target.address())
    }

    /// Reads a record; None means there is none.
    pub(crate) async fn get(&self, key: &str, limit: Duration) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self
            .client
            .call(key.as_bytes())
            .idempotent(true)
            .deadline(limit)
            .send(|target| self.fetch(target, key))
            .await
            .with_context(|| format!("cannot read `{key}`"))?;
        found.as_deref().map(decode).transpose()
    }

    async fn fetch(&self, target: Target, key: &str) -> Result<Option<String>, HttpError> {
        let path = format!("/kv/get?key={}", escape(key));
        let request = HttpRequest::get(path).within(ATTEMPT_LIMIT);
        let answer = self.http.send(&service(&target)?, request).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let document: Value = answer
            .require_success(target.address())?
            .json(target.address())?;
        Ok(document["value"].as_str().map(str::to_owned))
    }

    /// Returns the partition of `key`, and its primary as this client sees it.
    pub(crate) fn locate(&self, key: &str) -> (usize, Option<String>) {
        let topology = self.client.topology();
        let partition = topology.partition(key.as_bytes());
        (
            partition.index(),
            topology.primary(partition).map(|node| node.id.to_string()),
        )
    }
}

fn service(target: &Target) -> Result<String, HttpError> {
    target
        .service("kv")
        .map(|address| address.into_owned())
        .ok_or_else(|| HttpError::Invalid {
            field: "services.kv",
            value: target.id().to_string(),
            limit: "announced by the node",
        })
}

/// Returns `value` as text: itself behind a `t`, or in hexadecimal behind an `x` if it is not text.
pub(crate) fn encode(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => format!("t{text}"),
        Err(_) => {
            let mut out = String::with_capacity(1 + 2 * value.len());
            out.push('x');
            for byte in value {
                for half in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(u32::from(half), 16).unwrap_or_default());
                }
            }
            out
        }
    }
}

/// Returns the bytes that [`encode`] made into `text`.
pub(crate) fn decode(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.split_at_checked(1) {
        Some(("t", text)) => Ok(text.as_bytes().to_vec()),
        Some(("x", digits)) => {
            let digits: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(16)).collect();
            let digits = digits.context("a value is not in hexadecimal")?;
            let byte =
                |pair: &[u32]| u8::try_from(pair.iter().fold(0, |sum, half| sum * 16 + half));
            let bytes = digits.chunks(2).map(byte).collect::<Result<_, _>>();
            bytes.context("a value is not in hexadecimal")
        }
        _ => bail!("a value was not written by us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        for value in [
            &b""[..],
            b"text",
            b"x00",
            "\u{0}\u{1f}\"\\\u{2028}".as_bytes(),
            &[0xff, 0, 0x80, 0x0a],
        ] {
            assert_eq!(decode(&encode(value)).unwrap(), value);
        }
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&every)).unwrap(), every);
    }

    #[test]
    fn what_we_did_not_write_is_refused() {
        assert!(decode("").is_err());
        assert!(decode("zz").is_err());
        assert!(decode("xg0").is_err());
    }
}
