//! Sources: by what name they are found, what an import of them is worth when they change meanwhile, and what outlives them.

use crate::hooks::At;
use crate::rig::{Rig, put};
use afs_session::{
    CommitInfo, CommitRequest, CreateSession, CreateSource, Engine, Fork, ImportSpec, PromoteRequest,
    SourceState,
};
use afs_store::{Batch, Journal, Space};
use afs_types::{Reason, Result, SourceId, VersionId, limits};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.invalid"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with a branch `main`, which is checked out, and a branch `dev` with one commit more.
#[derive(Clone)]
struct Repo {
    path: PathBuf,
    main: String,
    dev: String,
}

impl Repo {
    fn new(rig: &Rig, name: &str) -> Self {
        let path = rig.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        git(&path, &["init", "-q", "-b", "main"]);
        let main = commit(&path, name);
        git(&path, &["checkout", "-q", "-b", "dev"]);
        let dev = commit(&path, "dev");
        git(&path, &["checkout", "-q", "main"]);
        Self { path, main, dev }
    }

    fn at(&self, reference: &str) -> ImportSpec {
        ImportSpec::Git { url: self.path.to_str().unwrap().into(), reference: Some(reference.into()) }
    }
}

/// Changes a file on the branch that is checked out.
fn commit(path: &Path, text: &str) -> String {
    std::fs::write(path.join("f"), text).unwrap();
    git(path, &["add", "-A"]);
    git(path, &["commit", "-q", "-m", text]);
    git(path, &["rev-parse", "HEAD"])
}

fn want(id: Option<&str>, spec: ImportSpec) -> CreateSource {
    CreateSource {
        source_id: id.map(|id| SourceId::parse(id).unwrap()),
        display_name: String::new(),
        spec,
        labels: Default::default(),
        request_id: None,
    }
}

fn create(rig: &Rig, spec: ImportSpec) -> SourceId {
    rig.engine.create_source(want(None, spec)).unwrap().id
}

