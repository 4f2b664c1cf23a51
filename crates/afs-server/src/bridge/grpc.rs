//! BridgeService.

use super::apply::apply;
use super::registry::Mount;
use super::resent::Resent;
use super::tree::listings;
use super::wire::attributes;
use super::{LEASE, sync};
use crate::app::App;
use crate::mount::relative;
use crate::pool::durable;
use crate::reply::{Reply, fail, field, reply};
use afs_proto::v1::bridge_service_server::BridgeService;
use afs_proto::{to_duration, v1};
use afs_session::Seek;
use afs_types::{Error, MountId, ROOT_INO, Reason, Result, SessionId, limits};
use futures::StreamExt as _;
use std::sync::Arc;
use tonic::{Request, Response, Streaming};

/// Most operations of one call.
const MAX_OPS: usize = limits::MAX_MOUNT_OPS;
/// Most entries of one directory page, and how many when the caller does not say.
const MAX_ENTRIES: u32 = 10_000;
const DEFAULT_ENTRIES: u32 = 1000;
/// Most entries of one look around.
const MAX_TREE_ENTRIES: u32 = 16_384;

/// Answers for mounts.
pub(crate) struct Bridge(pub(crate) Arc<App>);

impl Bridge {
    fn mount(&self, id: &str) -> Result<Arc<Mount>, tonic::Status> {
        self.0.bridge.get(id).map_err(fail)
    }

    /// Runs a call on a mount where it may wait for the disk.
    async fn on<T: Send + 'static>(
        &self,
        mount_id: &str,
        call: impl FnOnce(&Mount) -> Result<T> + Send + 'static,
    ) -> Result<T, tonic::Status> {
        let mount = self.mount(mount_id)?;
        self.0.pool.run(move || call(&mount)).await.map_err(fail)
    }
}

#[tonic::async_trait]
impl BridgeService for Bridge {
    type SyncStream = sync::Responses;

    async fn attach(&self, r: Request<v1::AttachRequest>) -> Reply<v1::AttachResponse> {
        let r = r.into_inner();
        let id = field("session_id", SessionId::parse(&r.session_id)).map_err(fail)?;
        let engine = self.0.engine.clone();
        let (seen_epoch, seen, created_ns) = (r.seen_epoch, r.seen_revision, r.session_created_ns);
        let opened = self.0.pool.run(move || {
            let session = engine.session(&id)?;
            if created_ns != 0 && created_ns != session.created_ns() {
                return Err(replaced(&id));
            }
            let has_lost = seen_epoch != 0 && engine.has_lost(&session, seen_epoch, seen)?;
            Ok((session, has_lost))
        });
        let (session, lost_changes) = opened.await.map_err(fail)?;
        let mount_id = MountId::from_ulid(self.0.ids.next_ulid(self.0.clock.now_ns()));
        let mount = self.0.bridge.attach(mount_id, session, self.0.next_who(), r.read_only).map_err(fail)?;
        let shown = |text: &str| text.chars().take(100).collect::<String>();
        tracing::info!(mount = %mount.id, session = %mount.session.id(), client = shown(&r.client_id), host = shown(&r.hostname), "a mount attached");
        Ok(Response::new(v1::AttachResponse {
            mount_id: mount.id.to_string(),
            root_inode: ROOT_INO,
            revision: mount.session.stamp().seq,
            lease: Some(to_duration(LEASE.as_nanos() as i64)),
            max_read_bytes: limits::MAX_IO_BYTES as u32,
            max_write_bytes: limits::MAX_IO_BYTES as u64,
            instance_id: self.0.identity.instance_id.clone(),
            epoch: self.0.engine.epoch(),
            lost_changes,
            session_created_ns: mount.session.created_ns(),
            knows_sent_before: true,
        }))
    }

    async fn detach(&self, r: Request<v1::DetachRequest>) -> Reply<v1::DetachResponse> {
        let mount = self.mount(&r.into_inner().mount_id)?;
        // What was written into a deleted session is gone with it: the mount ends, and success would be a lie.
        let stamp = mount.session.live_stamp();
        if let Ok(stamp) = &stamp {
            durable(&*self.0.journal, stamp.at).await.map_err(fail)?;
        }
        let (app, id) = (self.0.clone(), mount.id.clone());
        drop(mount);
        // Ending a mount releases what it held open, which may write.
        let end = move || {
            app.bridge.detach(&id);
            Ok(())
        };
        self.0.pool.run_unasked(end).await.map_err(fail)?;
        reply(stamp, |stamp| v1::DetachResponse { revision: stamp.seq })
    }

