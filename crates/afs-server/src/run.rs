//! A running server, from open to close; what the binary and the tests start.
//!
//! Guarantees: when [`start`] returns, the port answers, and whom it answers finds the mount in place; a start that fails leaves nothing that
//! runs or is locked; [`Running::stop`] drains requests, takes the mount away, and returns when everything acknowledged is on disk; a mount that
//! somebody else takes away meanwhile is told in the log, and by the readiness checks.

use crate::admin::MOUNT_AGAIN;
use crate::app::App;
use crate::config::Config;
use crate::{listen, router};
use afs_fuse::{MountOptions, Mounted};
use afs_types::{Error, Reason, Result};
use axum::Router;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server that answers.
pub struct Running {
    app: Arc<App>,
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
    mounted: Option<Arc<Mounted>>,
}

/// How often it is looked whether the mount is still served.
const MOUNT_LOOK: Duration = Duration::from_secs(1);

/// Opens the data directory, the mount if one is asked for, and the port.
pub async fn start(config: Config) -> Result<Running> {
    // Before anything is opened: a second server on the same port fails fast, and without touching the data.
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in &config.listen {
        let listener = bind(*address).await?;
        addresses.push(listener.local_addr().map_err(|e| Error::io("ask for the address", e))?);
        listeners.push(listener);
    }
    let opening = config.clone();
    let app = blocking(move || App::open(&opening)).await?;
    let (router, mounted) = match prepare(&app, config.mount_dir.clone()).await {
        Ok(prepared) => prepared,
        Err(error) => {
            app.stop();
            if let Err(closing) = blocking(move || app.close()).await {
                tracing::warn!(error = %closing, "close what a start that failed had opened");
            }
            return Err(error);
        }
    };
    // From here on nothing fails. Who has connected by now waits for the first accept.
    let mut tasks = JoinSet::new();
    tasks.spawn(app.clone().background());
    if let Some(mounted) = &mounted {
        tasks.spawn(watch(mounted.clone(), app.stopping()));
    }
    for listener in listeners {
        let (most, answers) = (config.max_connections, app.answers.clone());
        tasks.spawn(listen::serve(listener, router.clone(), most, answers, app.stopping()));
    }
    Ok(Running { app, addresses, tasks, mounted })
}

/// What requests go to, and the mount; nobody is served yet.
async fn prepare(app: &Arc<App>, mount_dir: Option<PathBuf>) -> Result<(Router, Option<Arc<Mounted>>)> {
    let router = router::router(app.clone()).await?;
    let Some(dir) = mount_dir else { return Ok((router, None)) };
    let for_mount = app.clone();
    let mounted = Arc::new(blocking(move || mount(&for_mount, &dir)).await?);
    app.mounted.get_or_init(|| Arc::downgrade(&mounted));
    Ok((router, Some(mounted)))
}

/// Says when the mount ends without the server's doing: nothing else would, and sessions would be missing there without a word. It ends
/// with the server, before that takes the mount away.
async fn watch(mounted: Arc<Mounted>, stopping: impl Future<Output = ()>) {
    let gone = async {
        while mounted.is_served() {
            tokio::time::sleep(MOUNT_LOOK).await;
        }
    };
    tokio::select! {
        () = gone => tracing::warn!(
            dir = %mounted.dir().display(),
            "the mount of all sessions was taken away (umount, or its connection was aborted); next: {MOUNT_AGAIN}"
        ),
        () = stopping => {}
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => Error::new(Reason::InUse, format!("{address} is used by another program"))
            .next("stop that program, or choose another port with --listen 127.0.0.1:PORT (0: any free one)"),
        _ => Error::io(format!("listen on {address}"), e),
    })
}

fn mount(app: &App, dir: &Path) -> Result<Mounted> {
    // Does not look into it: a server that was killed has left a dead mount there, which the mount itself removes.
    let made = match std::fs::create_dir(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => std::fs::create_dir_all(dir),
        other => other,
    };
    made.map_err(|e| Error::io(format!("create {}", dir.display()), e))?;
    let options = MountOptions { name: afs_fuse::server_name(), ..MountOptions::default() };
    afs_fuse::mount(app.all.clone(), dir, &options)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::new(Reason::Internal, e.to_string())))
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
    /// Its parts.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }
    /// Where all sessions are mounted, if they are.
    pub fn mount_dir(&self) -> Option<&Path> {
        self.mounted.as_ref().map(|mounted| mounted.dir())
    }

    /// Stops: no new connections, requests end, the mount goes, everything acknowledged is on disk.
    pub async fn stop(mut self) -> Result<()> {
        self.app.stop();
        while self.tasks.join_next().await.is_some() {}
        let (app, mounted) = (self.app, self.mounted);
        blocking(move || {
            let unmounted = match mounted.map_or(Ok(()), |mounted| mounted.end()) {
                // The mount is gone all the same, and its users have been told: no failure of the stop.
                Err(error) if error.reason == Reason::InUse => {
                    tracing::warn!(%error, "the mount was taken from its users");
                    Ok(())
                }
                other => other,
            };
            app.close().and(unmounted)
        })
        .await
    }
}
