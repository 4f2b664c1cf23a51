//! Imports of a directory that are cut off in the middle, and gone on with.

use afs_client::{Client, api};
use afs_types::Error;
use api::ResourceState;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;

const DIRS: usize = 40;
const FILES_PER_DIR: usize = 50;

pub(super) struct Imports {
    dir: PathBuf,
    client: Client,
    runtime: Handle,
    number: u32,
    /// Ended well.
    pub(super) done: u32,
    /// Of these, cut off before.
    pub(super) resumed: u32,
}

impl Imports {
    pub(super) fn new(home: &Path, client: Client, runtime: Handle) -> Self {
        let dir = home.join("import");
        for number in 0..DIRS {
            let at = dir.join(format!("dir-{number}"));
            fs::create_dir_all(&at).unwrap();
            for file in 0..FILES_PER_DIR {
                let text = format!("file {file} of {number}\n").repeat(1 + file * 7);
                fs::write(at.join(format!("file-{file}")), text).unwrap();
            }
        }
        fs::write(dir.join("large"), vec![b'l'; 1 << 20]).unwrap();
        Self { dir, client, runtime, number: 0, done: 0, resumed: 0 }
    }

    fn id(&self) -> String {
        format!("src_kill_{}", self.number)
    }

    fn text(&self) -> String {
        format!("import {}\n", self.number)
    }

    /// Begins an import of what was never imported before.
    pub(super) fn begin(&mut self) {
        self.number += 1;
        fs::write(self.dir.join("newest"), self.text()).unwrap();
        // The server may be gone before it answers.
        drop(self.runtime.block_on(self.create()));
    }

    async fn create(&self) -> Result<api::Source, Error> {
        let local = api::LocalSpec { path: self.dir.to_str().unwrap().to_owned() };
        let spec = Some(api::SourceSpec { spec: Some(api::source_spec::Spec::Local(local)) });
        let (source_id, request_id) = (self.id(), format!("import-{}", self.number));
        self.client
            .create_source(api::CreateSourceRequest { source_id, spec, request_id, ..Default::default() })
            .await
    }

    /// Ends the import after a crash, and looks at what it made. Returns what is wrong.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        let (id, runtime) = (self.id(), self.runtime.clone());
        let finished = runtime.block_on(self.go_on());
        let version = finished.map_err(|error| format!("{id} cannot be imported after a crash: {error}"))?;
        if version.state() != ResourceState::Ready {
            return Err(format!("{id} ended as {version:?}"));
        }
        self.done += 1;
        let seen = runtime.block_on(self.look()).map_err(|error| format!("a session of {id}: {error}"))?;
        let want = (1 + DIRS * (1 + FILES_PER_DIR) + 1, self.text());
        (seen == want).then_some(()).ok_or_else(|| format!("{id} shows {seen:?}, not {want:?}"))
    }

    async fn go_on(&mut self) -> Result<api::Source, Error> {
        let wait_seconds = 60;
        let source_id = self.create().await?.source_id;
        let mut source = self
            .client
            .get_source(api::GetSourceRequest { source_id, wait_seconds, import_number: 0 })
            .await?;
        if source.state() == ResourceState::Failed {
            self.resumed += 1;
            let source_id = self.id();
            self.client.refresh_source(api::RefreshSourceRequest { source_id, ..Default::default() }).await?;
            let source_id = self.id();
            source = self
                .client
                .get_source(api::GetSourceRequest { source_id, wait_seconds, import_number: 0 })
                .await?;
        }
        Ok(source)
    }

    /// Entries of a session on it, and the file that only this import has. Nothing of it stays.
    async fn look(&self) -> Result<(usize, String), Error> {
        let client = &self.client;
        let want = api::CreateSessionRequest { source_id: self.id(), ..Default::default() };
        let session_id = client.create_session(want).await?.session_id;
        let want = api::GetManifestRequest { session_id: session_id.clone(), ..Default::default() };
        let entries = client.get_manifest(want).await?.collect().await?.len();
        let (path, mut bytes) = ("/newest".to_owned(), Vec::new());
        let want = api::ReadFileRequest { session_id: session_id.clone(), path, ..Default::default() };
        client.download(want, &mut bytes, &mut |_| {}).await?;
        client.delete_session(api::DeleteSessionRequest { session_id, ..Default::default() }).await?;
        client.delete_source(api::DeleteSourceRequest { source_id: self.id(), force: true }).await?;
        Ok((entries, String::from_utf8_lossy(&bytes).into_owned()))
    }
}
