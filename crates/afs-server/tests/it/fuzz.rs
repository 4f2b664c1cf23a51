//! Bytes that no client of ours would send, to every method that reflection shows: broken protobuf, broken frames, messages of the
//! right shape with values from the edges. Whatever it is: an answer, or a typed refusal that is the caller's fault, never ours; and
//! the server goes on.
//!
//! `AFS_FUZZ_CALLS` says how many calls (default 4,000), `AFS_FUZZ_SEED` where the dice start. A failure names both.

use crate::client::{Client, Surface};
use crate::harness::{Server, empty_session, git_session};
use afs_proto::wire::{METHODS, Wire};
use afs_types::{Kind, Reason};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A small generator (splitmix64): the same seed, the same calls.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most + 1);
        (0..len).map(|_| self.roll() as u8).collect()
    }
    fn pick<'l, T>(&mut self, list: &'l [T]) -> &'l T {
        &list[self.below(list.len())]
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const EDGES: [u64; 12] =
    [0, 1, 2, 3, 0o644, 0o7777, 100_000, u32::MAX as u64, i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];

/// Makes messages of the right shape; `texts` are values that reach past the first check.
struct Maker<'a> {
    dice: &'a mut Dice,
    texts: &'a [String],
}

impl Maker<'_> {
    fn message(&mut self, wire: &Wire, depth: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for field in wire.fields {
            let times = match self.dice.below(10) {
                0..4 => 0,
                9 if field.many => self.dice.below(300),
                _ => 1,
            };
            for _ in 0..times {
                self.field(&mut out, field.number, field.message, depth);
            }
        }
        if self.dice.below(20) == 0 {
            // A field that is not there, or a number that is none.
            let number = self.dice.roll() as u32 >> 3;
            self.field(&mut out, number, None, depth);
        }
        out
    }

    fn field(&mut self, out: &mut Vec<u8>, number: u32, message: Option<&'static Wire>, depth: usize) {
        let key = u64::from(number) << 3;
        match (message, self.dice.below(12)) {
            (Some(child), 0..11) if depth < 6 => {
                let inner = self.message(child, depth + 1);
                varint(out, key | 2);
                varint(out, inner.len() as u64);
                out.extend(inner);
            }
            (_, 0..6) => {
                let text = match self.dice.below(6) {
                    0 => self.dice.bytes(40),
                    1 => vec![b'a'; self.dice.below(6_000)],
                    _ => self.dice.pick(self.texts).clone().into_bytes(),
                };
                varint(out, key | 2);
                varint(out, text.len() as u64);
                out.extend(text);
            }
            (_, 6..10) => {
                varint(out, key);
                varint(out, *self.dice.pick(&EDGES));
            }
            (_, 10) => {
                varint(out, key | 1);
                out.extend(self.dice.roll().to_le_bytes());
            }
            _ => {
                varint(out, key | (3 + self.dice.roll() % 5));
                out.extend((self.dice.roll() as u32).to_le_bytes());
            }
        }
    }
}

/// What one call sends after the headers.
fn body(dice: &mut Dice, wire: &'static Wire, texts: &[String]) -> Vec<u8> {
    let shaped = |dice: &mut Dice| Maker { dice, texts }.message(wire, 0);
    let message = match dice.below(10) {
        0 => dice.bytes(200),
        1 => [0x0a, 0x80].repeat(dice.below(5_000)),
        2 => {
            // A message in a message in a message.
            (0..dice.below(2_000)).fold(Vec::new(), |inner, _| {
                let mut outer = vec![0x12];
                varint(&mut outer, inner.len() as u64);
                outer.extend(inner);
                outer
            })
        }
        3 => {
            let whole = shaped(dice);
            whole[..dice.below(whole.len() + 1)].to_vec()
        }
        4 => {
            let mut whole = shaped(dice);
            for _ in 0..dice.below(8) {
                let at = dice.below(whole.len());
                if let Some(byte) = whole.get_mut(at) {
                    *byte = dice.roll() as u8;
                }
            }
            whole
        }
        _ => shaped(dice),
    };
    let mut frame = vec![u8::from(dice.below(30) == 0)];
    let length = match dice.below(30) {
        0 => dice.roll() as u32,
        1 => message.len() as u32 + 1,
        _ => message.len() as u32,
    };
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    if dice.below(30) == 0 {
        frame.extend(frame.clone());
    }
    frame
}

/// The outcome of a call: none if the stream was still open when it was long enough.
pub(crate) async fn call(channel: &Channel, path: &str, body: Vec<u8>) -> Option<Status> {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(Bytes::from(body))))
        .unwrap();
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let response = tokio::time::timeout(Duration::from_secs(30), channel.call(request)).await;
    let response =
        response.unwrap_or_else(|_| panic!("{path}: no answer")).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(response.status(), 200, "{path}");
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Some(status);
    }
    let (mut body, mut taken) = (response.into_body(), 0);
    while taken < 1 << 20 {
        let frame = match tokio::time::timeout(Duration::from_millis(300), body.frame()).await {
            Err(_) => return None,
            Ok(frame) => frame?.unwrap_or_else(|e| panic!("{path}: {e}")),
        };
        if let Some(trailers) = frame.trailers_ref() {
            return Status::from_header_map(trailers);
        }
        taken += frame.data_ref().map_or(0, Bytes::len);
    }
    None
}