/// Waits until no import thread is left, also of sources that are gone.
fn settle(rig: &Rig) {
    let until = Instant::now() + MINUTE;
    while Arc::strong_count(&rig.engine) > 1 {
        assert!(Instant::now() < until, "an import does not end");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// The commit that new sessions of a source start from, when all imports have ended.
fn upstream(rig: &Rig, id: &SourceId) -> String {
    settle(rig);
    let info = rig.engine.get_source(id).unwrap();
    assert_eq!((info.state, &info.record.failure), (SourceState::Ready, &None), "{info:?}");
    let head = info.record.head.unwrap();
    let versions = rig.engine.list_versions(id, 0, None).unwrap().items;
    versions.into_iter().find(|(version, _)| *version == head).unwrap().1.upstream.unwrap()
}

fn reference(rig: &Rig, id: &SourceId) -> String {
    rig.engine.get_source(id).unwrap().record.reference.unwrap()
}

#[test]
fn a_spec_leads_to_a_source_with_exactly_this_spec() {
    let rig = Rig::new();
    let repo = Repo::new(&rig, "repo");
    let first = create(&rig, repo.at("main"));
    assert_eq!(upstream(&rig, &first), repo.main);
    rig.engine.refresh_source(&first, Some("dev".into())).unwrap();
    assert_eq!(upstream(&rig, &first), repo.dev);
    // It was main's once.
    let second = create(&rig, repo.at("main"));
    assert_ne!(second, first);
    assert_eq!((upstream(&rig, &second), reference(&rig, &second)), (repo.main.clone(), "main".into()));
    assert_eq!(create(&rig, repo.at("dev")), first, "it is found by what it is now");
    settle(&rig);
    rig.engine.delete_source(&first, false).unwrap();
    assert_eq!(create(&rig, repo.at("main")), second);
    let third = create(&rig, repo.at("dev"));
    assert!(third != first && third != second);
    assert_eq!((upstream(&rig, &third), upstream(&rig, &second)), (repo.dev, repo.main));
}

#[test]
fn a_name_goes_only_with_the_source_that_it_leads_to() {
    let rig = Rig::new();
    let repo = Repo::new(&rig, "repo");
    let (moved, other) = (create(&rig, repo.at("main")), create(&rig, repo.at("dev")));
    settle(&rig);
    // Two sources of one spec: the name stays with the first.
    rig.engine.refresh_source(&moved, Some("dev".into())).unwrap();
    assert_eq!(upstream(&rig, &moved), repo.dev);
    rig.engine.delete_source(&moved, false).unwrap();
    assert_eq!(create(&rig, repo.at("dev")), other);
    let new = create(&rig, repo.at("main"));
    assert!(new != moved && new != other, "the name of what has moved and gone leads nowhere");
    assert_eq!(upstream(&rig, &new), repo.main);
}

#[test]
fn a_name_that_leads_nowhere_is_as_good_as_none() {
    let rig = Rig::new();
    let repo = Repo::new(&rig, "repo");
    // As an earlier version left them: of a source that is gone, and of one that refers to something else.
    let dev = create(&rig, repo.at("dev"));
    settle(&rig);
    for (name, id) in [("main", "src_gone"), ("main~0", dev.as_str())] {
        let mut batch = Batch::new();
        batch.put(Space::Name, format!("spec\0git\0{}\0{name}", repo.path.display()), id);
        rig.journal.submit(batch).unwrap();
        rig.journal.sync().unwrap();
        let made = create(&rig, repo.at(name));
        assert!(made.as_str() != id, "{name}");
        assert_eq!(upstream(&rig, &made), repo.main);
        assert_eq!(create(&rig, repo.at(name)), made, "and then it leads there");
        settle(&rig);
    }
}

/// Refreshes a source, and runs `action` in the thread of the import when that has asked the source what it has, but before this has any
/// effect. The source must be from git, and have a version already.
fn during_import(rig: &Rig, id: &SourceId, action: impl FnOnce(&Arc<Engine>) + Send + 'static) {
    let (done, told) = mpsc::channel();
    let engine = rig.engine.clone();
    rig.hooks.once(At::Got(Space::Name), move || {
        action(&engine);
        drop(engine);
        done.send(()).unwrap();
    });
    rig.engine.refresh_source(id, None).unwrap();
    told.recv_timeout(MINUTE).expect("the import has not looked for a version, or the action failed");
}

#[test]
fn an_import_of_what_a_source_was_before_has_no_effect() {
    let rig = Rig::new();
    let repo = Repo::new(&rig, "repo");
    let id = create(&rig, repo.at("main"));
    // Both are known afterwards, so that the import that is disturbed would have no more to do than to say so.
    for (reference, oid) in [("dev", &repo.dev), ("main", &repo.main)] {
        settle(&rig);
        rig.engine.refresh_source(&id, Some(reference.into())).unwrap();
        assert_eq!(upstream(&rig, &id), *oid);
    }
    let source = id.clone();
    during_import(&rig, &id, move |engine| {
        engine.refresh_source(&source, Some("dev".into())).unwrap();
    });
    assert_eq!((upstream(&rig, &id), reference(&rig, &id)), (repo.dev.clone(), "dev".into()));
    // There and back again: the import that runs was stopped by then.
    let source = id.clone();
    during_import(&rig, &id, move |engine| {
        engine.refresh_source(&source, Some("main".into())).unwrap();
        engine.refresh_source(&source, Some("dev".into())).unwrap();
    });
    assert_eq!((upstream(&rig, &id), reference(&rig, &id)), (repo.dev, "dev".into()));
}

#[test]
fn a_refresh_during_an_import_sees_what_was_pushed_before_it() {
    let rig = Rig::new();
    let repo = Repo::new(&rig, "repo");
    let id = create(&rig, repo.at("main"));
    settle(&rig);
    let pushed = commit(&repo.path, "pushed");
    rig.engine.refresh_source(&id, None).unwrap();
    assert_eq!(upstream(&rig, &id), pushed);
    let set_main = |to: String| {
        let path = repo.path.clone();
        move || git(&path, &["update-ref", "refs/heads/main", &to])
    };
    // The import looks at the old commit, then the new one is pushed.
    set_main(repo.main.clone())();
    let (push, source) = (set_main(pushed.clone()), id.clone());
    during_import(&rig, &id, move |engine| {
        push();
        let runs: Vec<_> =
            (0..3).map(|_| engine.refresh_source(&source, None).unwrap().run.unwrap()).collect();
        assert!(runs[0].last > runs[0].number, "{runs:?}");
        assert_eq!((runs[1], runs[2]), (runs[0], runs[0]), "one more does for all");
    });
    // Whoever waits waits for both.
    let waited = rig.engine.wait_source(&id, MINUTE).unwrap();
    assert_eq!(waited.state, SourceState::Ready);
    assert_eq!(upstream(&rig, &id), pushed);
}

#[test]
fn an_import_that_panics_has_failed_and_takes_nothing_with_it() {
    let rig = Rig::new();
    let repo = Repo::new(&rig, "repo");
    let id = create(&rig, repo.at("main"));
    assert_eq!(upstream(&rig, &id), repo.main);
    // One more than there are places.
    for n in 0..=limits::MAX_IMPORTS {
        rig.hooks.once(At::Got(Space::Name), || panic!("as hostile data may have it"));
        rig.engine.refresh_source(&id, None).unwrap();
        let info = rig.engine.wait_source(&id, MINUTE).unwrap();
        assert!(rig.hooks.ran(), "{n}");
        assert_eq!((info.state, info.run), (SourceState::Ready, None), "{n}: {info:?}");
        assert!(info.record.failure.is_some_and(|failure| failure.reason == Reason::Internal
            && failure.message.contains("panicked")
            && failure.message.contains(id.as_str())));
    }
    rig.engine.refresh_source(&id, None).unwrap();
    assert_eq!(upstream(&rig, &id), repo.main, "the next one works as ever");
}

#[test]
fn an_import_of_a_source_that_went_has_no_effect_on_the_next_of_its_id() {
    // The import has found a known version, or is about to read a new one and then fails because it is stopped.
    for is_known in [true, false] {
        let rig = Rig::new();
        let (one, two) = (Repo::new(&rig, "one"), Repo::new(&rig, "two"));
        let id = rig.engine.create_source(want(Some("src_x"), one.at("main"))).unwrap().id;
        assert_eq!(upstream(&rig, &id), one.main);
        if !is_known {
            commit(&one.path, "more");
        }
        let (source, next) = (id.clone(), want(Some("src_x"), two.at("main")));
        during_import(&rig, &id, move |engine| {
            engine.delete_source(&source, true).unwrap();
            engine.create_source(next).unwrap();
        });
        assert_eq!(upstream(&rig, &id), two.main, "{is_known}");
        // The same, but nobody makes another one.
        let source = id.clone();
        during_import(&rig, &id, move |engine| engine.delete_source(&source, true).unwrap());
        settle(&rig);
        assert_eq!(rig.engine.get_source(&id).unwrap_err().reason, Reason::SourceNotFound);
    }
}

fn session(rig: &Rig, id: &str, source: &SourceId, version: Option<VersionId>) -> Result<()> {
    let want = CreateSession {
        session_id: Some(Rig::id(id)),
        source: Some(source.clone()),
        version,
        ..CreateSession::default()
    };
    rig.engine.create_session(want).map(drop)
}

/// Changes a file in a session, and commits.
fn work(rig: &Rig, id: &str, text: &str) -> CommitInfo {
    put(&rig.get(id), "f", text);
    let want = CommitRequest {
        session: Rig::id(id),
        message: text.into(),
        author_name: String::new(),
        author_email: String::new(),
        if_revision: None,
        allow_empty: false,
        request_id: None,
    };
    rig.engine.commit(&want).unwrap()
}

#[test]
fn sessions_of_a_deleted_source_go_on_and_commit() {
    let mut rig = Rig::new();
    let (one, two) = (Repo::new(&rig, "one"), Repo::new(&rig, "two"));
    let id = rig.engine.create_source(want(Some("src_x"), one.at("main"))).unwrap().id;
    assert_eq!(upstream(&rig, &id), one.main);
    session(&rig, "sess_a", &id, None).unwrap();
    assert_eq!(rig.engine.delete_source(&id, false).unwrap_err().reason, Reason::InUse);
    rig.engine.delete_source(&id, true).unwrap();
    let first = work(&rig, "sess_a", "first");
    // Another source of the same id has nothing to do with them.
    rig.engine.create_source(want(Some("src_x"), two.at("main"))).unwrap();
    assert_eq!(upstream(&rig, &id), two.main);
    let second = work(&rig, "sess_a", "second");
    assert_eq!(second.record.parent.as_ref(), Some(&first.id));
    rig.fork("sess_a", "sess_b");
    assert_eq!(work(&rig, "sess_b", "fork").record.parent.as_ref(), Some(&second.id));
    rig.engine.delete_source(&id, true).unwrap();
    rig = rig.restart();
    let third = work(&rig, "sess_a", "third");
    assert_eq!(third.record.parent.as_ref(), Some(&second.id));
    // What they stand on is there.
    let mirrors = rig.dir.path().join("engine/mirrors");
    let url = one.path.to_str().unwrap();
    let dirs = afs_base::ImportDirs { mirrors, temp: rig.dir.path().join("engine/temp") };
    let commits = afs_base::mirror_of(url, &dirs).unwrap().join("aether");
    let range = format!("{}..{}", one.main, third.record.oid);
    assert_eq!(git(&commits, &["rev-list", "--count", &range]), "3");
    // What needs the source says that it is gone.
    let promote = PromoteRequest { commit: third.id, branch: "b".into(), expect: None };
    assert_eq!(rig.engine.promote(&promote).err().unwrap().reason, Reason::SourceNotFound);
    assert_eq!(rig.engine.refresh_source(&id, None).unwrap_err().reason, Reason::SourceNotFound);
}

/// The versions that a source shows, which must have its newest among them.
fn versions(rig: &Rig, id: &SourceId) -> Vec<VersionId> {
    settle(rig);
    let all: Vec<_> =
        rig.engine.list_versions(id, 0, None).unwrap().items.into_iter().map(|(id, _)| id).collect();
    let head = rig.engine.get_source(id).unwrap().record.head.unwrap();
    assert!(all.contains(&head), "{all:?} {head}");
    all
}

fn promote(rig: &Rig, commit: &CommitInfo, branch: &str) -> Result<()> {
    let want = PromoteRequest { commit: commit.id.clone(), branch: branch.into(), expect: None };
    rig.engine.promote(&want).map(drop)
}

/// Back to before everything that the rig has done so far.
fn set_clock_back(rig: &Rig) {
    rig.clock.stop_at(1_600_000_000_000_000_000);
}

#[test]
fn a_source_that_has_an_id_again_has_nothing_of_the_one_before() {
    for is_clock_back in [false, true] {
        let rig = Rig::new();
        let repo = Repo::new(&rig, "repo");
        let id = rig.engine.create_source(want(Some("src_x"), repo.at("main"))).unwrap().id;
        let old = versions(&rig, &id).remove(0);
        session(&rig, "sess_a", &id, None).unwrap();
        let before = work(&rig, "sess_a", "before");
        rig.engine.delete_source(&id, true).unwrap();
        if is_clock_back {
            set_clock_back(&rig);
        }
        rig.engine.create_source(want(Some("src_x"), ImportSpec::Empty)).unwrap();
        let new = versions(&rig, &id);
        assert!(new.len() == 1 && new[0] != old, "{is_clock_back}: {new:?} {old}");
        // Whether the source is named or only its version.
        let refused = session(&rig, "sess_b", &id, Some(old.clone())).unwrap_err();
        assert_eq!(refused.reason, Reason::VersionNotFound, "{refused}");
        let by_version = CreateSession { version: Some(old), ..CreateSession::default() };
        let refused = rig.engine.create_session(by_version).map(drop).unwrap_err();
        assert_eq!(refused.reason, Reason::VersionNotFound, "{refused}");
        session(&rig, "sess_c", &id, Some(new[0].clone())).unwrap();
        assert_eq!(rig.engine.get_session(&Rig::id("sess_c")).unwrap().record.version, new[0]);
        // What stands on the one before goes on, and is not taken for a user of this one.
        let after = work(&rig, "sess_a", "after");
        for commit in [&before, &after] {
            assert_eq!(promote(&rig, commit, "b").unwrap_err().reason, Reason::SourceNotFound);
        }
        assert_eq!(rig.engine.delete_source(&id, false).unwrap_err().reason, Reason::InUse);
        rig.engine.delete_session(&Rig::id("sess_c"), false, None).unwrap();
        rig.engine.delete_source(&id, false).unwrap();
        work(&rig, "sess_a", "and on");
    }
}

#[test]
fn the_same_repository_under_the_same_id_is_imported_anew() {
    for is_clock_back in [false, true] {
        let mut rig = Rig::new();
        let repo = Repo::new(&rig, "repo");
        let mut seen = Vec::new();
        for name in ["sess_a", "sess_b", "sess_c"] {
            let id = rig.engine.create_source(want(Some("src_x"), repo.at("main"))).unwrap().id;
            assert_eq!(upstream(&rig, &id), repo.main);
            let own = versions(&rig, &id);
            assert!(own.len() == 1 && !seen.contains(&own[0]), "{is_clock_back}: {own:?} {seen:?}");
            // What it has imported itself is known.
            rig.engine.refresh_source(&id, None).unwrap();
            assert_eq!(versions(&rig, &id), own, "{is_clock_back}");
            session(&rig, name, &id, None).unwrap();
            promote(&rig, &work(&rig, name, "first"), name).unwrap();
            rig.engine.delete_source(&id, true).unwrap();
            seen.extend(own);
            if is_clock_back {
                set_clock_back(&rig);
            }
        }
        // All have the same name but their ids; each still knows its mirror.
        rig = rig.restart();
        for name in ["sess_a", "sess_b", "sess_c"] {
            let commit = work(&rig, name, "second");
            assert_eq!(promote(&rig, &commit, name).unwrap_err().reason, Reason::SourceNotFound);
        }
    }
}

#[test]
fn what_is_no_address_makes_no_source() {
    let rig = Rig::new();
    for bad in ["a\u{1}b", "ext::sh -c id", "ftp://h/x", "-x", "https://u:p w@h/x", &"x".repeat(4_097)] {
        let spec = ImportSpec::Git { url: bad.into(), reference: None };
        let error = rig.engine.create_source(want(Some("src_x"), spec)).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidArgument, "{bad:?}");
        assert!(error.metadata().contains(&("field", "spec.git.url".to_owned())), "{error:?}");
    }
    assert!(rig.engine.list_sources(0, None).unwrap().items.is_empty());
}

type Beside<T> = Arc<Mutex<Option<JoinHandle<T>>>>;

/// Enough for a call that waits for nobody.
const A_MOMENT: Duration = Duration::from_millis(300);

/// Starts a call in a thread of its own, and gives it time to end before the caller goes on. Whoever has to wait for the caller does not.
fn beside<T: Send + 'static>(slot: &Beside<T>, limit: Duration, call: impl FnOnce() -> T + Send + 'static) {
    let thread = std::thread::spawn(call);
    let until = Instant::now() + limit;
    while !thread.is_finished() && Instant::now() < until {
        std::thread::yield_now();
    }
    *slot.lock() = Some(thread);
}