    async fn sync(&self, r: Request<Streaming<v1::SyncRequest>>) -> Reply<Self::SyncStream> {
        let mut requests = r.into_inner();
        let first = requests.next().await.transpose()?.unwrap_or_default();
        let mount = self.mount(&first.mount_id)?;
        Ok(Response::new(sync::start(self.0.clone(), mount, requests)))
    }

    async fn lookup(&self, r: Request<v1::LookupRequest>) -> Reply<v1::LookupResponse> {
        let r = r.into_inner();
        match self.mount(&r.mount_id)?.session.lookup(r.parent, &r.name) {
            Ok(attr) => {
                Ok(Response::new(v1::LookupResponse { attributes: Some(attributes(&attr)), negative: false }))
            }
            Err(e) if e.reason == Reason::NotFound => {
                Ok(Response::new(v1::LookupResponse { attributes: None, negative: true }))
            }
            Err(e) => Err(fail(e)),
        }
    }

    async fn get_attributes(&self, r: Request<v1::GetAttributesRequest>) -> Reply<v1::GetAttributesResponse> {
        let r = r.into_inner();
        reply(self.mount(&r.mount_id)?.session.getattr(r.inode), |attr| v1::GetAttributesResponse {
            attributes: Some(attributes(&attr)),
        })
    }

    async fn read_directory(&self, r: Request<v1::ReadDirectoryRequest>) -> Reply<v1::ReadDirectoryResponse> {
        let r = r.into_inner();
        let most = if r.max_entries == 0 { DEFAULT_ENTRIES } else { r.max_entries.min(MAX_ENTRIES) } as usize;
        let page = self
            .on(&r.mount_id, move |mount| {
                let (mut entries, mut end) = (Vec::new(), true);
                mount.session.readdir(r.inode, r.cookie, &mut |entry| {
                    if entries.len() == most {
                        end = false;
                        return false;
                    }
                    entries.push(v1::DirectoryEntry {
                        name: entry.name.to_vec().into(),
                        next_cookie: entry.next_cookie,
                        attributes: Some(attributes(&entry.attr)),
                    });
                    true
                })?;
                let parent = mount.session.parent(r.inode).unwrap_or(ROOT_INO);
                Ok(v1::ReadDirectoryResponse { entries, end, parent })
            })
            .await?;
        Ok(Response::new(page))
    }

    async fn read_tree(&self, r: Request<v1::ReadTreeRequest>) -> Reply<v1::ReadTreeResponse> {
        let r = r.into_inner();
        let most = if r.max_entries == 0 { DEFAULT_ENTRIES } else { r.max_entries.min(MAX_TREE_ENTRIES) };
        let directories =
            self.on(&r.mount_id, move |mount| listings(&mount.session, r.inode, most as usize)).await?;
        Ok(Response::new(v1::ReadTreeResponse { directories }))
    }

    async fn read(&self, r: Request<v1::ReadRequest>) -> Reply<v1::ReadResponse> {
        let r = r.into_inner();
        let length = r.length as usize;
        if length > limits::MAX_IO_BYTES {
            return Err(fail(Error::invalid("length", format!("at most {}", limits::MAX_IO_BYTES))));
        }
        let mount = self.mount(&r.mount_id)?;
        let read = move || mount.session.read(r.inode, r.offset, length);
        let data = self.0.pool.run_weighed(read, bytes::Bytes::len).await.map_err(fail)?;
        Ok(Response::new(v1::ReadResponse { data }))
    }

    async fn read_link(&self, r: Request<v1::ReadLinkRequest>) -> Reply<v1::ReadLinkResponse> {
        let r = r.into_inner();
        let target = self.on(&r.mount_id, move |mount| mount.session.readlink(r.inode)).await?;
        Ok(Response::new(v1::ReadLinkResponse { target }))
    }

