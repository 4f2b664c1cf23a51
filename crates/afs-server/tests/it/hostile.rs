//! Every method with input that nobody sane would send. Whatever it is: a typed error that names the field, never a fault of ours,
//! and the server goes on.

use crate::client::{Client, STREAMS, Surface, method_of, request_of, route_of};
use crate::harness::{Server, empty_session, git_session};
use afs_proto::rest::{Kind, Many, ROUTES, Shape};
use afs_proto::{Problem, v1};
use afs_types::Reason;
use serde_json::{Map, Value, json};

/// Texts that break things.
fn texts() -> Vec<String> {
    let fixed = [
        "",
        " ",
        "x",
        ".",
        "..",
        "../..",
        "/",
        "//",
        "/a/../b",
        "\0",
        "a\0b",
        "%",
        "%00",
        "%zz",
        "\u{202e}",
        "💥",
        "-1",
        "sess_",
        "sess_UPPER",
        "src_x",
        "ver_x",
        "ckpt_x",
        "cmt_x",
        "base",
        "live",
        "(",
        "[",
        "**",
        "{",
        "\\",
        "$(id)",
        "--upload-pack=id",
        "ext::sh -c id",
        "file:///etc",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
    ];
    let long = [300, 5_000, 30_000].map(|n| "a".repeat(n));
    let deep = "/a".repeat(1_500);
    fixed.into_iter().map(str::to_owned).chain(long).chain([deep]).collect()
}

/// Values of a field's type that are at its edges.
fn values(kind: &Kind, depth: usize) -> Vec<Value> {
    match kind {
        Kind::Bool => vec![json!(true)],
        Kind::String => texts().into_iter().map(Value::String).collect(),
        Kind::Bytes => vec![json!(""), json!("AA=="), json!("A".repeat(30_000))],
        Kind::Int32 => vec![json!(-1), json!(i32::MIN), json!(i32::MAX)],
        Kind::Uint32 => vec![json!(u32::MAX), json!(100_000), json!(0o7777)],
        Kind::Int64 => vec![json!(i64::MIN.to_string()), json!(i64::MAX.to_string())],
        Kind::Uint64 => vec![json!(u64::MAX.to_string()), json!((u64::MAX / 2 + 1).to_string()), json!("1")],
        Kind::Double => vec![json!(1e300)],
        Kind::Timestamp => vec![json!("0001-01-01T00:00:00Z"), json!("9999-12-31T23:59:59.999999999Z")],
        Kind::Duration => vec![json!("-1s"), json!("315576000000s"), json!("0s")],
        Kind::FieldMask => vec![json!(""), json!("nothing"), json!("labels,labels")],
        Kind::Enum(values) => values.iter().map(|(name, _)| json!(name)).collect(),
        Kind::Message(_) if depth > 3 => vec![json!({})],
        Kind::Message(shape) => {
            let one = |name: &str, value| json!({(name): value});
            let mut all = vec![json!({})];
            all.extend(
                shape.fields.iter().flat_map(|f| {
                    field_values(f.many, &f.kind, depth + 1).into_iter().map(|v| one(f.name, v))
                }),
            );
            all
        }
    }
}

fn field_values(many: Many, kind: &Kind, depth: usize) -> Vec<Value> {
    let values = values(kind, depth);
    match many {
        Many::One => values,
        Many::List => {
            let mut all: Vec<Value> = values.iter().map(|v| json!([v])).collect();
            all.push(json!(vec![values[0].clone(); 12_000]));
            all
        }
        Many::Map => {
            let mut all: Vec<Value> = texts().into_iter().take(40).map(|t| json!({(t): values[0]})).collect();
            all.push(Value::Object((0..100).map(|n| (n.to_string(), values[0].clone())).collect()));
            all
        }
    }
}

/// What makes a request reach past the first check.
fn sensible(shape: &'static Shape, session: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    for field in shape.fields {
        let value = match field.name {
            "session_id" => json!(session),
            "path" | "source" => json!("/f"),
            "destination" => json!("/g"),
            "target" => json!("f"),
            "pattern" => json!("*"),
            "message" => json!("m"),
            "update_mask" => json!("labels"),
            _ => continue,
        };
        if matches!(field.kind, Kind::String | Kind::FieldMask) && field.many == Many::One {
            fields.insert(field.name.to_owned(), value);
        }
    }
    fields
}

/// A refusal must be of a kind that tells the caller what to do.
fn check(problem: &Problem, what: &str) {
    let reason = Reason::from_wire(&problem.reason).unwrap_or_else(|| panic!("{what}: {problem:?}"));
    assert!(problem.status < 500 || [501, 507].contains(&problem.status), "{what}: {problem:?}");
    assert!(!problem.detail.is_empty() && !problem.next_steps[0].is_empty(), "{what}: {problem:?}");
    assert!(problem.detail.len() < 2_000, "{what}: a long detail");
    if reason == Reason::InvalidArgument {
        assert!(problem.metadata.contains_key("field"), "{what}: no field: {problem:?}");
    }
}