fn joined<T>(slot: &Beside<T>) -> T {
    slot.lock().take().expect("the moment has not come").join().unwrap()
}

fn empty_source(rig: &Rig) -> SourceId {
    let id = rig.engine.create_source(want(Some("src_x"), ImportSpec::Empty)).unwrap().id;
    settle(rig);
    id
}

#[test]
fn a_source_is_not_deleted_under_a_session_that_is_being_made() {
    let rig = Rig::new();
    let id = empty_source(&rig);
    let deletion = Beside::default();
    let (slot, engine, source) = (deletion.clone(), rig.engine.clone(), id.clone());
    // Its version was picked, and it is not yet in the journal.
    rig.hooks.once(At::Submit(Space::Session), move || {
        beside(&slot, A_MOMENT, move || engine.delete_source(&source, false));
    });
    session(&rig, "sess_a", &id, None).unwrap();
    assert_eq!(joined(&deletion).unwrap_err().reason, Reason::InUse);
    rig.engine.get_source(&id).unwrap();
}

#[test]
fn no_session_is_made_on_a_source_that_is_being_deleted() {
    for by_version in [false, true] {
        let rig = Rig::new();
        let id = empty_source(&rig);
        let version = rig.engine.get_source(&id).unwrap().record.head.filter(|_| by_version);
        let creation = Beside::default();
        let (slot, engine, source) = (creation.clone(), rig.engine.clone(), id.clone());
        let want = CreateSession {
            source: Some(source).filter(|_| !by_version),
            version,
            ..CreateSession::default()
        };
        // Nobody was found to use it, and it is still there.
        rig.hooks.once(At::Scanned(Space::Session), move || {
            beside(&slot, A_MOMENT, move || engine.create_session(want).map(drop));
        });
        rig.engine.delete_source(&id, false).unwrap();
        assert_eq!(joined(&creation).unwrap_err().reason, Reason::SourceNotFound, "{by_version}");
    }
}

#[test]
fn a_fork_does_not_wait_for_the_deletion_of_its_source() {
    let rig = Rig::new();
    let id = empty_source(&rig);
    session(&rig, "sess_a", &id, None).unwrap();
    let (was_done, engine) = (Arc::new(Mutex::new(false)), rig.engine.clone());
    let seen = was_done.clone();
    rig.hooks.once(At::Scan(Space::Session), move || {
        let fork = Beside::default();
        beside(&fork, MINUTE, move || engine.fork(&Fork::of(Rig::id("sess_a"))).map(drop));
        *seen.lock() = fork.lock().as_ref().is_some_and(JoinHandle::is_finished);
    });
    assert_eq!(rig.engine.delete_source(&id, false).unwrap_err().reason, Reason::InUse);
    assert!(*was_done.lock());
}
