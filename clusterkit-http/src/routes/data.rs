//! Custom data: small values of the application, kept in the replicated state.
//!
//! The `ETag` of a value is the log index that wrote it; `If-Match` makes a write conditional on it
//! and `If-None-Match: *` on there being no value. Writes work on any node.

use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::command::{Command, Expected};
use clusterkit_core::config::{DATA_KEY_MAX_BYTES, DATA_KEYS_MAX};
use clusterkit_core::id::LogIndex;

use super::{Answer, ClusterApi, params};
use crate::Method;
use crate::api::v1::{DataKeyDocument, DataListDocument};
use crate::api::{Problem, ProblemCode};
use crate::headers;
use crate::server::{Request, Response};

/// The number of keys on a page when none is given.
const PAGE_DEFAULT: usize = 100;

impl ClusterApi {
    pub(super) async fn data(&self, request: &Request, key: String) -> Answer {
        if key.is_empty() || key.len() > DATA_KEY_MAX_BYTES {
            let limit = format!("1 to {DATA_KEY_MAX_BYTES} bytes");
            return Err(Problem::invalid("key", &key, limit));
        }
        let formed = self.formed()?;
        let command = match request.method() {
            Method::Put => Command::SetData {
                key,
                value: Arc::from(&request.body()[..]),
                expected: expected(request)?,
            },
            Method::Delete => {
                if request.header("if-match").is_none() && formed.view.state.data(&key).is_none() {
                    return Err(unknown(&key));
                }
                Command::DeleteData {
                    key,
                    expected: expected(request)?,
                }
            }
            _ => return self.data_value(request, &key).await,
        };
        let applied = formed.control.propose(command).await?;
        let etag = format!("\"{}\"", applied.index);
        let response = self.changed(&applied).await?;
        Ok(if request.method() == Method::Put {
            response.header("etag", etag)
        } else {
            response
        })
    }

    async fn data_value(&self, request: &Request, key: &str) -> Answer {
        let formed = self.formed()?;
        // `consistent` asks for everything committed before the request, whoever leads.
        let view = if params::flag(request, "consistent")? {
            formed.control.read_barrier().await?;
            formed.control.view()
        } else {
            formed.view
        };
        let entry = view.state.data(key).ok_or_else(|| unknown(key))?;
        let etag = format!("\"{}\"", entry.version);
        if params::none_match(request, &etag) {
            return Ok(params::not_modified(&etag));
        }
        Ok(Response::binary(200, Bytes::copy_from_slice(&entry.value))
            .header("etag", etag)
            .header(headers::REVISION, entry.version.to_string()))
    }

    pub(super) fn data_list(&self, request: &Request) -> Answer {
        let limit = params::number(request, "limit", PAGE_DEFAULT, &(1..=DATA_KEYS_MAX))?;
        let prefix = request.query().text("prefix").unwrap_or_default();
        let after = request.query().text("after");
        let view = self.formed()?.view;
        let mut entries = view
            .state
            .data_with_prefix(&prefix)
            .filter(|(key, _)| after.as_deref().is_none_or(|after| *key > after));
        let page = entries
            .by_ref()
            .take(limit)
            .map(|(key, entry)| DataKeyDocument {
                key: key.to_owned(),
                version: entry.version,
                value_bytes: entry.value.len(),
            })
            .collect();
        let document = DataListDocument {
            entries: page,
            has_more: entries.next().is_some(),
        };
        Ok(Response::json(200, &document))
    }
}

fn expected(request: &Request) -> Result<Expected, Problem> {
    if let Some(condition) = request.header("if-none-match") {
        return match condition.trim() {
            "*" => Ok(Expected::Absent),
            other => Err(Problem::invalid("if-none-match", other, "*")),
        };
    }
    let Some(condition) = request.header("if-match") else {
        return Ok(Expected::Any);
    };
    let version = condition.trim().trim_matches('"').parse();
    version
        .map(|version| Expected::Version(LogIndex(version)))
        .map_err(|_| Problem::invalid("if-match", condition, "the quoted version of a value"))
}

fn unknown(key: &str) -> Problem {
    Problem::new(
        ProblemCode::UnknownKey,
        format!("there is no value under `{key}`"),
    )
}
