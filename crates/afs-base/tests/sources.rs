//! Sources of every kind: behind a password, broken, foreign, large, and ones that never answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use afs_base::{CommitMeta, ImportSpec, NoProgress, Progress, write_commit};
use afs_types::{Reason, SystemRng};
use common::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A web server for the files of a bare repository, which asks for `bob` and `s@cret`.
struct Web {
    address: String,
    stop: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, seen) = (stop.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                answer(stream.unwrap(), &root, &seen);
            }
        });
        Self { address, stop, requests }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.address);
    }
}

fn answer(mut stream: TcpStream, root: &Path, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
    seen.lock().unwrap().push(first.clone());
    // base64 of bob:s@cret
    let allowed = headers.iter().any(|h| h.eq_ignore_ascii_case("authorization: Basic Ym9iOnNAY3JldA=="));
    let path = first
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .split('?')
        .next()
        .unwrap_or("/")
        .trim_start_matches('/')
        .to_owned();
    let (status, body) = match (allowed, fs::read(root.join(path))) {
        (false, _) => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", Vec::new()),
        (true, Ok(body)) => ("200 OK", body),
        (true, Err(_)) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

#[test]
fn credentials_reach_the_host_and_nothing_else() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let file = format!("file://{}", repo.url());
    git(world.dir.path(), &["clone", "-q", "--bare", &file, "web/x.git"]);
    git(&world.path("web/x.git"), &["update-server-info"]);
    let web = Web::start(world.path("web"));
    let url = format!("http://bob:s%40cret@{}/x.git", web.address);
    let spec = ImportSpec::Git { url, reference: Some("main".into()) };
    let imported = world.import(&spec).unwrap();
    assert_eq!(imported.upstream, Some(repo.head()));
    // Where no repository can be asked, an expression is refused with the way to its commit.
    let fresh = World::new();
    for (text, wanted) in [("main~1", "git rev-parse"), ("v1^{}", "git rev-parse"), ("nope", "is none")] {
        let url = format!("http://bob:s%40cret@{}/x.git", web.address);
        let spec = ImportSpec::Git { url, reference: Some(text.into()) };
        let said = afs_base::resolve(&spec, &fresh.dirs).unwrap_err();
        assert!(
            said.reason == Reason::InvalidArgument && said.message().contains(wanted),
            "{text}: {said:?}"
        );
    }
    let table = table_of(&imported);
    let config = world.content(&find(&table, ".git/config").unwrap());
    let config = String::from_utf8(config).unwrap();
    assert!(config.contains(&format!("url = \"http://{}/x.git\"", web.address)), "{config}");
    // Nothing on disk knows the password.
    for what in ["s@cret", "s%40cret"] {
        let found = std::process::Command::new("grep")
            .args(["-rlaF", what])
            .arg(world.path("data"))
            .output()
            .unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
    // Without it, or with another, nobody gets in, and not through the mirror either.
    for url in [format!("http://{}/x.git", web.address), format!("http://bob:wr0ngpw@{}/x.git", web.address)]
    {
        for reference in ["main".to_owned(), repo.head()] {
            let error =
                world.import(&ImportSpec::Git { url: url.clone(), reference: Some(reference) }).unwrap_err();
            assert_eq!(error.reason, Reason::SourceUnavailable, "{error:?}");
            assert!(!format!("{error:?}{:?}", error.metadata()).contains("wr0ngpw"), "{error:?}");
        }
    }
    assert!(web.requests.lock().unwrap().len() > 4);
}

struct Until(Instant);

impl Progress for Until {
    fn update(&self, _: &str, _: u64, _: Option<u64>) {}
    fn cancelled(&self) -> bool {
        Instant::now() > self.0
    }
}

#[test]
fn a_source_that_never_answers_can_be_cancelled() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for scheme in ["git", "http"] {
        let spec = ImportSpec::Git { url: format!("{scheme}://{address}/x.git"), reference: None };
        let start = Instant::now();
        let progress = Until(start + Duration::from_millis(300));
        let error =
            afs_base::import(&spec, &world.dirs, &world.blobs, &SystemRng, NOW_NS, &progress).unwrap_err();
        assert_eq!(error.reason, Reason::Unavailable, "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn other_object_names_and_missing_objects_are_said() {
    let world = World::new();
    let other = world.path("sha256");
    fs::create_dir(&other).unwrap();
    git(&other, &["init", "-q", "--object-format=sha256"]);
    git(&other, &["commit", "-q", "--allow-empty", "-m", "x"]);
    let spec = ImportSpec::Git { url: other.to_str().unwrap().into(), reference: None };
    let error = world.import(&spec).unwrap_err();
    assert_eq!(error.reason, Reason::Unsupported);
    let (said, next) = (error.message(), error.next_step());
    assert!(
        said.contains("not supported yet") && next.contains("SHA-1") && next.contains("--local"),
        "{error}: {next}"
    );
    let repo = Repo::rich(world.path("repo"));
    let blob = repo.rev("HEAD:README.md");
    fs::remove_file(repo.path.join(".git/objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let error = world.import_git(&repo, None).unwrap_err();
    assert_eq!(error.reason, Reason::SourceUnavailable, "{error:?}");
    assert!(error.message().contains(&blob), "{error:?}");
    assert!(error.message().contains("damaged") && !error.message().contains("partial"), "{error:?}");
    assert!(error.next_step().contains("git fsck"), "{}", error.next_step());
}

#[test]
fn a_repository_of_another_user_is_imported() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let head = repo.head();
    let chown =
        std::process::Command::new("chown").args(["-R", "1234:1234"]).arg(&repo.path).status().unwrap();
    assert!(chown.success());
    assert!(!try_git(&repo.path, &["status"]).status.success(), "git by itself refuses it");
    assert_eq!(world.import_git(&repo, None).unwrap().upstream, Some(head.clone()));
    assert!(afs_base::resolve(&repo.spec(Some("main~0")), &world.dirs).unwrap().starts_with(&head));
}

#[test]
fn blobs_that_do_not_fit_into_memory_are_streamed() {
    let world = World::new();
    let repo = Repo::new(world.path("repo"));
    let len = (64 << 20) + 12_345;
    let mut bytes = vec![0u8; len];
    bytes[len - 1] = 7;
    repo.write("huge", &bytes);
    repo.write("small", b"small");
    repo.commit_all("huge");
    let imported = world.import_git(&repo, None).unwrap();
    let table = table_of(&imported);
    let huge = find(&table, "huge").unwrap();
    assert_eq!(huge.size, len as u64);
    let tail = world.blobs.read(&huge.blob.unwrap(), len as u64 - 2, 10).unwrap();
    assert_eq!(&tail[..], [0, 7]);
}

#[test]
fn many_small_packs_become_few() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let mut last = None;
    for i in 0..28 {
        repo.write("counter", i.to_string().as_bytes());
        repo.commit_all("count");
        last = Some(world.import_git(&repo, None).unwrap().git.unwrap());
    }
    let base = last.unwrap();
    let packs = |dir: PathBuf| {
        fs::read_dir(dir)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "pack"))
            .count()
    };
    assert!(packs(base.mirror.join("objects/pack")) < 26);
    // The same for commits of sessions, which no reference reaches.
    let mut tip = base.head_oid.clone();
    let mut all = vec![tip.clone()];
    for i in 0..90 {
        let meta = CommitMeta {
            message: i.to_string(),
            author_name: "a".into(),
            author_email: "a@b".into(),
            time_ns: i,
        };
        tip = write_commit(&base.mirror, &tip, std::slice::from_ref(&tip), std::iter::empty(), meta)
            .unwrap()
            .oid;
        all.push(tip.clone());
    }
    let commits = base.mirror.join("aether");
    assert!(packs(commits.join("objects/pack")) <= 42);
    assert_eq!(git(&commits, &["rev-list", "--count", &format!("{}..{tip}", base.head_oid)]), "90");
    assert!(all.iter().all(|oid| git(&commits, &["cat-file", "-t", oid]) == "commit"));
}

#[test]
fn commits_may_be_written_at_once() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let base = world.import_git(&repo, None).unwrap().git.unwrap();
    let written = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (base, written) = (&base, &written);
            scope.spawn(move || {
                for i in 0..20 {
                    let meta = CommitMeta {
                        message: format!("{thread} {i}"),
                        author_name: "a".into(),
                        author_email: "a@b".into(),
                        time_ns: 0,
                    };
                    let parents = [base.head_oid.clone()];
                    write_commit(&base.mirror, &base.head_oid, &parents, std::iter::empty(), meta).unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(written.load(Ordering::Relaxed), 80);
    let objects =
        git(&base.mirror.join("aether"), &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]);
    assert_eq!(objects.lines().filter(|l| *l == "commit").count(), 81);
}

#[test]
fn nobody_else_is_asked_when_the_commit_is_known() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let first = world.import_git(&repo, None).unwrap();
    let head = first.upstream.unwrap();
    let mirror = first.git.unwrap().mirror;
    fs::rename(&repo.path, world.path("away")).unwrap();
    assert_eq!(afs_base::mirror_of(&repo.url(), &world.dirs).unwrap(), mirror);
    let spec = repo.spec(Some(&head));
    let start = Instant::now();
    assert!(afs_base::resolve(&spec, &world.dirs).unwrap().starts_with(&head));
    assert!(start.elapsed() < Duration::from_millis(100));
    afs_base::import(&spec, &world.dirs, &world.blobs, &SystemRng, NOW_NS, &NoProgress).unwrap();
}

/// Packs of a local source were hard links in the mirror: its owner could cut them off under the server's map, or change what commits stand on.
#[test]
fn what_the_owner_of_a_source_does_to_its_packs_does_not_reach_the_mirror() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    git(&repo.path, &["repack", "-a", "-d", "-q"]);
    let head = repo.head();
    let table = table_of(&world.import_git(&repo, None).unwrap());
    let want = world.content(&find(&table, "big.bin").unwrap());
    let mirror = afs_base::mirror_of(&repo.url(), &world.dirs).unwrap();
    let theirs = pack_files(&repo.path.join(".git/objects/pack"));
    let ours = pack_files(&mirror.join("objects/pack"));
    assert!(theirs.len() >= 2, "{theirs:?}");
    for path in &theirs {
        let copy = ours.iter().find(|ours| ours.file_name() == path.file_name()).unwrap();
        let (a, b) = (fs::metadata(path).unwrap(), fs::metadata(copy).unwrap());
        assert_eq!(fs::read(path).unwrap(), fs::read(copy).unwrap());
        assert_ne!((a.dev(), a.ino()), (b.dev(), b.ino()), "{}", copy.display());
        assert_eq!(a.nlink(), 1, "somebody else has a name of the owner's file");
    }
    // One file is written over in place, another cut off.
    for (n, path) in theirs.iter().enumerate() {
        fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        match n % 2 {
            0 => file.set_len(16).unwrap(),
            _ => file.write_all_at(&[0; 512], 0).unwrap(),
        }
    }
    assert_eq!(git(&mirror, &["fsck", "--no-dangling"]), "");
    let again = table_of(&world.import(&repo.spec(Some(&head))).unwrap());
    assert_eq!(world.content(&find(&again, "big.bin").unwrap()), want);
    let meta =
        CommitMeta { message: "m".into(), author_name: "a".into(), author_email: "a@b".into(), time_ns: 0 };
    write_commit(&mirror, &head, std::slice::from_ref(&head), std::iter::empty(), meta).unwrap();
}