async fn send(client: &Client, method: &str, body: Value) -> Result<(), Box<Problem>> {
    if STREAMS.contains(&method) {
        return client.all(method, body).await.map(drop);
    }
    client.call(method, body).await.map(drop)
}

/// Not asked of a real server: it would import the machine's root directory, or delete what the test stands on.
fn harmless(method: &str, field: &str, value: &Value) -> bool {
    let text = value.to_string();
    match method {
        "Source.CreateSource" => {
            !(field == "spec"
                && (text.contains("\"/\"") || text.contains("\"//\"") || text.contains("file:///")))
        }
        "Session.DeleteSession" | "Session.ArchiveSession" | "Source.DeleteSource" => {
            field == "session_id" || field == "source_id"
        }
        _ => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_every_method_at_its_edges() {
    let server = Server::start().await;
    let repo = server.repository();
    let (mut calls, mut refused) = (0, 0);
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let session = session["session_id"].as_str().unwrap();
        client.write(session, "/f", b"text\n").await.unwrap();
        for route in ROUTES {
            let method = method_of(route);
            let base = sensible(route.shape, session);
            for field in route.shape.fields {
                let in_query = !route.body && matches!(field.kind, Kind::Message(_));
                for value in field_values(field.many, &field.kind, 0) {
                    let size = value.to_string().len();
                    if in_query || !harmless(&method, field.name, &value) || (!route.body && size > 30_000) {
                        continue;
                    }
                    let mut body = base.clone();
                    body.insert(field.name.to_owned(), value.clone());
                    let what: String = format!("{:?} {method} {}={value}", client.surface, field.name)
                        .chars()
                        .take(300)
                        .collect();
                    calls += 1;
                    if let Err(problem) = send(&client, &method, Value::Object(body)).await {
                        refused += 1;
                        check(&problem, &what);
                    }
                }
            }
        }
    }
    println!("{calls} calls, {refused} refused");
    assert!(calls > 2_000 && refused > 1_000, "{calls} calls, {refused} refused");
    for client in server.both().await {
        client.ok("Admin.CheckReadiness", json!({})).await;
        let id = empty_session(&client).await;
        client.write(&id, "/a", b"alive").await.unwrap();
    }
}

/// JSON values of a type that a field does not have.
fn wrong_types(many: Many, kind: &Kind) -> Vec<Value> {
    let mut all = match kind {
        Kind::Bool => vec![json!("yes"), json!(1), json!({})],
        Kind::String => vec![json!(1), json!(true), json!({})],
        Kind::Bytes => vec![json!(1), json!("€"), json!("A")],
        Kind::Int32 | Kind::Uint32 | Kind::Int64 | Kind::Uint64 => {
            vec![json!("x"), json!(1.5), json!(true), json!({}), json!("99999999999999999999999"), json!("")]
        }
        Kind::Double => vec![json!("x"), json!({})],
        Kind::Enum(_) => vec![json!("NOPE"), json!(9999), json!(true)],
        Kind::Timestamp | Kind::Duration => vec![json!("x"), json!(1), json!({})],
        Kind::FieldMask => vec![json!(1), json!({})],
        Kind::Message(_) => vec![json!(1), json!("x"), json!({"no_such_field": 1})],
    };
    match many {
        Many::One => all.push(json!([])),
        Many::List => {
            all = all.into_iter().map(|v| json!([v])).collect();
            all.push(json!("x"));
        }
        Many::Map => {
            all = all.into_iter().map(|v| json!({"k": v})).collect();
            all.push(json!([]));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_and_unknown_fields_are_named() {
    let server = Server::start().await;
    let [_, client] = server.both().await;
    let session = empty_session(&client).await;
    for route in ROUTES.iter().filter(|r| r.body) {
        let base = sensible(route.shape, &session);
        for field in route.shape.fields.iter().filter(|f| !route.path.contains(&format!("{{{}}}", f.name))) {
            for value in wrong_types(field.many, &field.kind) {
                let mut body = base.clone();
                body.insert(field.name.to_owned(), value.clone());
                refuse(&client, route.method, Value::Object(body), field.name).await;
            }
        }
        let mut body = base.clone();
        body.insert("no_such_field".into(), json!(1));
        refuse(&client, route.method, Value::Object(body), "no_such_field").await;
    }
    for route in ROUTES.iter().filter(|r| !r.body) {
        let (uri, _) = request_of(route, Value::Object(sensible(route.shape, &session)));
        let separator = if uri.contains('?') { '&' } else { '?' };
        let answer = client.send(route.verb, &format!("{uri}{separator}no_such_field=1"), &[], "").await;
        let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, problem.violations[0].field.as_str()), (400, "no_such_field"), "{uri}");
    }
}

async fn refuse(client: &Client, method: &str, body: Value, field: &str) {
    let short = method.trim_start_matches("aether.v1.").replacen("Service.", ".", 1);
    let route = route_of(&short);
    let (uri, bytes) = request_of(route, body.clone());
    let answer = client.send(route.verb, &uri, &[("accept", "application/json")], bytes).await;
    let problem: Problem =
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{method} {body}: {:?}", answer.body));
    assert_eq!(answer.status, 400, "{method} {body}: {problem:?}");
    let named = &problem.violations[0].field;
    assert!(named.starts_with(field) || named.contains("no_such_field"), "{method} {body}: {problem:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_with_bad_manners() {
    let server = Server::start().await;
    let [client, _] = server.both().await;
    assert_eq!(client.surface, Surface::Grpc);
    let session = empty_session(&client).await;
    let mut bridge = v1::bridge_service_client::BridgeServiceClient::new(client.channel.clone());
    let attach = v1::AttachRequest { session_id: session, ..Default::default() };
    let mount_id = bridge.attach(attach).await.unwrap().into_inner().mount_id;
    let names: Vec<bytes::Bytes> = ["", ".", "..", "a/b", "\0", &"n".repeat(256), &"n".repeat(100_000)]
        .iter()
        .map(|n| (*n).to_owned().into())
        .collect();
    let inodes = [0, 1, 2, u64::from(u32::MAX), u64::MAX];
    let edges = [0, 1, u64::MAX / 2, u64::MAX];
    let mut ops = vec![None];
    for name in &names {
        for parent in inodes {
            let name = name.clone();
            let mode = 0o170_777;
            ops.push(Some(v1::op::Op::Create(v1::CreateOp {
                parent,
                name: name.clone(),
                mode,
                ..Default::default()
            })));
            ops.push(Some(v1::op::Op::Mknod(v1::MakeNodeOp {
                parent,
                name: name.clone(),
                mode,
                rdev: u64::MAX,
                ..Default::default()
            })));
            ops.push(Some(v1::op::Op::Symlink(v1::MakeSymlinkOp {
                parent,
                name: name.clone(),
                target: name.clone(),
                ..Default::default()
            })));
            ops.push(Some(v1::op::Op::Unlink(v1::UnlinkOp {
                parent,
                name: name.clone(),
                directory: parent % 2 == 0,
            })));
            let to = v1::RenameOp {
                from_parent: parent,
                from_name: name.clone(),
                to_parent: 1,
                to_name: name.clone(),
                flags: 7,
            };
            ops.push(Some(v1::op::Op::Rename(to)));
            ops.push(Some(v1::op::Op::Xattr(v1::XattrOp {
                inode: parent,
                name: name.clone(),
                value: name,
                flags: 9,
                remove: false,
            })));
        }
    }
    for inode in inodes {
        for offset in edges {
            for length in edges {
                let data = "x".repeat(length.min(2 << 20) as usize).into();
                ops.push(Some(v1::op::Op::Write(v1::WriteDataOp {
                    inode,
                    offset,
                    data,
                    ..Default::default()
                })));
                ops.push(Some(v1::op::Op::Fallocate(v1::FallocateOp {
                    inode,
                    offset,
                    length,
                    mode: length as u32,
                })));
                let copy = v1::CopyRangeOp {
                    from_inode: inode,
                    from_offset: offset,
                    to_inode: inode,
                    to_offset: length,
                    length,
                };
                ops.push(Some(v1::op::Op::CopyRange(copy)));
                ops.push(Some(v1::op::Op::Setattr(v1::SetAttrOp {
                    inode,
                    size: Some(length),
                    mode: Some(u32::MAX),
                    mtime_ns: Some(i64::MIN),
                    ..Default::default()
                })));
                ops.push(Some(v1::op::Op::Open(v1::OpenOp { inode, truncate: true, kill_priv: true })));
                ops.push(Some(v1::op::Op::Release(v1::ReleaseOp { inode })));
            }
        }
    }
    for (n, op) in ops.into_iter().enumerate() {
        let what = format!("{op:?}").chars().take(200).collect::<String>();
        let op = v1::Op { op_id: n as u64, op };
        let request = v1::ApplyOpsRequest { mount_id: mount_id.clone(), ops: vec![op], ..Default::default() };
        let result = bridge.apply_ops(request).await.unwrap().into_inner().results.remove(0);
        assert!(result.errno != 5, "{what}: {result:?}");
        assert!(result.errno == 0 || Reason::from_wire(&result.reason).is_some(), "{what}: {result:?}");
    }
    for bad in ["", "mnt_none", "sess_x"] {
        let request = v1::ApplyOpsRequest { mount_id: bad.into(), ..Default::default() };
        check(&Problem::from(&afs_proto::from_status(&bridge.apply_ops(request).await.unwrap_err())), bad);
    }
    let too_many = v1::ApplyOpsRequest {
        mount_id: mount_id.clone(),
        ops: vec![v1::Op::default(); 2_000],
        ..Default::default()
    };
    let status = bridge.apply_ops(too_many).await.unwrap_err();
    assert_eq!(afs_proto::from_status(&status).metadata()[0], ("field", "ops".to_owned()));
    let read = v1::ReadRequest { mount_id, inode: 1, offset: 0, length: u32::MAX };
    assert_eq!(afs_proto::from_status(&bridge.read(read).await.unwrap_err()).metadata()[0].1, "length");
}
