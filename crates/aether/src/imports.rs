//! Making a source from what the user named, and waiting for its import with progress on a terminal.

use crate::context::Context;
use crate::output::shown;
use crate::values::split_ref;
use afs_client::api;
use afs_types::{Error, Reason, Result};
use api::source_spec::Spec;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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
        let request = api::GetSourceRequest { source_id, wait_seconds: step, import_number };
        source = client.get_source(request).await?;
    }
    bar.finish_and_clear();
    match source.failure.take() {
        Some(failure) => Err(failed(&source, failure)),
        None => Ok(source),
    }
}

fn failed(source: &api::Source, failure: api::Failure) -> Error {
    let reason = Reason::from_wire(&failure.reason).unwrap_or(Reason::Internal);
    let error = Error::new(reason, failure.message).with("source_id", source.source_id.clone());
    match failure.next_steps.into_iter().next() {
        Some(step) => error.next(step),
        None => error,
    }
}

fn bar(cx: &Context) -> ProgressBar {
    let is_wanted = cx.out.talk_is_terminal && !cx.out.quiet && !cx.out.json;
    let target = if is_wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn show(bar: &ProgressBar, progress: Option<&api::Progress>) {
    let Some(progress) = progress else { return };
    let template = match progress.total {
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
