//! Forking over gRPC on loopback, through a real server in this process: the whole way of a request, durable when it is answered.

use super::node::FILE;
use crate::Context;
use crate::limits::Limits;
use crate::report::Bar;
use crate::rounds::Rounds;
use afs_client::{Client, Options, api};
use afs_server::{Settings, start};
use afs_types::{ROOT_INO, SessionId};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

const ONE: usize = 1_000;
const HUNDRED: usize = 100;
const OVERLAY: usize = 10_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (one, hundred) = runtime.block_on(measure(context.dir()))?;
    // The disk's own time again, right after: it drifts.
    context.limits = Limits::measure(context.dir())?;
    let sync_us = context.limits.fdatasync_p50_us;
    let (p50, p99) = (one.p50() / 1e3, one.p99() / 1e3);
    context.figure("ForkSession on loopback, p50", p50, "us", Bar::AtMost(sync_us + 500.0), one.len());
    context.figure("ForkSession on loopback, p99", p99, "us", Bar::None, one.len());
    let p50_hundred = hundred.p50() / 1e3;
    context.figure("100 forks in one call, p50", p50_hundred, "us", Bar::None, hundred.len());
    context.figure("the same, over one fork", p50_hundred / p50, "x", Bar::AtMost(20.0), hundred.len());
    Ok(())
}

/// Times of calls for one fork, and for a hundred.
async fn measure(dir: &Path) -> Result<(Rounds, Rounds)> {
    let settings = Settings {
        listen: Some("127.0.0.1:0".into()),
        data_dir: Some(dir.join("server")),
        ..Settings::default()
    };
    let running = start(settings.resolve()?).await?;
    let address = running.addresses().first().context("the server listens")?;
    let client = Client::new(&Options {
        endpoint: format!("http://{address}"),
        timeout: Duration::from_secs(10),
        user_agent: "afs-bench".into(),
    })?;
    let made = client.create_session(api::CreateSessionRequest::default()).await?;
    let parent = running.app().engine.session(&SessionId::parse(&made.session_id)?)?;
    for number in 0..OVERLAY / 2 {
        parent.create(ROOT_INO, format!("file-{number}").as_bytes(), FILE, 0, 0)?;
    }
    parent.fsync()?;
    let one = calls(&client, &made.session_id, 1, ONE).await?;
    let hundred = calls(&client, &made.session_id, 100, HUNDRED).await?;
    drop(parent);
    running.stop().await?;
    Ok((one, hundred))
}

async fn calls(client: &Client, session: &str, count: u32, rounds: usize) -> Result<Rounds> {
    let mut times = Vec::with_capacity(rounds);
    // A tenth more to warm up.
    for round in 0..rounds + rounds / 10 {
        let want = api::ForkSessionRequest { session_id: session.to_owned(), count, ..Default::default() };
        let started = Instant::now();
        let made = client.fork_session(want).await?;
        let took = started.elapsed().as_nanos() as f64;
        ensure!(made.sessions.len() == count as usize, "{} forks instead of {count}", made.sessions.len());
        if round >= rounds / 10 {
            times.push(took);
        }
    }
    Ok(Rounds::new(times))
}
