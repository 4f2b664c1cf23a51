//! What a request for sessions means: filters, masks, etags. No transport.

use afs_proto::{duration_ns, timestamp_ns, v1};
use afs_session::{ListSessions, UpdateSession};
use afs_types::{Error, Reason, Result, SessionId, SourceId};
use std::collections::BTreeMap;

use crate::reply::{optional, page_size};

/// Terms `label.KEY=VALUE` joined by AND.
pub(crate) fn label_filter(filter: &str) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for term in filter.split(" AND ").map(str::trim).filter(|t| !t.is_empty()) {
        let parts = term.strip_prefix("label.").and_then(|t| t.split_once('='));
        let Some((key, value)) = parts.filter(|(key, _)| !key.trim().is_empty()) else {
            let shown: String = term.chars().take(80).collect();
            return Err(Error::invalid(
                "filter",
                format!("terms label.KEY=VALUE joined by AND, not {shown:?}"),
            ));
        };
        let value = value.trim().trim_matches('"').to_owned();
        if labels.insert(key.trim().to_owned(), value).is_some() {
            return Err(Error::invalid("filter", format!("label.{} once", key.trim())));
        }
    }
    Ok(labels)
}

/// Which sessions a list shows; the page is added by the caller.
pub(crate) fn list(request: &v1::ListSessionsRequest) -> Result<ListSessions> {
    use v1::SessionState::{Active, Archived};
    let (mut active, mut archived) = (false, false);
    for (n, state) in request.states.iter().enumerate() {
        match v1::SessionState::try_from(*state) {
            Ok(Active) => active = true,
            Ok(Archived) => archived = true,
            _ => {
                let (field, want) =
                    (format!("states[{n}]"), "SESSION_STATE_ACTIVE or SESSION_STATE_ARCHIVED");
                let error = Error::new(Reason::InvalidArgument, format!("{field}: want {want}"));
                return Err(error.with("field", field));
            }
        }
    }
    Ok(ListSessions {
        page_size: page_size(request.page_size)?,
        after: None,
        labels: label_filter(&request.filter)?,
        source: optional("source_id", &request.source_id, SourceId::parse)?,
        parent: optional("parent_session_id", &request.parent_session_id, SessionId::parse)?,
        archived: (active != archived).then_some(archived),
    })
}

/// What an update changes. A session of another id in it is a contradiction, whoever says which is meant.
pub(crate) fn update(request: v1::UpdateSessionRequest, now_ns: i64) -> Result<UpdateSession> {
    let session = request.session.unwrap_or_default();
    if !session.session_id.is_empty() && session.session_id != request.session_id {
        return Err(Error::invalid("session.session_id", "the same as `session_id`, or none"));
    }
    let mask = request.update_mask.unwrap_or_default().paths;
    if mask.is_empty() {
        return Err(Error::invalid("update_mask", "at least one of display_name, labels, expire_time"));
    }
    let mut change = UpdateSession { if_generation: etag(&session.etag)?, ..UpdateSession::default() };
    for path in &mask {
        match path.as_str() {
            "display_name" => change.display_name = Some(session.display_name.clone()),
            "labels" => change.labels = Some(session.labels.clone()),
            "expire_time" => {
                let at = session
                    .expire_time
                    .as_ref()
                    .map(|t| timestamp_ns("session.expire_time", t))
                    .transpose()?;
                if at.is_some_and(|at| at <= now_ns) {
                    return Err(Error::invalid("session.expire_time", "a time to come, or none")
                        .next("to end the session now, delete it"));
                }
                change.ttl_ns = Some(at.map(|at| at.saturating_sub(now_ns)));
            }
            other => {
                let shown: String = other.chars().take(80).collect();
                return Err(Error::invalid(
                    "update_mask",
                    format!("display_name, labels or expire_time, not {shown:?}"),
                ));
            }
        }
    }
    Ok(change)
}

/// The generation that an etag stands for; none for the empty text.
pub(crate) fn etag(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    // An etag that we never made can match nothing.
    text.parse().map(Some).map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        Error::new(Reason::EtagMismatch, format!("etag: the session does not have {shown:?}"))
            .with("field", "etag")
    })
}

/// A time to live.
pub(crate) fn ttl(ttl: Option<&pbjson_types::Duration>) -> Result<Option<i64>> {
    ttl.map(|d| duration_ns("ttl", d)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let labels = label_filter("label.team=a AND label.x=\"b c\"").unwrap();
        assert_eq!(labels, BTreeMap::from([("team".into(), "a".into()), ("x".into(), "b c".into())]));
        assert!(label_filter("").unwrap().is_empty());
        for bad in
            ["team=a", "label.=x", "label.a", "label.a=1 AND label.a=2", "label.a=1 OR label.b=2 AND x"]
        {
            assert_eq!(label_filter(bad).unwrap_err().reason, Reason::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn masks() {
        let request = |paths: &[&str]| v1::UpdateSessionRequest {
            session_id: "sess_a".into(),
            session: Some(v1::Session {
                display_name: "n".into(),
                etag: "3".into(),
                ..v1::Session::default()
            }),
            update_mask: Some(pbjson_types::FieldMask {
                paths: paths.iter().map(|p| (*p).to_owned()).collect(),
            }),
        };
        let change = update(request(&["display_name", "expire_time"]), 0).unwrap();
        assert_eq!(
            (change.display_name.as_deref(), change.labels, change.ttl_ns),
            (Some("n"), None, Some(None))
        );
        assert_eq!(change.if_generation, Some(3));
        for bad in [&[][..], &["revision"], &["session.labels"]] {
            assert!(update(request(bad), 0).unwrap_err().message().contains("update_mask"));
        }
        let of = |id: &str| {
            let mut request = request(&["labels"]);
            request.session.as_mut().unwrap().session_id = id.into();
            update(request, 0)
        };
        assert!(of("").is_ok() && of("sess_a").is_ok());
        let error = of("sess_b").unwrap_err();
        assert_eq!(error.metadata(), [("field", "session.session_id".to_owned())]);
    }

    #[test]
    fn states() {
        let states = |s: &[i32]| list(&v1::ListSessionsRequest { states: s.to_vec(), ..Default::default() });
        assert_eq!(states(&[]).unwrap().archived, None);
        assert_eq!(states(&[2]).unwrap().archived, Some(false));
        assert_eq!(states(&[4]).unwrap().archived, Some(true));
        assert_eq!(states(&[2, 4]).unwrap().archived, None);
        for (wrong, field) in [(&[0][..], "states[0]"), (&[2, 99], "states[1]")] {
            let error = states(wrong).unwrap_err();
            assert_eq!(error.metadata(), [("field", field.to_owned())]);
        }
    }
}
