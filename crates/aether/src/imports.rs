//! Making a source from what the user named, and waiting for its import with progress on a terminal.

use crate::context::{Context, Import};
use crate::failure::describe;
use crate::output::shown;
use crate::text;
use crate::values::split_ref;
use afs_client::{api, timestamp_ns};
use afs_types::{Clock, Error, Reason, Result, SystemClock};
use api::source_spec::Spec;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to import. Exactly one.
#[derive(Args, Clone)]
#[group(required = true, multiple = false)]
pub(crate) struct From {
    /// Git repository, a path or anything `git` reaches, and a branch, tag or commit
    #[arg(long, value_name = "REPOSITORY[@REF]")]
    git: Option<String>,
    /// Directory on the server's machine
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,
    /// One empty directory
    #[arg(long)]
    empty: bool,
}

impl From {
    /// As the API wants it. Local paths become absolute: the server has another working directory.
    pub(crate) fn spec(&self) -> Result<api::SourceSpec> {
        let spec = match (&self.git, &self.local) {
            (Some(git), _) => {
                // A directory whose own name has an `@` is no ref.
                let (url, reference) =
                    if Path::new(git).exists() { (git.as_str(), None) } else { split_ref(git) };
                if reference.is_none() && git.ends_with('@') && !Path::new(git).exists() {
                    let want =
                        format!("a branch, tag or commit behind the @, or no @: the ref of {git:?} is empty");
                    return Err(Error::invalid("git", want));
                }
                let url = match Path::new(url).exists() {
                    true => absolute(Path::new(url))?,
                    false => url.to_owned(),
                };
                Spec::Git(api::GitSpec { url, r#ref: reference.unwrap_or_default().to_owned() })
            }
            (None, Some(dir)) => Spec::Local(api::LocalSpec { path: absolute(dir)? }),
            (None, None) => {
                debug_assert!(self.empty, "clap asks for exactly one");
                Spec::Empty(api::EmptySpec {})
            }
        };
        Ok(api::SourceSpec { spec: Some(spec) })
    }

    /// For a command that has more choices of its own.
    pub(crate) fn new(git: Option<String>, local: Option<PathBuf>) -> Self {
        Self { git, local, empty: false }
    }
}

fn absolute(path: &Path) -> Result<String> {
    let resolved = path.canonicalize().map_err(|e| {
        Error::new(Reason::NotFound, format!("{}: {e}", path.display())).next("check the path")
    })?;
    resolved
        .into_os_string()
        .into_string()
        .map_err(|p| Error::invalid("path", format!("text; {} is not UTF-8", p.display())))
}

/// How to name a source.
#[derive(Default)]
pub(crate) struct Naming {
    pub(crate) source_id: String,
    pub(crate) display_name: String,
    pub(crate) labels: Vec<(String, String)>,
}

/// Makes a source, or finds the one with the same spec and refreshes it.
pub(crate) async fn create(cx: &Context, from: &From, naming: Naming) -> Result<api::Source> {
    let request = api::CreateSourceRequest {
        source_id: naming.source_id,
        display_name: naming.display_name,
        spec: Some(from.spec()?),
        labels: naming.labels.into_iter().collect(),
        request_id: String::new(),
    };
    cx.client()?.create_source(request).await
}

/// The source of a session that is made at once. One that was made for it and cannot be imported is deleted again: nobody has asked for a source,
/// and a mistyped name would leave one behind each time.
pub(crate) async fn of_session(cx: &Context, from: &From) -> Result<api::Source> {
    let before_ns = SystemClock.now_ns();
    let source = create(cx, from, Naming::default()).await?;
    let is_new = is_new(&source, before_ns);
    let source_id = source.source_id.clone();
    match finish(cx, source).await {
        Err(error) if is_new && error.metadata().iter().any(|(key, _)| *key == FAILED) => {
            match delete_failed(cx, source_id).await {
                Ok(true) => Err(without_source(&error)),
                // Somebody else uses it, or imports it again; or nobody could be asked.
                Ok(false) | Err(_) => Err(error),
            }
        }
        ended => ended,
    }
}

/// Whether the call that gave this answer, and not somebody before, has made the source. Of a server whose clock is behind all sources seem to be
/// old: then one is left behind.
fn is_new(source: &api::Source, before_ns: i64) -> bool {
    let is_bare =
        source.head_version_id.is_empty() && source.display_name.is_empty() && source.labels.is_empty();
    let made_ns = source.create_time.as_ref().and_then(|made| timestamp_ns("create_time", made).ok());
    is_bare && made_ns.is_some_and(|made| made >= before_ns)
}

/// Deletes a source that has no version and imports nothing now; false if it is not so.
async fn delete_failed(cx: &Context, source_id: String) -> Result<bool> {
    let client = cx.client()?;
    let request = api::GetSourceRequest { source_id: source_id.clone(), ..Default::default() };
    let now = client.get_source(request).await?;
    if now.state() != api::ResourceState::Failed || !now.head_version_id.is_empty() {
        return Ok(false);
    }
    client.delete_source(api::DeleteSourceRequest { source_id, force: false }).await?;
    Ok(true)
}

/// The same error without the source, which is gone, and without the advice to refresh it.
fn without_source(error: &Error) -> Error {
    let next = match error.reason {
        Reason::InvalidArgument => "correct it and run the command again",
        reason if error.next_step().contains("aether source") => reason.next_step(),
        _ => error.next_step().trim_end_matches("; then refresh the source"),
    };
    Error::new(error.reason, error.message()).next(next)
}

/// For somebody who interrupts a command: its import does not end with it.
pub(crate) fn say_that_it_goes_on(cx: &Context) {
    let Some(Import { source_id, is_first }) = cx.going_on.get() else { return };
    let look = format!("aether source show {source_id}");
    let stop = format!("aether source delete {source_id}");
    let what = format!("interrupted; the import of {source_id} goes on at the server");
    if cx.out.json {
        let next = if is_first { format!("{look}; to stop it: {stop}") } else { look };
        let problem = Error::new(Reason::Unavailable, what).with("source_id", source_id).next(next);
        return cx.out.complain(&describe(&problem, true, &cx.out.talk_style));
    }
    let stop = if is_first { format!("\nto stop it: {stop}") } else { String::new() };
    cx.out.remark(&format!("{what}\nlook at it: {look}{stop}"));
}

/// Metadata of an error that is the end of an import, not of the waiting for it.
const FAILED: &str = "source_id";

/// Waits for the end of what the call that gave this answer has asked for.
pub(crate) async fn finish(cx: &Context, mut source: api::Source) -> Result<api::Source> {
    let client = cx.client()?;
    let bar = bar(cx);
    // From call to call it is the same import that is waited for, whatever others ask for meanwhile: who refreshes steadily holds nobody.
    let import_number = source.import_number;
    // Progress is worth a look every second.
    let step = if bar.is_hidden() { cx.timeout.as_secs().saturating_sub(5).clamp(1, 60) as u32 } else { 1 };
    while source.state() == api::ResourceState::Running {
        show(&bar, source.progress.as_ref());
        let source_id = source.source_id.clone();
        let is_first = source.head_version_id.is_empty();
        cx.going_on.set(Some(Import { source_id: source_id.clone(), is_first }));
        let request = api::GetSourceRequest { source_id, wait_seconds: step, import_number };
        source = client.get_source(request).await?;
    }
    cx.going_on.set(None);
    bar.finish_and_clear();
    match source.failure.take() {
        Some(failure) => Err(failed(&source, failure)),
        None => Ok(source),
    }
}

fn failed(source: &api::Source, failure: api::Failure) -> Error {
    let reason = Reason::from_wire(&failure.reason).unwrap_or(Reason::Internal);
    let error = Error::new(reason, failure.message).with(FAILED, source.source_id.clone());
    match failure.next_steps.into_iter().next() {
        Some(step) => error.next(step),
        None => error,
    }
}

fn bar(cx: &Context) -> ProgressBar {
    let is_wanted = cx.out.talk_is_terminal && !cx.out.quiet && !cx.out.json;
    let target = if is_wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    // Also gone from the terminal when the command is interrupted.
    let bar = ProgressBar::with_draw_target(None, target).with_finish(ProgressFinish::AndClear);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// The unit of a progress that counts them.
const BYTES: &str = "bytes";

/// `storing files: 1.5 GiB`.
pub(crate) fn progress_text(progress: &api::Progress) -> String {
    let number = |count: u64| match progress.unit == BYTES {
        true => text::bytes(count),
        false => count.to_string(),
    };
    let total = if progress.total > 0 { format!(" of {}", number(progress.total)) } else { String::new() };
    let unit = if progress.unit == BYTES { "" } else { &progress.unit };
    format!("{}: {}{total} {unit}", progress.message, number(progress.done)).trim_end().to_owned()
}

fn show(bar: &ProgressBar, progress: Option<&api::Progress>) {
    let Some(progress) = progress else { return };
    let is_bytes = progress.unit == BYTES;
    let template = match progress.total {
        0 if is_bytes => "{spinner} {msg} {binary_bytes} ({binary_bytes_per_sec}, {elapsed})",
        _ if is_bytes => "{spinner} {msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} ({elapsed})",
        0 => "{spinner} {msg} {human_pos} {prefix} ({elapsed})",
        _ => "{spinner} {msg} [{bar:30}] {human_pos}/{human_len} {prefix} ({elapsed})",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    match progress.total {
        0 => bar.unset_length(),
        total => bar.set_length(total),
    }
    bar.set_position(progress.done);
    bar.set_prefix(shown(&progress.unit));
    bar.set_message(match progress.message.is_empty() {
        true => "importing".to_owned(),
        false => shown(&progress.message),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use afs_client::Timestamp;

    #[test]
    fn only_a_source_that_was_just_made_is_new() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 5 });
        let source = |made| api::Source { create_time: at(made), ..api::Source::default() };
        let before = 100_000_000_005;
        assert!(is_new(&source(100), before) && is_new(&source(101), before));
        assert!(!is_new(&source(99), before) && !is_new(&api::Source::default(), before));
        let failed_at_once = api::Source { failure: Some(api::Failure::default()), ..source(100) };
        assert!(is_new(&failed_at_once, before));
        let ready = api::Source { head_version_id: "ver_a".into(), ..source(100) };
        let named = api::Source { display_name: "mine".into(), ..source(100) };
        assert!(!is_new(&ready, before) && !is_new(&named, before));
    }

    #[test]
    fn progress_for_people() {
        let progress = |done, total, unit: &str| {
            progress_text(&api::Progress { done, total, unit: unit.into(), message: "storing files".into() })
        };
        assert_eq!(progress(3 << 29, 0, "bytes"), "storing files: 1.5 GiB");
        assert_eq!(progress(5, 9, ""), "storing files: 5 of 9");
        assert_eq!(progress(5, 0, "objects"), "storing files: 5 objects");
    }
}
