//! The data plane of remote mounts.

use crate::client::{Client, Surface};
use crate::harness::{Server, empty_session};
use afs_proto::v1::bridge_service_client::BridgeServiceClient;
use afs_proto::v1::op::Op as Kind;
use afs_proto::v1::{self, Op, OpResult};
use afs_proto::{from_status, v1::SyncRequest};
use afs_types::{Error, Reason};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// One mount and the session under it.
struct Mount {
    bridge: BridgeServiceClient<Channel>,
    id: String,
    next_op: u64,
}

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EROFS: i32 = 30;

impl Mount {
    async fn attach(client: &Client, session: &str, read_only: bool) -> Self {
        let mut bridge = BridgeServiceClient::new(client.channel.clone());
        let request = v1::AttachRequest { session_id: session.into(), read_only, ..Default::default() };
        let attached = bridge.attach(request).await.unwrap().into_inner();
        assert_eq!(attached.root_inode, 1);
        Self { bridge, id: attached.mount_id, next_op: 1 }
    }

    async fn apply(&mut self, ops: Vec<Kind>) -> Vec<OpResult> {
        let first = self.next_op;
        self.next_op += ops.len() as u64;
        let ops = (first..).zip(ops).map(|(op_id, op)| Op { op_id, op: Some(op) }).collect();
        self.send(ops, false).await
    }

    async fn send(&mut self, ops: Vec<Op>, durable: bool) -> Vec<OpResult> {
        self.send_again(ops, durable, None).await
    }

    async fn send_again(
        &mut self,
        ops: Vec<Op>,
        durable: bool,
        sent_before: Option<v1::SentBefore>,
    ) -> Vec<OpResult> {
        let mount_id = self.id.clone();
        let request = v1::ApplyOpsRequest { mount_id, ops, durable, answered_below: 0, sent_before };
        self.bridge.apply_ops(request).await.unwrap().into_inner().results
    }

    async fn one(&mut self, op: Kind) -> OpResult {
        self.apply(vec![op]).await.remove(0)
    }

    async fn create(&mut self, name: &str) -> v1::Attributes {
        let made = self.one(Kind::Create(create(name))).await;
        assert_eq!(made.errno, 0, "{made:?}");
        made.attributes.unwrap()
    }

    async fn read(&mut self, inode: u64, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        let request = v1::ReadRequest { mount_id: self.id.clone(), inode, offset, length };
        let answer = self.bridge.read(request).await.map_err(|s| from_status(&s))?;
        Ok(answer.into_inner().data.to_vec())
    }

    async fn lookup(&mut self, name: &str) -> Option<v1::Attributes> {
        let request =
            v1::LookupRequest { mount_id: self.id.clone(), parent: 1, name: name.to_owned().into() };
        let answer = self.bridge.lookup(request).await.unwrap().into_inner();
        assert_eq!(answer.negative, answer.attributes.is_none());
        answer.attributes
    }
}

fn create(name: &str) -> v1::CreateOp {
    v1::CreateOp {
        parent: 1,
        name: name.to_owned().into(),
        mode: 0o644,
        uid: 7,
        gid: 8,
        exclusive: true,
        ..Default::default()
    }
}

fn write(inode: u64, offset: u64, data: &str) -> Kind {
    Kind::Write(v1::WriteDataOp { inode, offset, data: data.to_owned().into(), ..Default::default() })
}

