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
        ("ForkSessionRequest", json!({"count": "+1"}), "count"),
        ("ForkSessionRequest", json!({"count": "+0"}), "count"),
        ("ForkSessionRequest", json!({"count": "007"}), "count"),
        ("ForkSessionRequest", json!({"count": " 1"}), "count"),
        ("ForkSessionRequest", json!({"count": "1.5"}), "count"),
        ("ForkSessionRequest", json!({"count": "-1"}), "count"),
        ("SetAttributesRequest", json!({"size": "1e20"}), "size"),
        ("SetAttributesRequest", json!({"size": 9.007_199_254_740_994e15}), "size"),
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
fn integers_in_quotes_may_be_written_as_any_number() {
    for (text, want) in [
        ("0", 0),
        ("-0", 0),
        ("493.0", 493),
        ("1e2", 100),
        ("9007199254740993", (1 << 53) + 1),
        ("9007199254740993.0", (1 << 53) + 1),
        ("18446744073709551615", u64::MAX),
    ] {
        let Value::Object(mut fields) = json!({"session_id": "sess_a", "size": text}) else { panic!() };
        shape("SetAttributesRequest").check(&mut fields).unwrap();
        let request: crate::v1::SetAttributesRequest = serde_json::from_value(Value::Object(fields)).unwrap();
        assert_eq!(request.size, Some(want), "{text}");
    }
}

#[test]
fn of_a_oneof_one_member_may_be_given() {
    for (message, body, field, members) in [
        (
            "CreateSourceRequest",
            json!({"spec": {"git": {"url": "/x"}, "local": {"path": "/y"}}}),
            "spec.local",
            "only one of git, local, empty: `git` is given",
        ),
        (
            "SubmitChangesRequest",
            json!({"changes": [{"mkdir": {"path": "/d"}}, {"remove": {}, "precondition": {}, "chmod": {}}]}),
            "changes[1].remove",
            "only one of write, edit, remove, move, mkdir, symlink, chmod, copy: `chmod` is given",
        ),
    ] {
        let Value::Object(mut fields) = body else { panic!() };
        let error = shape(message).check(&mut fields).unwrap_err();
        assert!(error.message().starts_with(&format!("{field}: want {members}")), "{error}");
        assert_eq!(error.metadata(), [("field", field.to_owned())]);
    }
    // One of them, and null, which is as good as absent; optional fields are no oneof.
    for (message, body) in [
        ("CreateSourceRequest", json!({"spec": {"git": {"url": "/x"}, "local": null}})),
        ("SetAttributesRequest", json!({"mode": 1, "uid": 2, "gid": 3, "size": 4})),
    ] {
        let Value::Object(mut fields) = body else { panic!() };
        shape(message).check(&mut fields).unwrap();
    }
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
    let second = pairs(&[("states", "SESSION_STATE_ACTIVE"), ("page_size", "1"), ("states", "GONE")]);
    let error = list.take_query(&mut Map::new(), second).unwrap_err();
    assert!(error.message().starts_with("states[1]: want one of "), "{error}");
    let of_bool = |text: &str| {
        let (mut fields, pair) = (Map::new(), ("force".to_owned(), text.to_owned()));
        shape("DeleteSourceRequest").take_query(&mut fields, vec![pair]).map(|()| fields["force"].clone())
    };
    assert_eq!((of_bool("true").unwrap(), of_bool("false").unwrap()), (json!(true), json!(false)));
    for bad in ["", "1", "0", "yes", "True", " true"] {
        assert_eq!(of_bool(bad).unwrap_err().message(), "force: want true or false", "{bad:?}");
    }
    let twice = list.take_query(&mut Map::new(), pairs(&[("filter", "a"), ("filter", "b")]));
    assert!(twice.is_err());
}
