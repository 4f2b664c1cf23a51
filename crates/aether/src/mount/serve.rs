//! The process behind a mount: attach, mount, answer `aether status`, and end in order.

use super::record::{Live, Record, start_of};
use super::vfs::{Owner, Remote};
use afs_client::{Client, Mount, MountOptions};
use afs_fuse::Mounted;
use afs_types::{Error, ROOT_INO, Reason, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// One attempt of one call; several fit into the patience.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// What to mount, and how.
pub(crate) struct Serve {
    pub(crate) session: String,
    pub(crate) dir: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) allow_other: bool,
    pub(crate) auto_unmount: bool,
    /// How long a request may wait for a server that is gone.
    pub(crate) patience: Duration,
    pub(crate) log: Option<PathBuf>,
}

/// Serves until it is unmounted, by whomever. `ready` is called when the mount works.
pub(crate) async fn serve(
    client: Client,
    how: Serve,
    ready: impl FnOnce(&Record) -> Result<()>,
) -> Result<()> {
    // Listened for from the start: a mount that was just made must not be left behind.
    let mut stop = stop_signals()?;
    let endpoint = client.endpoint().to_owned();
    let mount = Mount::attach(client, attachment(&how)).await?;
    let mut shown = None;
    let outcome = async {
        let owner = owner(&mount).await?;
        let mounted = make(&mount, &how, owner).await?;
        let record = Record {
            pid: std::process::id(),
            started: start_of(std::process::id()).unwrap_or_default(),
            session: how.session.clone(),
            endpoint,
            dir: mounted.dir().to_owned(),
            read_only: how.read_only,
            log: how.log.clone(),
            ended: None,
        };
        let mounted = Arc::new(mounted);
        // Whatever becomes of the socket: whoever unmounts learns from the record how this ended.
        match record.write() {
            Ok(()) => shown = Some(record.clone()),
            Err(error) => {
                tracing::warn!(?error, "`aether status` and `aether unmount` will not see this mount")
            }
        }
        let answering = answer_status(&record, &mount, &mounted);
        if let Err(error) = &answering {
            tracing::warn!(?error, "`aether status` will not see how this mount is");
        }
        let outcome = match ready(&record) {
            Ok(()) => until_unmounted(mounted, &mut stop).await,
            Err(error) => Err(error),
        };
        if let Ok(task) = answering {
            task.abort();
        }
        outcome
    }
    .await;
    // Whatever happened: what was acknowledged becomes durable, and the server releases what was open.
    let detached = match mount.detach().await {
        Err(error) if how.read_only => {
            tracing::warn!(?error, "the end of a mount through which nothing was written");
            Ok(())
        }
        detached => detached,
    };
    // Only now, since whoever unmounts waits for it.
    if let Some(record) = shown {
        record.end(&detached);
    }
    outcome.and(detached)
}

fn attachment(how: &Serve) -> MountOptions {
    MountOptions {
        session_id: how.session.clone(),
        client_id: format!("aether {}", std::process::id()),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        read_only: how.read_only,
        call_timeout: CALL_TIMEOUT.min(how.patience),
        patience: how.patience,
    }
}

/// A user who is not root would see files of others only, and could change none.
async fn owner(mount: &Mount) -> Result<Owner> {
    if rustix::process::geteuid().is_root() {
        return Ok(Owner::AsStored);
    }
    let root = mount.getattr(ROOT_INO).await?;
    let shown = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Ok(Owner::Me { shown, stored: (root.uid, root.gid) })
}

async fn make(mount: &Arc<Mount>, how: &Serve, owner: Owner) -> Result<Mounted> {
    let vfs = Arc::new(Remote::new(mount.clone(), Handle::current(), owner));
    let options = afs_fuse::MountOptions {
        name: format!("aether:{}", how.session),
        read_only: how.read_only,
        allow_other: how.allow_other,
        auto_unmount: how.auto_unmount,
        ..afs_fuse::MountOptions::default()
    };
    let dir = how.dir.clone();
    blocking(move || afs_fuse::mount(vfs, &dir, &options)).await
}

/// Ends by `umount`, `aether unmount`, or a signal.
async fn until_unmounted(mounted: Arc<Mounted>, stop: &mut (impl Future<Output = ()> + Unpin)) -> Result<()> {
    let ended = {
        let mounted = mounted.clone();
        blocking(move || mounted.wait())
    };
    tokio::pin!(ended);
    tokio::select! {
        outcome = &mut ended => return outcome,
        () = stop => {}
    }
    tracing::info!("unmounting because of a signal");
    let asked = blocking(move || mounted.end()).await;
    // `end` returns when the kernel has let go, and then so does `wait`.
    ended.await.and(asked)
}

fn stop_signals() -> Result<impl Future<Output = ()> + Unpin> {
    let listen = |kind| signal(kind).map_err(|e| Error::io("listen for signals", e));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }))
}

fn answer_status(
    record: &Record,
    mount: &Arc<Mount>,
    mounted: &Arc<Mounted>,
) -> Result<tokio::task::JoinHandle<()>> {
    let socket = record.socket()?;
    let _ = std::fs::remove_file(&socket); // of an earlier process with this number
    let listener =
        UnixListener::bind(&socket).map_err(|e| Error::io(format!("listen at {}", socket.display()), e))?;
    let (mount, mounted) = (mount.clone(), Arc::downgrade(mounted));
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(mounted) = mounted.upgrade() else { return };
            let text = serde_json::to_vec(&live(&mount, &mounted)).unwrap_or_default();
            let _ = stream.write_all(&text).await; // the asker may be gone
        }
    }))
}

fn live(mount: &Mount, mounted: &Mounted) -> Live {
    let status = mount.status();
    Live {
        mount_id: status.mount_id,
        connected: status.connected,
        down_seconds: status.down_seconds,
        trouble: status.trouble,
        revision: status.revision,
        reconnects: status.reconnects,
        lost_operations: status.lost_operations,
        counters: mounted.counters().iter().map(|(name, n)| (name.to_owned(), n)).collect(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Reason::Internal, format!("a task ended early: {error}"))),
    }
}