    async fn get_xattr(&self, r: Request<v1::GetXattrRequest>) -> Reply<v1::GetXattrResponse> {
        let r = r.into_inner();
        reply(self.mount(&r.mount_id)?.session.getxattr(r.inode, &r.name), |value| v1::GetXattrResponse {
            value: value.to_vec().into(),
        })
    }

    async fn list_xattrs(&self, r: Request<v1::ListXattrsRequest>) -> Reply<v1::ListXattrsResponse> {
        let r = r.into_inner();
        reply(self.mount(&r.mount_id)?.session.listxattr(r.inode), |names| v1::ListXattrsResponse {
            names: names.into_iter().map(|n| n.to_vec().into()).collect(),
        })
    }

    async fn seek(&self, r: Request<v1::SeekRequest>) -> Reply<v1::SeekResponse> {
        let r = r.into_inner();
        let what = match v1::SeekWhence::try_from(r.whence) {
            Ok(v1::SeekWhence::Data) => Seek::Data,
            Ok(v1::SeekWhence::Hole) => Seek::Hole,
            _ => return Err(fail(Error::invalid("whence", "SEEK_WHENCE_DATA or SEEK_WHENCE_HOLE"))),
        };
        reply(self.mount(&r.mount_id)?.session.seek(r.inode, r.offset, what), |offset| v1::SeekResponse {
            offset,
        })
    }

    async fn stat_file_system(
        &self,
        r: Request<v1::StatFileSystemRequest>,
    ) -> Reply<v1::StatFileSystemResponse> {
        let usage = self.on(&r.into_inner().mount_id, |mount| mount.session.statfs()).await?;
        Ok(Response::new(v1::StatFileSystemResponse {
            total_bytes: usage.total_bytes,
            free_bytes: usage.free_bytes,
            files: usage.files,
            free_files: usage.free_files,
            block_size: 4096,
        }))
    }

    async fn changed_since(&self, r: Request<v1::ChangedSinceRequest>) -> Reply<v1::ChangedSinceResponse> {
        let r = r.into_inner();
        let engine = self.0.engine.clone();
        let answer = self
            .on(&r.mount_id, move |mount| {
                let since = engine.changed_since(&mount.session, &r.instant)?;
                // After the state was looked at: what that includes was pushed before.
                let fence = mount.events.fence();
                let everything = since.paths.is_none();
                let paths = relative(since.paths.unwrap_or_default());
                let paths = paths.into_iter().map(Into::into).collect();
                Ok(v1::ChangedSinceResponse { instant: since.instant, everything, paths, fence })
            })
            .await?;
        Ok(Response::new(answer))
    }

    async fn apply_ops(&self, r: Request<v1::ApplyOpsRequest>) -> Reply<v1::ApplyOpsResponse> {
        let r = r.into_inner();
        if r.ops.len() > MAX_OPS {
            return Err(fail(Error::invalid("ops", format!("at most {MAX_OPS} operations in one call"))));
        }
        let resent = |sent| Resent::read(&self.0.bridge, self.0.engine.epoch(), sent);
        let resent = r.sent_before.as_ref().map(resent).transpose().map_err(fail)?;
        let clock = self.0.clock.clone();
        let (results, stamp) = self
            .on(&r.mount_id, move |mount| {
                mount.replies.answered_below(r.answered_below);
                let apply = |op| apply(mount, &*clock, op, resent.as_ref());
                let results: Vec<_> = r.ops.into_iter().map(apply).collect();
                let s = &mount.session;
                Ok((results, if r.durable { s.live_stamp()? } else { s.stamp() }))
            })
            .await?;
        if r.durable {
            durable(&*self.0.journal, stamp.at).await.map_err(fail)?;
        }
        Ok(Response::new(v1::ApplyOpsResponse { revision: stamp.seq, results, durable: r.durable }))
    }
}

/// The session that was attached before is gone for ever, though its id leads somewhere.
fn replaced(id: &SessionId) -> Error {
    Error::new(Reason::SessionNotFound, format!("{id} was deleted; what has this id now is another session"))
        .with("id", id.as_str())
        .next("mount the new one: aether mount --session ID DIR")
}
