//! The Sync stream of a mount: heartbeats in, invalidations out.

use super::LEASE;
use super::registry::{Mount, Registry};
use crate::app::App;
use afs_proto::v1::{SyncRequest, SyncResponse};
use afs_proto::{to_duration, to_status};
use afs_types::{Error, Reason};
use futures::{Stream, StreamExt as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

pub(crate) type Responses = ReceiverStream<Result<SyncResponse, Status>>;

/// Answers one stream until the client, the mount or the server ends.
pub(crate) fn start(app: Arc<App>, mount: Arc<Mount>, requests: Streaming<SyncRequest>) -> Responses {
    // One: of a client that does not read, as little as possible waits here.
    let (out, responses) = mpsc::channel(1);
    let number = app.bridge.next_stream();
    mount.stream.store(number, Ordering::Relaxed);
    mount.events.arrived.notify_waiters(); // an older stream of this mount ends
    tokio::spawn(async move {
        let mut requests = Box::pin(requests);
        let stop = app.stopping();
        // The task keeps the mount only while it waits for nothing: an expired mount must be able to end.
        let (id, weak) = (mount.id.clone(), Arc::downgrade(&mount));
        drop(mount);
        let mut stop = std::pin::pin!(stop);
        loop {
            let Some(mount) = weak.upgrade().filter(|_| app.bridge.is_attached(&id)) else {
                let gone =
                    Error::new(Reason::MountNotFound, format!("{id} has ended")).with("id", id.as_str());
                let _ = out.send(Err(to_status(&gone))).await; // the client may be gone too
                return;
            };
            if mount.stream.load(Ordering::Relaxed) != number {
                return;
            }
            if let Some(waiting) = mount.events.take() {
                let (invalidations, fence) = (waiting.changes, waiting.fence);
                let response = SyncResponse { invalidations, fence, ..now(&mount) };
                if out.send(Ok(response)).await.is_err() {
                    return;
                }
                continue;
            }
            let events = mount.events.clone();
            let answer = tokio::select! {
                () = events.arrived.notified() => continue,
                request = next(&mut requests) => match request {
                    Some(request) => {
                        mount.renew();
                        if request.acked_fence > 0 {
                            mount.events.acknowledge(request.acked_fence);
                            continue; // no heartbeat: nobody waits for an answer
                        }
                        now(&mount)
                    }
                    None => return,
                },
                () = &mut stop => {
                    let notice = "the server shuts down".to_owned();
                    let _ = out.send(Ok(SyncResponse { notice, ..now(&mount) })).await;
                    return;
                }
                () = tokio::time::sleep(LEASE / 4) => continue,
            };
            if out.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(responses)
}

async fn next(
    requests: &mut (impl Stream<Item = Result<SyncRequest, Status>> + Unpin),
) -> Option<SyncRequest> {
    requests.next().await.and_then(Result::ok)
}

fn now(mount: &Mount) -> SyncResponse {
    SyncResponse {
        revision: mount.session.stamp().seq,
        lease: Some(to_duration(LEASE.as_nanos() as i64)),
        ..SyncResponse::default()
    }
}

impl Registry {
    /// Ends silent mounts, for as long as the server runs.
    pub(crate) async fn expire_forever(&self) {
        loop {
            tokio::time::sleep(LEASE / 12).await;
            self.expire();
        }
    }
}