fn pack_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "pack" || e == "idx" || e == "rev"));
    files.sort();
    files
}

#[test]
fn a_pack_that_is_no_regular_file_is_refused() {
    for kind in ["link", "pipe", "directory"] {
        let world = World::new();
        let repo = Repo::rich(world.path("repo"));
        git(&repo.path, &["repack", "-a", "-d", "-q"]);
        let odd = repo.path.join(".git/objects/pack/pack-1234567890123456789012345678901234567890.pack");
        match kind {
            "link" => std::os::unix::fs::symlink("/etc/passwd", &odd).unwrap(),
            "pipe" => rustix::fs::mknodat(
                rustix::fs::CWD,
                &odd,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap(),
            _ => fs::create_dir(&odd).unwrap(),
        }
        let error = world.import_git(&repo, None).expect_err(kind);
        assert_eq!(error.reason, Reason::HostileTree, "{kind}: {error:?}");
        assert!(error.message().contains("pack-1234567890"), "{kind}: {error:?}");
    }
}

#[test]
fn a_base_has_one_name_before_and_after_its_import() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    git(&repo.path, &["branch", "side/branch"]);
    let head = repo.head();
    for reference in [None, Some("main"), Some("side/branch"), Some("main~0"), Some(head.as_str())] {
        let said = afs_base::resolve(&repo.spec(reference), &world.dirs).unwrap();
        let base = world.import_git(&repo, reference).unwrap().git.unwrap();
        assert_eq!(base.identity(), said, "{reference:?}");
        // The mirror is found by it, whoever knows the source's address or not.
        assert_eq!(afs_base::mirror_of_identity(&said, &world.dirs), Some(base.mirror));
    }
    assert_eq!(afs_base::mirror_of_identity("", &world.dirs), None);
    assert_eq!(afs_base::mirror_of_identity("x y ../../etc", &world.dirs), None);
}