async fn setup() -> (Server, Client, String) {
    let server = Server::start().await;
    let [grpc, _] = server.both().await;
    let id = empty_session(&grpc).await;
    (server, grpc, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation() {
    let (_server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let file = m.create("f").await;
    assert_eq!((file.uid, file.gid, file.mode), (7, 8, 0o100_644));
    let wrote = m.one(write(file.inode, 0, "hello")).await;
    assert_eq!((wrote.count, wrote.attributes.unwrap().size), (5, 5));
    let append =
        v1::WriteDataOp { inode: file.inode, data: " world".into(), append: true, ..Default::default() };
    let appended = m.one(Kind::Write(append)).await;
    assert_eq!(appended.offset, 5);
    assert_eq!(appended.version_before, wrote.attributes.unwrap().version);
    assert_eq!(m.read(file.inode, 6, 100).await.unwrap(), b"world");

    let name = |n: &str| bytes::Bytes::from(n.to_owned());
    let (parent, uid, gid) = (1, 0, 0);
    let results = m
        .apply(vec![
            Kind::Mkdir(v1::MakeDirectoryOp { parent, name: name("d"), mode: 0o755, uid, gid }),
            Kind::Symlink(v1::MakeSymlinkOp { parent, name: name("l"), target: name("f"), uid, gid }),
            Kind::Mknod(v1::MakeNodeOp { parent, name: name("p"), mode: 0o010_644, uid, gid, rdev: 0 }),
            Kind::Link(v1::LinkOp { inode: file.inode, parent, name: name("h") }),
            Kind::Setattr(v1::SetAttrOp { inode: file.inode, mode: Some(0o4755), ..Default::default() }),
            Kind::Setattr(v1::SetAttrOp {
                inode: file.inode,
                size: Some(3),
                kill_priv: true,
                mtime_now: true,
                ..Default::default()
            }),
            Kind::Xattr(v1::XattrOp {
                inode: file.inode,
                name: name("user.k"),
                value: name("v"),
                remove: false,
                flags: 1,
            }),
            Kind::Fallocate(v1::FallocateOp { inode: file.inode, offset: 0, length: 10, mode: 0 }),
            Kind::CopyRange(v1::CopyRangeOp {
                from_inode: file.inode,
                from_offset: 0,
                to_inode: file.inode,
                to_offset: 10,
                length: 3,
            }),
            Kind::Rename(v1::RenameOp {
                from_parent: 1,
                from_name: name("h"),
                to_parent: 1,
                to_name: name("h2"),
                flags: 1,
            }),
            Kind::Unlink(v1::UnlinkOp { parent, name: name("h2"), directory: false }),
            Kind::Unlink(v1::UnlinkOp { parent, name: name("d"), directory: true }),
        ])
        .await;
    assert!(results.iter().all(|r| r.errno == 0), "{results:?}");
    assert_eq!(results[5].attributes.unwrap().mode, 0o100_755, "privileges go");
    assert_eq!((results[7].attributes.unwrap().size, results[8].count), (10, 3));
    assert_eq!(m.read(file.inode, 0, 100).await.unwrap(), b"hel\0\0\0\0\0\0\0hel");

    let mount_id = m.id.clone();
    let link = m.lookup("l").await.unwrap().inode;
    let target =
        m.bridge.read_link(v1::ReadLinkRequest { mount_id: mount_id.clone(), inode: link }).await.unwrap();
    assert_eq!(&target.into_inner().target[..], b"f");
    let xattr = v1::GetXattrRequest { mount_id: mount_id.clone(), inode: file.inode, name: name("user.k") };
    assert_eq!(&m.bridge.get_xattr(xattr).await.unwrap().into_inner().value[..], b"v");
    let names = v1::ListXattrsRequest { mount_id: mount_id.clone(), inode: file.inode };
    assert_eq!(m.bridge.list_xattrs(names).await.unwrap().into_inner().names, ["user.k"]);
    let statfs =
        m.bridge.stat_file_system(v1::StatFileSystemRequest { mount_id: mount_id.clone() }).await.unwrap();
    assert!(statfs.into_inner().total_bytes > 0);
    let seek = v1::SeekRequest { mount_id: mount_id.clone(), inode: file.inode, offset: 0, whence: 2 };
    assert_eq!(m.bridge.seek(seek.clone()).await.unwrap().into_inner().offset, 3);
    let none = m.bridge.seek(v1::SeekRequest { offset: 1000, ..seek }).await.unwrap_err();
    assert_eq!(from_status(&none).reason, Reason::NoData);
    assert!(m.lookup("none").await.is_none());
    let gone = m.one(Kind::Unlink(v1::UnlinkOp { parent, name: name("none"), directory: false })).await;
    assert_eq!((gone.errno, gone.reason.as_str()), (ENOENT, "NOT_FOUND"));
    m.bridge.detach(v1::DetachRequest { mount_id: mount_id.clone() }).await.unwrap();
    let after = m.read(file.inode, 0, 1).await.unwrap_err();
    assert_eq!(after.reason, Reason::MountNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_sent_again_is_not_done_again() {
    let (_server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let file = m.create("f").await.inode;
    let append = v1::WriteDataOp { inode: file, data: "x".into(), append: true, ..Default::default() };
    let op = Op { op_id: 100, op: Some(Kind::Write(append)) };
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (op, mut other) = (op.clone(), Mount { bridge: m.bridge.clone(), id: m.id.clone(), next_op: 0 });
        tasks.push(tokio::spawn(async move { other.send(vec![op], true).await.remove(0) }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    assert!(answers.iter().all(|a| *a == answers[0] && a.errno == 0), "{answers:?}");
    assert_eq!(m.read(file, 0, 10).await.unwrap(), b"x");
    let made = Op { op_id: 101, op: Some(Kind::Create(create("once"))) };
    let (first, again) = (m.send(vec![made.clone()], false).await, m.send(vec![made], false).await);
    assert_eq!((first[0].errno, &first), (0, &again));
    let other = m.one(Kind::Create(create("once"))).await;
    assert_eq!(other.errno, EEXIST);
    let forgotten = v1::ApplyOpsRequest {
        mount_id: m.id.clone(),
        ops: vec![op],
        answered_below: 101,
        ..Default::default()
    };
    let answer = m.bridge.apply_ops(forgotten).await.unwrap().into_inner();
    assert_eq!(answer.results[0].reason, "INVALID_ARGUMENT");
}

/// Operations that cannot be done twice, in an order in which all succeed once. There are a file `u` and a directory `g` for them.
fn once_only(file: u64) -> Vec<Op> {
    let name = |n: &str| bytes::Bytes::from(n.to_owned());
    let (parent, uid, gid, inode) = (1, 0, 0, file);
    let mkdir = |n| Kind::Mkdir(v1::MakeDirectoryOp { parent, name: name(n), mode: 0o755, uid, gid });
    let rename = v1::RenameOp {
        from_parent: 1,
        from_name: name("d"),
        to_parent: 1,
        to_name: name("e"),
        ..Default::default()
    };
    let xattr = |remove| {
        let (name, value) = (name("user.k"), if remove { name("") } else { name("v") });
        Kind::Xattr(v1::XattrOp { inode, name, value, remove, flags: u32::from(!remove) })
    };
    let append = v1::WriteDataOp { inode, data: "x".into(), append: true, ..Default::default() };
    let kinds = vec![
        Kind::Create(v1::CreateOp { open: true, ..create("made") }),
        Kind::Write(append),
        mkdir("d"),
        Kind::Rename(rename),
        Kind::Symlink(v1::MakeSymlinkOp { parent, name: name("l"), target: name("f"), uid, gid }),
        Kind::Unlink(v1::UnlinkOp { parent, name: name("u"), directory: false }),
        Kind::Mknod(v1::MakeNodeOp { parent, name: name("p"), mode: 0o010_644, uid, gid, rdev: 0 }),
        Kind::Link(v1::LinkOp { inode, parent, name: name("h") }),
        xattr(false),
        xattr(true),
        Kind::Unlink(v1::UnlinkOp { parent, name: name("g"), directory: true }),
    ];
    (50..).zip(kinds).map(|(op_id, op)| Op { op_id, op: Some(op) }).collect()
}

/// Programs under kills found it: a rename that the old server had got failed at once when the new one was there.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_start_was_sent_is_done_once_over_both() {
    let mut server = Server::start().await;
    let [client, _] = server.both().await;
    let id = empty_session(&client).await;
    let attach = async |client: &Client, next_op| {
        let mut bridge = BridgeServiceClient::new(client.channel.clone());
        let request = v1::AttachRequest { session_id: id.clone(), ..Default::default() };
        let attached = bridge.attach(request).await.unwrap().into_inner();
        assert!(attached.knows_sent_before);
        (Mount { bridge, id: attached.mount_id, next_op }, attached.epoch)
    };
    let (mut first, epoch) = attach(&client, 1).await;
    let file = first.create("f").await.inode;
    first.create("u").await;
    let g = v1::MakeDirectoryOp { parent: 1, name: "g".into(), mode: 0o755, uid: 0, gid: 0 };
    assert_eq!(first.one(Kind::Mkdir(g)).await.errno, 0);
    // These answers are those that nobody gets.
    let (done, late) = (once_only(file), Kind::Create(create("late")));
    let answers = first.send(done.clone(), true).await;
    assert!(answers.iter().all(|a| a.errno == 0), "{answers:?}");
    let mut sent = v1::SentBefore { mount_id: first.id.clone(), epoch, revision: 3 };
    server.restart().await;
    let [client, _] = server.both().await;
    let (mut second, epoch) = attach(&client, 1000).await;
    // The first change of this start ends the layer with those of the one before.
    client.write(&id, "/other", b"x").await.unwrap();
    let late = Op { op_id: 90, op: Some(late) };
    let all: Vec<Op> = done.into_iter().chain([late.clone()]).collect();
    let again = second.send_again(all.clone(), true, Some(sent.clone())).await;
    assert!(again.iter().all(|a| a.errno == 0), "{again:?}");
    let inode = |answer: &OpResult| answer.attributes.map(|a| a.inode);
    let count = answers.len();
    assert!(answers.iter().zip(&again).all(|(a, b)| inode(a) == inode(b)), "{answers:?} {again:?}");
    assert_eq!((again[1].count, again[1].offset), (1, 0));
    assert_eq!(second.read(file, 0, 10).await.unwrap(), b"x", "appended once");
    for gone in ["d", "u", "g"] {
        assert!(second.lookup(gone).await.is_none(), "{gone}");
    }
    // The new attachment holds what was made with `open`.
    let made = inode(&again[0]).unwrap();
    let unlink = v1::UnlinkOp { parent: 1, name: "made".into(), directory: false };
    assert_eq!(second.one(Kind::Unlink(unlink)).await.errno, 0);
    assert_eq!(second.one(Kind::Release(v1::ReleaseOp { inode: made })).await.errno, 0);
    // What the second start has done in its turn is known to the third under the same name.
    let late_inode = inode(&again[count]);
    sent.epoch = epoch;
    server.restart().await;
    let [client, _] = server.both().await;
    let (mut third, epoch) = attach(&client, 2000).await;
    let answer = third.send_again(vec![late.clone()], false, Some(sent.clone())).await.remove(0);
    assert_eq!((answer.errno, inode(&answer)), (0, late_inode));
    assert_eq!(third.one(Kind::Create(create("late"))).await.errno, EEXIST, "another operation");
    // Of what this start was sent over another attachment nobody knows what will become.
    for (mount_id, epoch) in [(first.id.clone(), epoch), (third.id.clone(), 1)] {
        let (op, sent) =
            (Op { op_id: 3000, ..late.clone() }, v1::SentBefore { mount_id, epoch, revision: 1 });
        let (mut other, _) = attach(&client, 1).await;
        let unknown = other.send_again(vec![op], false, Some(sent)).await.remove(0);
        assert_eq!(unknown.reason, "TIMED_OUT", "{unknown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_made_is_not_made_again_over_what_another_wrote() {
    let mut server = Server::start().await;
    let [client, _] = server.both().await;
    let id = empty_session(&client).await;
    let mut first = Mount::attach(&client, &id, false).await;
    let file = first.create("f").await.inode;
    let mine = Op { op_id: 50, op: Some(write(file, 0, "mine")) };
    assert_eq!(first.send(vec![mine.clone()], true).await[0].errno, 0);
    let epoch = server.running().app().engine.epoch();
    let sent = v1::SentBefore { mount_id: first.id.clone(), epoch, revision: 1 };
    server.restart().await;
    let [client, _] = server.both().await;
    client.write(&id, "/f", b"another's").await.unwrap();
    let mut second = Mount::attach(&client, &id, false).await;
    let again =
        second.send_again(vec![mine, Op { op_id: 51, op: Some(write(file, 9, "!")) }], true, Some(sent));
    assert!(again.await.iter().all(|answer| answer.errno == 0 && answer.count > 0));
    assert_eq!(client.read(&id, "/f").await.unwrap(), b"another's!", "the second was never made");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_lives_without_a_name() {
    let (_server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let made = m.one(Kind::Create(v1::CreateOp { open: true, ..create("f") })).await;
    let inode = made.attributes.unwrap().inode;
    m.apply(vec![write(inode, 0, "still here"), Kind::Open(v1::OpenOp { inode, ..Default::default() })])
        .await;
    client.ok("FileSystem.RemovePath", serde_json::json!({"session_id": id, "path": "/f"})).await;
    assert_eq!(m.read(inode, 0, 100).await.unwrap(), b"still here");
    m.one(Kind::Release(v1::ReleaseOp { inode })).await;
    assert_eq!(m.read(inode, 0, 100).await.unwrap(), b"still here");
    m.one(Kind::Release(v1::ReleaseOp { inode })).await;
    assert_eq!(m.read(inode, 0, 100).await.unwrap_err().reason, Reason::Stale);
    assert_ne!(m.one(Kind::Release(v1::ReleaseOp { inode })).await.errno, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_after_it_opened_holds_nothing() {
    let (_server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let name = bytes::Bytes::from("p");
    // A fifo can be opened and not truncated: here it stands for a file on a full disk.
    let fifo = v1::MakeNodeOp { parent: 1, name: name.clone(), mode: 0o010_644, uid: 0, gid: 0, rdev: 0 };
    let inode = m.one(Kind::Mknod(fifo)).await.attributes.unwrap().inode;
    let again = v1::CreateOp { open: true, truncate: true, exclusive: false, ..create("p") };
    let failed = m.one(Kind::Create(again)).await;
    assert_eq!(failed.reason, "WRONG_TYPE", "{failed:?}");
    let unlinked = m.one(Kind::Unlink(v1::UnlinkOp { parent: 1, name, directory: false })).await;
    assert_eq!(unlinked.errno, 0, "{unlinked:?}");
    let request = v1::GetAttributesRequest { mount_id: m.id.clone(), inode };
    let gone = m.bridge.get_attributes(request).await.unwrap_err();
    assert_eq!(from_status(&gone).reason, Reason::Stale, "nobody has it open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_mount_changes_nothing() {
    let (_server, client, id) = setup().await;
    client.write(&id, "/f", b"1").await.unwrap();
    let mut m = Mount::attach(&client, &id, true).await;
    let inode = m.lookup("f").await.unwrap().inode;
    for op in [
        write(inode, 0, "x"),
        Kind::Create(create("g")),
        Kind::Open(v1::OpenOp { inode, truncate: true, kill_priv: false }),
    ] {
        assert_eq!(m.one(op).await.errno, EROFS);
    }
    assert_eq!(m.one(Kind::Open(v1::OpenOp { inode, ..Default::default() })).await.errno, 0);
    assert_eq!(client.read(&id, "/f").await.unwrap(), b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_come_in_pages() {
    let (_server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let names: Vec<String> = (0..50).map(|n| format!("f{n:02}")).collect();
    m.apply(names.iter().map(|n| Kind::Create(create(n))).collect()).await;
    let (mut seen, mut cookie) = (Vec::new(), 0);
    loop {
        let request = v1::ReadDirectoryRequest { mount_id: m.id.clone(), inode: 1, cookie, max_entries: 7 };
        let page = m.bridge.read_directory(request).await.unwrap().into_inner();
        for entry in &page.entries {
            assert!(entry.attributes.unwrap().inode > 1);
            seen.push(String::from_utf8(entry.name.to_vec()).unwrap());
            cookie = entry.next_cookie;
        }
        if page.end {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_others_are_pushed() {
    let (_server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let (heartbeats, requests) = mpsc::channel(4);
    heartbeats.send(SyncRequest { mount_id: m.id.clone(), acked_revision: 0, acked_fence: 0 }).await.unwrap();
    let mut pushed = m.bridge.sync(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(10), pushed.message()).await.unwrap().unwrap();

    let own = m.create("own").await.inode;
    client.write(&id, "/own", b"by another").await.unwrap();
    let change = next().await.unwrap();
    assert!(change.invalidations.iter().any(|i| i.inode == own && i.data), "{change:?}");
    assert!(
        !change.invalidations.iter().any(|i| &i.name[..] == b"own"),
        "not of its own changes: {change:?}"
    );
    client.write(&id, "/new", b"1").await.unwrap();
    let change = next().await.unwrap();
    assert!(
        change.invalidations.iter().any(|i| i.entry && i.parent == 1 && &i.name[..] == b"new"),
        "{change:?}"
    );

    heartbeats
        .send(SyncRequest { mount_id: m.id.clone(), acked_revision: change.revision, acked_fence: 0 })
        .await
        .unwrap();
    let alive = loop {
        let message = next().await.unwrap();
        if message.invalidations.is_empty() {
            break message;
        }
    };
    assert!(alive.lease.unwrap().seconds > 0);
    drop(heartbeats);
    assert!(next().await.is_none(), "the stream ends when the client's does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_mounted_is_in_use() {
    let (mut server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let body = serde_json::json!({"session_id": id});
    assert_eq!(client.refused("Session.DeleteSession", body.clone()).await.reason, "IN_USE");
    assert_eq!(client.refused("Session.ArchiveSession", body.clone()).await.reason, "IN_USE");
    assert_eq!(client.ok("Session.GetSession", body.clone()).await["usage"]["mounts"], 1);

    let (heartbeats, requests) = mpsc::channel(4);
    heartbeats.send(SyncRequest { mount_id: m.id.clone(), acked_revision: 0, acked_fence: 0 }).await.unwrap();
    let mut pushed = m.bridge.sync(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let stopped = tokio::spawn(async move { server.stop().await });
    let farewell = pushed.message().await.unwrap().unwrap();
    assert!(farewell.notice.contains("shuts down"), "{farewell:?}");
    stopped.await.unwrap();
    assert_eq!(client.surface, Surface::Grpc);
}

/// A client that attaches again names the session that it had.
#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_is_renewed_with_the_same_session_only() {
    let server = Server::start().await;
    let [client, _] = server.both().await;
    let make = serde_json::json!({"session_id": "sess_attached"});
    client.ok("Session.CreateSession", make.clone()).await;
    let mut bridge = BridgeServiceClient::new(client.channel.clone());
    let mut attach = async |session_created_ns| {
        let session_id = "sess_attached".into();
        let request = v1::AttachRequest { session_id, session_created_ns, ..Default::default() };
        bridge.attach(request).await.map(tonic::Response::into_inner).map_err(|s| from_status(&s))
    };
    let first = attach(0).await.unwrap();
    assert_ne!(first.session_created_ns, 0);
    assert_eq!(attach(first.session_created_ns).await.unwrap().session_created_ns, first.session_created_ns);
    let delete = serde_json::json!({"session_id": "sess_attached", "force": true});
    client.ok("Session.DeleteSession", delete).await;
    assert_eq!(attach(first.session_created_ns).await.unwrap_err().reason, Reason::SessionNotFound);
    client.ok("Session.CreateSession", make).await;
    let error = attach(first.session_created_ns).await.unwrap_err();
    assert_eq!(error.reason, Reason::SessionNotFound, "its id is used again");
    assert!(error.message().contains("another session"), "{error:?}");
    assert!(attach(0).await.unwrap().session_created_ns > first.session_created_ns);
}

/// The journal has what was written into a deleted session, and behind it the deletion.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_deleted_session_is_durable() {
    let (_server, client, id) = setup().await;
    let mut m = Mount::attach(&client, &id, false).await;
    let file = m.create("f").await.inode;
    let durable = |id: &str, op: Option<Op>| v1::ApplyOpsRequest {
        mount_id: id.into(),
        ops: op.into_iter().collect(),
        durable: true,
        ..Default::default()
    };
    assert!(m.bridge.apply_ops(durable(&m.id, None)).await.unwrap().into_inner().durable);
    client.ok("Session.DeleteSession", serde_json::json!({"session_id": id, "force": true})).await;
    let op = Op { op_id: 90, op: Some(write(file, 0, "x")) };
    for op in [None, Some(op)] {
        let refused = m.bridge.apply_ops(durable(&m.id, op)).await.unwrap_err();
        assert_eq!(from_status(&refused).reason, Reason::SessionNotFound);
    }
    assert_eq!(m.one(write(file, 0, "x")).await.reason, "SESSION_NOT_FOUND");
    let detach = v1::DetachRequest { mount_id: m.id.clone() };
    let refused = m.bridge.detach(detach.clone()).await.unwrap_err();
    assert_eq!(from_status(&refused).reason, Reason::SessionNotFound);
    let again = m.bridge.detach(detach).await.unwrap_err();
    assert_eq!(from_status(&again).reason, Reason::MountNotFound, "it has ended all the same");
}
