//! Query parameters and bodies against the shapes of messages.

use super::*;
use crate::rest::ROUTES;
use serde_json::json;

fn shape(message: &str) -> &'static Shape {
    ROUTES.iter().map(|r| r.shape).find(|s| s.name == message).unwrap()
}

fn wrong(message: &str, body: Value) -> String {
    let Value::Object(mut fields) = body else { panic!() };
    let error = shape(message).check(&mut fields).unwrap_err();
    assert_eq!(error.reason, Reason::InvalidArgument);
    let field = error.metadata().iter().find(|(k, _)| *k == "field").unwrap().1.clone();
    assert!(error.message().contains(&field), "{error}");
    field
}

#[test]
fn every_wrong_field_is_named_by_its_path() {
    for (message, body, field) in [
        ("CreateSourceRequest", json!({"sorce_id": "x"}), "sorce_id"),
        ("CreateSourceRequest", json!({"source_id": 5}), "source_id"),
        ("CreateSourceRequest", json!({"spec": {"git": {"url": []}}}), "spec.git.url"),
        ("CreateSourceRequest", json!({"spec": {"git": {"uri": "x"}}}), "spec.git.uri"),
        ("CreateSourceRequest", json!({"labels": {"a": 1}}), "labels[\"a\"]"),
        ("CreateSourceRequest", json!({"labels": []}), "labels"),
        ("CreateSessionRequest", json!({"ttl": "1 hour"}), "ttl"),
        ("CreateSessionRequest", json!({"ttl": 5}), "ttl"),
        ("ForkSessionRequest", json!({"count": -1}), "count"),
        ("ForkSessionRequest", json!({"count": 4_294_967_296u64}), "count"),
        ("ForkSessionRequest", json!({"count": 1.5}), "count"),
        ("ForkSessionRequest", json!({"new_session_ids": "x"}), "new_session_ids"),
        (
            "SubmitChangesRequest",
            json!({"changes": [{}, {"write": {"content": "€"}}]}),
            "changes[1].write.content",
        ),
        ("SubmitChangesRequest", json!({"durability": "NONE"}), "durability"),
        ("SetAttributesRequest", json!({"modify_time": "yesterday"}), "modify_time"),
        ("SetAttributesRequest", json!({"size": "x"}), "size"),
        ("UpdateSessionRequest", json!({"update_mask": {}}), "update_mask"),
        ("EditFileRequest", json!({"dry_run": "yes"}), "dry_run"),
    ] {
        assert_eq!(wrong(message, body), field);
    }
    wrong("ForkSessionRequest", json!({"session_id": "a", "sessionId": "a"}));
}

#[test]
fn both_spellings_and_number_forms_are_understood() {
    let Value::Object(mut fields) = json!({
        "sessionId": "sess_a", "count": "3", "checkpoint_id": null, "labels": {"k": "v"}
    }) else {
        panic!()
    };
    shape("ForkSessionRequest").check(&mut fields).unwrap();
    let request: crate::v1::ForkSessionRequest = serde_json::from_value(Value::Object(fields)).unwrap();
    assert_eq!((request.session_id.as_str(), request.count), ("sess_a", 3));
}

#[test]
fn a_field_mask_is_one_text() {
    let Value::Object(mut fields) = json!({"session_id": "sess_a", "update_mask": "displayName, labels"})
    else {
        panic!()
    };
    shape("UpdateSessionRequest").check(&mut fields).unwrap();
    let request: crate::v1::UpdateSessionRequest = serde_json::from_value(Value::Object(fields)).unwrap();
    assert_eq!(request.update_mask.unwrap().paths, ["display_name", "labels"]);
}

#[test]
fn query_parameters_become_the_type_of_their_field() {
    let pairs =
        |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let mut fields = Map::new();
    let list = shape("ListSessionsRequest");
    list.take_query(
        &mut fields,
        pairs(&[("states", "SESSION_STATE_ACTIVE"), ("states", "4"), ("page_size", "7")]),
    )
    .unwrap();
    let request: crate::v1::ListSessionsRequest = serde_json::from_value(Value::Object(fields)).unwrap();
    assert_eq!((request.states, request.page_size), (vec![2, 4], 7));
    for bad in [("states", "GONE"), ("page_size", "x"), ("page_size", "9999999999"), ("colour", "red")] {
        let error = list.take_query(&mut Map::new(), pairs(&[bad])).unwrap_err();
        assert!(error.message().starts_with(bad.0), "{error}");
    }
    let twice = list.take_query(&mut Map::new(), pairs(&[("filter", "a"), ("filter", "b")]));
    assert!(twice.is_err());
}