#[test]
fn a_partial_clone_is_said_to_be_one_and_what_its_error_says_helps() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    git(&repo.path, &["config", "uploadpack.allowFilter", "true"]);
    let file = format!("file://{}", repo.url());
    let partial = |name: &str| {
        git(world.dir.path(), &["clone", "-q", "--filter=blob:none", "--no-checkout", &file, name]);
        world.path(name)
    };
    let spec = |path: &Path| ImportSpec::Git { url: path.to_str().unwrap().into(), reference: None };
    let path = partial("partial");
    // Here only the marks beside the packs are left to say it.
    let marked = partial("marked");
    git(&marked, &["config", "--unset", "remote.origin.promisor"]);
    assert!(!try_git(&marked, &["config", "--get-regexp", "promisor|partialclone$"]).status.success());
    for path in [&path, &marked] {
        let error = world.import(&spec(path)).unwrap_err();
        assert_eq!(error.reason, Reason::WrongState, "{error:?}");
        assert!(error.message().contains("is a partial clone"), "{error:?}");
        assert!(error.next_step().contains("fetch --refetch --no-filter"), "{}", error.next_step());
    }
    git(&path, &["fetch", "-q", "--no-auto-maintenance", "--refetch", "--no-filter"]);
    assert_eq!(world.import(&spec(&path)).unwrap().upstream, Some(repo.head()));
}
