//! FileSystemService.

use super::read::{self, FileRange};
use super::{changes, upload, wire};
use crate::app::App;
use crate::intake::Arrived;
use crate::pool::{Weigh, durable};
use crate::queues;
use crate::raw::body_reader;
use crate::reply::{Reply, fail, field, level, optional, page_size, path, path_to_change, reply, waits};
use afs_proto::v1;
use afs_proto::v1::MutationResponse;
use afs_proto::v1::file_system_service_server::FileSystemService;
use afs_session::Stamp;
use afs_session::paths::{CopyFrom, Entry, FileBytes, Files, GlobQuery, GrepQuery, Scope, Written};
use afs_types::{Error, Result, SessionId, SessionPath, limits, unescape};
use futures::{Stream, StreamExt as _};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Answers for files.
pub(crate) struct FileSystem(pub(crate) Arc<App>);

impl Weigh for v1::Entry {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.path.len() + self.symlink_target.len()
    }
}

impl Weigh for v1::ReadFileResponse {
    fn weight(&self) -> usize {
        match &self.part {
            Some(v1::read_file_response::Part::Data(data)) => data.len(),
            _ => size_of::<Self>(),
        }
    }
}

impl Weigh for v1::GrepMatch {
    fn weight(&self) -> usize {
        let lines = self.context_before.iter().chain(&self.context_after);
        size_of::<Self>() + self.path.len() + self.text.len() + lines.map(|l| l.len() + 24).sum::<usize>()
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn id(text: &str) -> Result<SessionId> {
    field("session_id", SessionId::parse(text))
}

impl FileSystem {
    /// Runs a call on the files of a session.
    async fn on<T: Send + 'static>(
        &self,
        session: &str,
        call: impl FnOnce(&Files<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (id, engine) = (id(session)?, self.0.engine.clone());
        self.0.pool.run(move || call(&engine.files(&id)?)).await
    }

    /// The same for one whose result can be large.
    async fn on_weighed<T: Send + 'static>(
        &self,
        session: &str,
        call: impl FnOnce(&Files<'_>) -> Result<T> + Send + 'static,
        weigh: fn(&T) -> usize,
    ) -> Result<T> {
        let (id, engine) = (id(session)?, self.0.engine.clone());
        self.0.pool.run_weighed(move || call(&engine.files(&id)?), weigh).await
    }

    /// Runs a change and, if asked for, waits until it is on disk.
    async fn change(
        &self,
        session: &str,
        durability: i32,
        call: impl FnOnce(&Files<'_>) -> Result<Written> + Send + 'static,
    ) -> Reply<MutationResponse> {
        let wait = waits(durability).map_err(fail)?;
        let written = self.on(session, call).await.map_err(fail)?;
        self.settle(wait, &written.stamp).await.map_err(fail)?;
        Ok(Response::new(wire::mutation(written, wait)))
    }

    async fn settle(&self, wait: bool, stamp: &Stamp) -> Result<()> {
        if wait { durable(&*self.0.journal, stamp.at).await } else { Ok(()) }
    }

    /// Runs a call that hands over many items, of which those that compare whole trees wait in a queue.
    async fn stream<T: Weigh + Send + 'static>(
        &self,
        queue: Option<String>,
        work: impl FnOnce(&afs_session::Engine, &mut dyn FnMut(T) -> bool) -> Result<()> + Send + 'static,
    ) -> Reply<Answers<T>> {
        let engine = self.0.engine.clone();
        let work = move |sink: &mut dyn FnMut(T) -> bool| work(&engine, sink);
        let items = match queue {
            Some(queue) => self.0.pool.stream_comparison(queue, work).await,
            None => self.0.pool.stream(work).await,
        };
        Ok(Response::new(Box::pin(items.map_err(fail)?.map(|item| item.map_err(fail)))))
    }
}

fn search_scope(path_text: &str, respect_gitignore: bool, changed_only: bool) -> Result<Scope> {
    Ok(Scope { path: path("path", path_text)?, respect_gitignore, changed_only })
}

fn grep_query(r: v1::GrepRequest) -> Result<(SessionId, GrepQuery)> {
    let scope = search_scope(&r.path, r.respect_gitignore, r.changed_only)?;
    let query = GrepQuery {
        pattern: r.pattern,
        fixed_string: r.fixed_string,
        ignore_case: r.ignore_case,
        multiline: r.multiline,
        globs: r.globs,
        before: r.before,
        after: r.after,
        max_count: r.max_count as usize,
        scope,
    };
    Ok((id(&r.session_id)?, query))
}

#[tonic::async_trait]
impl FileSystemService for FileSystem {
    type GetManifestStream = Answers<v1::Entry>;
    type ReadFileStream = Answers<v1::ReadFileResponse>;
    type GrepStream = Answers<v1::GrepMatch>;

    async fn stat(&self, r: Request<v1::StatRequest>) -> Reply<v1::Entry> {
        let r = r.into_inner();
        let path = path("path", &r.path).map_err(fail)?;
        reply(self.on(&r.session_id, move |f| f.view_at(&r.checkpoint_id)?.stat(&path)).await, wire::entry)
    }

    async fn list_directory(&self, r: Request<v1::ListDirectoryRequest>) -> Reply<v1::ListDirectoryResponse> {
        let r = r.into_inner();
        let path = path("path", &r.path).map_err(fail)?;
        let size = page_size(r.page_size).map_err(fail)?;
        let listed = self.on(&r.session_id, move |f| {
            f.view_at(&r.checkpoint_id)?.list(&path, r.depth as usize, size, &r.page_token)
        });
        reply(listed.await, |page| v1::ListDirectoryResponse {
            entries: page.entries.into_iter().map(wire::entry).collect(),
            next_page_token: page.next.unwrap_or_default(),
            revision: page.revision,
        })
    }

    async fn get_manifest(&self, r: Request<v1::GetManifestRequest>) -> Reply<Self::GetManifestStream> {
        let r = r.into_inner();
        let id = id(&r.session_id).map_err(fail)?;
        let prefix = path("path_prefix", &r.path_prefix).map_err(fail)?;
        self.stream(None, move |engine, sink| read::manifest(engine, &id, &r.checkpoint_id, &prefix, sink))
            .await
    }

    async fn read_file(&self, r: Request<v1::ReadFileRequest>) -> Reply<Self::ReadFileStream> {
        let r = r.into_inner();
        let range = FileRange {
            session: id(&r.session_id).map_err(fail)?,
            path: path("path", &r.path).map_err(fail)?,
            at: r.checkpoint_id,
            offset: r.offset,
            limit: r.limit,
            if_none_match: r.if_none_match,
        };
        let engine = self.0.engine.clone();
        let opened = self.0.pool.run(move || {
            let range = range.open(&engine)?;
            let mut whole = Vec::new();
            if range.is_small() {
                range.run(&mut |part| {
                    whole.push(part);
                    true
                })?;
            }
            Ok((range, whole))
        });
        let (range, whole) = opened.await.map_err(fail)?;
        if range.is_small() {
            return Ok(Response::new(Box::pin(futures::stream::iter(whole).map(Ok))));
        }
        self.stream(None, move |_, sink| range.run(sink)).await
    }

    async fn write_file(&self, r: Request<Streaming<v1::WriteFileRequest>>) -> Reply<MutationResponse> {
        let arrived = r.extensions().get::<Arrived>().cloned();
        let mut parts = r.into_inner();
        let first = parts.next().await.transpose()?.and_then(|m| m.part);
        let Some(v1::write_file_request::Part::Header(header)) = first else {
            return Err(fail(Error::invalid("header", "the header as the first message")));
        };
        let wait = waits(header.durability).map_err(fail)?;
        let id = id(&header.session_id).map_err(fail)?;
        let by = wire::by(&header.request_id).map_err(fail)?;
        let (path, options) = wire::write_options(header).map_err(fail)?;
        let (mut bytes, feed) = body_reader(upload::bytes(parts), arrived);
        let engine = self.0.engine.clone();
        let write =
            self.0.pool.run_upload(move || engine.files(&id)?.write_file(&path, &options, &by, &mut bytes));
        let (written, ()) = tokio::join!(write, feed);
        let written = written.map_err(fail)?;
        self.settle(wait, &written.stamp).await.map_err(fail)?;
        Ok(Response::new(wire::mutation(written, wait)))
    }

    async fn read_lines(&self, r: Request<v1::ReadLinesRequest>) -> Reply<v1::ReadLinesResponse> {
        let r = r.into_inner();
        let path = path("path", &r.path).map_err(fail)?;
        if r.max_bytes > (limits::MAX_MESSAGE_SIZE_BYTES / 2) as u64 {
            return Err(fail(Error::above("max_bytes", limits::MAX_MESSAGE_SIZE_BYTES / 2, "bytes")));
        }
        let read = move |f: &Files<'_>| {
            f.view_at(&r.checkpoint_id)?.read_lines(&path, r.start_line, r.limit, r.max_bytes)
        };
        let window = self.on_weighed(&r.session_id, read, |window| window.content.len());
        reply(window.await, |window| v1::ReadLinesResponse {
            content: window.content,
            encoding: window.encoding.into(),
            start_line: window.start_line,
            end_line: window.end_line,
            total_lines: window.total_lines,
            truncated: window.truncated,
            etag: window.etag,
        })
    }

    async fn batch_read_files(
        &self,
        r: Request<v1::BatchReadFilesRequest>,
    ) -> Reply<v1::BatchReadFilesResponse> {
        let r = r.into_inner();
        let paths = r.paths.iter().enumerate().map(|(n, text)| path(&format!("paths[{n}]"), text));
        let paths = paths.collect::<Result<Vec<_>>>().map_err(fail)?;
        let asked = r.paths;
        let read = move |f: &Files<'_>| f.view().batch_read(&paths, r.max_bytes_per_file);
        let weigh = |files: &Vec<Result<FileBytes>>| files.iter().flatten().map(|f| f.content.len()).sum();
        let read = self.on_weighed(&r.session_id, read, weigh);
        reply(read.await, |files| {
            let content = |(path, file): (String, Result<FileBytes>)| match file {
                Ok(file) => v1::FileContent { path, content: file.content, etag: file.etag, failure: None },
                Err(e) => v1::FileContent { path, failure: Some(wire::failure(&e)), ..Default::default() },
            };
            v1::BatchReadFilesResponse { files: asked.into_iter().zip(files).map(content).collect() }
        })
    }

    async fn edit_file(&self, r: Request<v1::EditFileRequest>) -> Reply<v1::EditFileResponse> {
        let r = r.into_inner();
        let (wait, by) = (waits(r.durability).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        let path = path("path", &r.path).map_err(fail)?;
        let edit = wire::file_edit(r.edits, r.precondition, r.dry_run);
        let edited = self.on(&r.session_id, move |f| f.edit_file(&path, &edit, &by)).await.map_err(fail)?;
        self.settle(wait, &edited.stamp).await.map_err(fail)?;
        Ok(Response::new(wire::edited(edited, wait)))
    }

    async fn apply_patch(&self, r: Request<v1::ApplyPatchRequest>) -> Reply<v1::ApplyPatchResponse> {
        let r = r.into_inner();
        let (wait, by) = (waits(r.durability).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        let session = r.session_id.clone();
        let patch = wire::patch(r).map_err(fail)?;
        let patched = self.on(&session, move |f| f.apply_patch(&patch, &by)).await.map_err(fail)?;
        self.settle(wait, &patched.stamp).await.map_err(fail)?;
        Ok(Response::new(wire::patched(patched, wait)))
    }

    async fn submit_changes(&self, r: Request<v1::SubmitChangesRequest>) -> Reply<v1::SubmitChangesResponse> {
        let r = r.into_inner();
        let (wait, by) = (waits(r.durability).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        let session = r.session_id.clone();
        let set = changes::change_set(r).map_err(fail)?;
        let done = self.on(&session, move |f| f.submit_changes(&set, &by)).await.map_err(fail)?;
        self.settle(wait, &done.stamp).await.map_err(fail)?;
        let entry = |(path, found): (SessionPath, Option<Entry>)| {
            found.map_or_else(|| v1::Entry { path: path.to_text(), ..Default::default() }, wire::entry)
        };
        Ok(Response::new(v1::SubmitChangesResponse {
            revision: done.revision,
            entries: done.entries.into_iter().map(entry).collect(),
            durability: level(wait),
        }))
    }

    async fn create_directory(&self, r: Request<v1::CreateDirectoryRequest>) -> Reply<MutationResponse> {
        let r = r.into_inner();
        let (path, by) =
            (path_to_change("path", &r.path).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        let mode = wire::mode("mode", r.mode).map_err(fail)?;
        self.change(&r.session_id, r.durability, move |f| f.mkdir(&path, mode, r.parents, &by)).await
    }

    async fn create_symlink(&self, r: Request<v1::CreateSymlinkRequest>) -> Reply<MutationResponse> {
        let r = r.into_inner();
        let (path, by) =
            (path_to_change("path", &r.path).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        let target = unescape(&r.target);
        self.change(&r.session_id, r.durability, move |f| f.symlink(&path, &target, &by)).await
    }

    async fn create_hard_link(&self, r: Request<v1::CreateHardLinkRequest>) -> Reply<MutationResponse> {
        let r = r.into_inner();
        let source = path("source", &r.source).map_err(fail)?;
        let (path, by) =
            (path_to_change("path", &r.path).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        self.change(&r.session_id, r.durability, move |f| f.hard_link(&source, &path, &by)).await
    }

    async fn move_path(&self, r: Request<v1::MovePathRequest>) -> Reply<MutationResponse> {
        let r = r.into_inner();
        let (from, to) = (
            path_to_change("source", &r.source).map_err(fail)?,
            path_to_change("destination", &r.destination).map_err(fail)?,
        );
        let (by, wanted) = (wire::by(&r.request_id).map_err(fail)?, wire::precondition(r.precondition));
        let overwrite = r.overwrite;
        self.change(&r.session_id, r.durability, move |f| f.move_path(&from, &to, overwrite, &wanted, &by))
            .await
    }

    async fn copy_path(&self, r: Request<v1::CopyPathRequest>) -> Reply<MutationResponse> {
        let r = r.into_inner();
        let by = wire::by(&r.request_id).map_err(fail)?;
        let destination = path_to_change("destination", &r.destination).map_err(fail)?;
        let from = CopyFrom {
            session: optional("source_session_id", &r.source_session_id, SessionId::parse).map_err(fail)?,
            path: path("source", &r.source).map_err(fail)?,
            recursive: r.recursive,
            overwrite: r.overwrite,
        };
        self.change(&r.session_id, r.durability, move |f| f.copy_path(&from, &destination, &by)).await
    }

    async fn remove_path(&self, r: Request<v1::RemovePathRequest>) -> Reply<MutationResponse> {
        let r = r.into_inner();
        let (path, by) =
            (path_to_change("path", &r.path).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        let (recursive, wanted) = (r.recursive, wire::precondition(r.precondition));
        self.change(&r.session_id, r.durability, move |f| f.remove(&path, recursive, &wanted, &by)).await
    }

    async fn set_attributes(&self, r: Request<v1::SetAttributesRequest>) -> Reply<MutationResponse> {
        let r = r.into_inner();
        let (path, by) =
            (path_to_change("path", &r.path).map_err(fail)?, wire::by(&r.request_id).map_err(fail)?);
        let (session, durability) = (r.session_id.clone(), r.durability);
        let set = wire::set_attributes(r).map_err(fail)?;
        self.change(&session, durability, move |f| f.set_attributes(&path, &set, &by)).await
    }

    async fn glob(&self, r: Request<v1::GlobRequest>) -> Reply<v1::GlobResponse> {
        let r = r.into_inner();
        let size = page_size(r.page_size).map_err(fail)?;
        let scope = search_scope(&r.path, r.respect_gitignore, r.changed_only).map_err(fail)?;
        let query = GlobQuery { pattern: r.pattern, scope };
        let (id, engine) = (id(&r.session_id).map_err(fail)?, self.0.engine.clone());
        let compares = query.scope.changed_only;
        let queues = queues::of_search(&id);
        let search = move || engine.files(&id)?.view().glob(&query, size, &r.page_token);
        let found = match compares {
            true => self.0.pool.run_comparison_of(queues, search).await,
            false => self.0.pool.run(search).await,
        };
        reply(found, |page| v1::GlobResponse {
            entries: page.entries.into_iter().map(wire::entry).collect(),
            next_page_token: page.next.unwrap_or_default(),
        })
    }

    async fn grep(&self, r: Request<v1::GrepRequest>) -> Reply<Self::GrepStream> {
        let (id, query) = grep_query(r.into_inner()).map_err(fail)?;
        let queue = query.scope.changed_only.then(|| queues::of_told(&id));
        self.stream(queue, move |engine, sink| {
            let found = engine.files(&id)?.view().grep(&query, &mut |found| {
                Ok(if sink(wire::grep_match(found)) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            });
            found.map(drop)
        })
        .await
    }
}
