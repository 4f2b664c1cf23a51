//! Uploads that are not whole, of every kind and however they end: what was there stays. Each is broken off at many moments, since what is
//! looked for is a race between the end of the call and the thread that stores its bytes.

use crate::client::Client;
use crate::harness::{Server, empty_session};
use afs_proto::v1::write_file_request::Part;
use afs_proto::v1::{WriteFileEnd, WriteFileHeader};
use bytes::Bytes;
use h2::Reason;
use h2::client::ResponseFuture;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const OLD: &[u8] = b"what was there\n";
/// Of two, which are a whole upload.
const HALF: usize = 10_000;
const ROUNDS: u64 = 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Put,
    PutWithLength,
    Grpc,
}

const KINDS: [Kind; 3] = [Kind::Put, Kind::PutWithLength, Kind::Grpc];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// As a client that is interrupted does.
    Cancel,
    /// An HTTP/2 reset of a stream, and none of an upload.
    NoError,
    /// As a client that is killed.
    Gone,
}

struct Bed {
    server: Server,
    clients: [Client; 2],
    id: String,
}

/// A field of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len > 127 {
        out.push(u8::try_from(len & 127).unwrap() | 128);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// A message of gRPC.
fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &len, message].concat()
}

impl Bed {
    async fn new() -> Self {
        let server = Server::start().await;
        let clients = server.both().await;
        let id = empty_session(&clients[0]).await;
        let bed = Self { server, clients, id };
        bed.clients[1].write(&bed.id, "/f", OLD).await.unwrap();
        bed
    }

    fn address(&self) -> SocketAddr {
        self.server.running().addresses()[0]
    }

    fn request(&self, kind: Kind) -> http::Request<()> {
        let base = format!("http://{}", self.address());
        let put = || http::Request::put(format!("{base}/v1/sessions/{}/files/f", self.id));
        let request = match kind {
            Kind::Put => put(),
            Kind::PutWithLength => put().header("content-length", 2 * HALF),
            Kind::Grpc => http::Request::post(format!("{base}/aether.v1.FileSystemService/WriteFile"))
                .header("content-type", "application/grpc")
                .header("te", "trailers"),
        };
        request.body(()).unwrap()
    }

    /// The first half of a body, and the second with the end.
    fn body(&self, kind: Kind) -> [Bytes; 2] {
        let half = vec![b'x'; HALF];
        if kind != Kind::Grpc {
            return [half.clone().into(), half.into()];
        }
        let header = field(1, &[field(1, self.id.as_bytes()), field(2, b"/f")].concat());
        let data = framed(&field(2, &half));
        let end = framed(&field(3, b""));
        [[framed(&header), data.clone()].concat().into(), [data, end].concat().into()]
    }

    /// Begins an upload over a connection of its own.
    async fn begin(
        &self,
        kind: Kind,
    ) -> (JoinHandle<Result<(), h2::Error>>, ResponseFuture, h2::SendStream<Bytes>) {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let (answer, mut body) =
            client.ready().await.unwrap().send_request(self.request(kind), false).unwrap();
        let [first, _] = self.body(kind);
        body.send_data(first, false).unwrap();
        (driver, answer, body)
    }

    async fn break_off(&self, kind: Kind, way: Way, after: Duration) {
        let (driver, _answer, mut body) = self.begin(kind).await;
        tokio::time::sleep(after).await;
        match way {
            Way::Cancel => body.send_reset(Reason::CANCEL),
            Way::NoError => body.send_reset(Reason::NO_ERROR),
            Way::Gone => {}
        }
        if way != Way::Gone {
            // Until it is sent.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        driver.abort();
        let _ = driver.await;
    }

    async fn complete(&self, kind: Kind) {
        let (driver, answer, mut body) = self.begin(kind).await;
        let [_, rest] = self.body(kind);
        body.send_data(rest, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200, "{kind:?}");
        driver.abort();
    }

    /// For longer than an upload that goes on without its sender would take.
    async fn has(&self, want: &[u8], what: &str) {
        for _ in 0..15 {
            for client in &self.clients {
                let found = client.read(&self.id, "/f").await.unwrap();
                assert!(found == want, "{what}: {} bytes, not {}", found.len(), want.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_broken_off_changes_nothing() {
    let bed = Bed::new().await;
    for kind in KINDS {
        for way in [Way::Cancel, Way::NoError, Way::Gone] {
            for round in 0..ROUNDS {
                bed.break_off(kind, way, Duration::from_millis(round)).await;
            }
            bed.has(OLD, &format!("{kind:?} {way:?}")).await;
        }
    }
    // The same requests are good ones when nobody breaks them off.
    for kind in KINDS {
        bed.clients[1].write(&bed.id, "/f", OLD).await.unwrap();
        bed.complete(kind).await;
        bed.has(&[b'x'; 2 * HALF], &format!("{kind:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_http_1_that_goes_changes_nothing() {
    let bed = Bed::new().await;
    for (header, chunk) in [("content-length: 20000", ""), ("transfer-encoding: chunked", "2710\r\n")] {
        for round in 0..ROUNDS {
            let head = format!(
                "PUT /v1/sessions/{}/files/f HTTP/1.1\r\nhost: localhost\r\n{header}\r\n\r\n{chunk}",
                bed.id
            );
            let mut raw = TcpStream::connect(bed.address()).await.unwrap();
            raw.write_all(head.as_bytes()).await.unwrap();
            raw.write_all(&[b'x'; HALF]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(round)).await;
            drop(raw);
        }
        bed.has(OLD, header).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_without_saying_so_changes_nothing() {
    let bed = Bed::new().await;
    let [grpc, _] = &bed.clients;
    let header = || {
        Part::Header(WriteFileHeader {
            session_id: bed.id.clone(),
            path: "/f".into(),
            ..WriteFileHeader::default()
        })
    };
    let data = || Part::Data(Bytes::from_static(b"new"));
    let end = || Part::End(WriteFileEnd {});
    for parts in [
        vec![header()],
        vec![header(), data(), data()],
        vec![header(), end(), data()],
        vec![header(), data(), end(), end()],
    ] {
        let shown = format!("{parts:?}");
        let problem = grpc.write_parts(parts).await.unwrap_err();
        assert_eq!(problem.reason, "INVALID_ARGUMENT", "{shown}: {problem:?}");
        assert_eq!(problem.violations[0].field, "end", "{shown}: {problem:?}");
        assert_eq!(grpc.read(&bed.id, "/f").await.unwrap(), OLD, "{shown}");
    }
    grpc.write_parts(vec![header(), data(), data(), end()]).await.unwrap();
    assert_eq!(grpc.read(&bed.id, "/f").await.unwrap(), b"newnew");
    grpc.write_parts(vec![header(), end()]).await.unwrap();
    assert_eq!(grpc.read(&bed.id, "/f").await.unwrap(), b"");
}