/// A refusal says why, where and what next, and is not a fault of ours.
fn check(path: &str, status: &Status, seed: u64) {
    if status.code() == Code::Ok {
        return;
    }
    assert!(!status.details().is_empty(), "seed {seed}: {path}: no reason: {status:?}");
    let error = afs_proto::from_status(status);
    assert!(error.reason.kind() != Kind::Internal, "seed {seed}: {path}: {error:?}");
    assert!(!error.message().is_empty() && !error.next_step().is_empty(), "seed {seed}: {path}: {error:?}");
    if [Reason::InvalidArgument, Reason::MessageTooLarge].contains(&error.reason) {
        assert!(
            error.metadata().iter().any(|(k, _)| *k == "field"),
            "seed {seed}: {path}: no field: {error:?}"
        );
    }
}

/// Full names of all methods of our package, as reflection shows them.
async fn reflected(channel: &Channel) -> BTreeSet<String> {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = async |what: MessageRequest| {
        let request = ServerReflectionRequest { message_request: Some(what), ..Default::default() };
        let mut client = ServerReflectionClient::new(channel.clone());
        let mut answers =
            client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list of services")
    };
    let mut methods = BTreeSet::new();
    for service in list.service.into_iter().filter(|s| s.name.starts_with("aether.v1.")) {
        let file = ask(MessageRequest::FileContainingSymbol(service.name.clone())).await;
        let MessageResponse::FileDescriptorResponse(files) = file else {
            panic!("no file of {}", service.name)
        };
        for file in files.file_descriptor_proto {
            methods.extend(methods_in(&file, &service.name));
        }
    }
    methods
}

/// The fields of a message that have a length, by number.
fn parts(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let read = |bytes: &mut &[u8]| {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = read(&mut bytes);
        let len = read(&mut bytes) as usize;
        if key & 7 == 2 {
            found.push((key >> 3, &bytes[..len]));
            bytes = &bytes[len..];
        }
    }
    found
}

/// `FileDescriptorProto`: services are field 6; of a service, its name 1 and methods 2; of a method, its name 1.
fn methods_in(file: &[u8], service: &str) -> Vec<String> {
    let name = |message: &[u8]| {
        let name = parts(message).into_iter().find(|(number, _)| *number == 1).unwrap().1;
        String::from_utf8(name.to_vec()).unwrap()
    };
    let services = parts(file).into_iter().filter(|(number, _)| *number == 6).map(|(_, bytes)| bytes);
    let ours = services.filter(|bytes| service.ends_with(&format!(".{}", name(bytes))));
    ours.flat_map(|bytes| parts(bytes).into_iter().filter(|(number, _)| *number == 2))
        .map(|(_, method)| format!("/{service}/{}", name(method)))
        .collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_the_server_goes_on() {
    let (calls, seed) = (number("AFS_FUZZ_CALLS", 4_000), number("AFS_FUZZ_SEED", 20_261_127));
    let server = Server::start().await;
    let repo = server.repository();
    let [client, _] = server.both().await;
    assert_eq!(client.surface, Surface::Grpc);
    let shown = reflected(&client.channel).await;
    assert_eq!(
        shown,
        METHODS.iter().map(|(path, _)| (*path).to_owned()).collect(),
        "reflection and table agree"
    );

    let kept = empty_session(&client).await;
    client.write(&kept, "/kept", b"kept\n").await.unwrap();
    let mut dice = Dice(seed);
    let mut outcomes = std::collections::BTreeMap::new();
    let mut texts = Vec::new();
    for n in 0..calls {
        if n % 500 == 0 {
            texts = values(&client, &repo).await;
        }
        let (path, wire) = METHODS[(n as usize) % METHODS.len()];
        // What is imported is chosen, lest it be the machine's root directory.
        let of = if path.ends_with("/CreateSource") { &texts[..12] } else { &texts[..] };
        let body = body(&mut dice, wire, of);
        if let Some(status) = call(&client.channel, path, body).await {
            check(path, &status, seed);
            *outcomes.entry(format!("{:?}", status.code())).or_insert(0) += 1;
        }
    }
    println!("seed {seed}: {calls} calls to {} methods: {outcomes:?}", METHODS.len());
    assert!(outcomes["Ok"] > 0 && outcomes["InvalidArgument"] > 0, "{outcomes:?}");
    assert_eq!(client.read(&kept, "/kept").await.unwrap(), b"kept\n");
    let checks = client.ok("Admin.CheckReadiness", json!({})).await;
    assert!(checks["checks"].as_array().unwrap().iter().all(|c| c["status"] != "failed"), "{checks}");
}

/// Ids and paths that exist, and others.
async fn values(client: &Client, repo: &std::path::Path) -> Vec<String> {
    let own = git_session(client, repo).await;
    let session = own["session_id"].as_str().unwrap();
    client.write(session, "/f", b"text\n").await.unwrap();
    let point = client.ok("Persistence.CreateCheckpoint", json!({"session_id": session})).await;
    let commit = client.ok("Persistence.CreateCommit", json!({"session_id": session, "message": "m"})).await;
    let attach = afs_proto::v1::AttachRequest { session_id: session.to_owned(), ..Default::default() };
    let mut bridge = afs_proto::v1::bridge_service_client::BridgeServiceClient::new(client.channel.clone());
    let mount = bridge.attach(attach).await.unwrap().into_inner().mount_id;
    let plain = [
        "",
        "x",
        "*",
        "%ff",
        "a\0b",
        "..",
        "label.a=b",
        "$(id)",
        "--upload-pack=id",
        "ext::sh -c id",
        "\u{202e}",
        "src_x",
    ];
    let more = ["/f", "/src/main.rs", "/g", "/", "live", "base", "text", "labels", "(a+)+$", "**/*"];
    let ids = [
        session,
        point["checkpoint_id"].as_str().unwrap(),
        commit["commit_id"].as_str().unwrap(),
        mount.as_str(),
    ];
    let often = std::iter::repeat_n(ids, 4).flatten();
    plain.into_iter().chain(more).chain(often).map(str::to_owned).collect()
}
