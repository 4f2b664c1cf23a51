//! `git status` in a mount: git asks the mount what changed instead of looking everywhere, and must never be told too little. The
//! oracle is the same git in the same directory without that help.

use crate::bed::{eventually, sh};
use crate::real::{Real, repository};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The versions of git on this machine; Debian 12 has 2.39.
fn gits() -> Vec<PathBuf> {
    let all = ["/usr/local/bin/git", "/usr/bin/git"].map(PathBuf::from);
    let known: Vec<PathBuf> = all.into_iter().filter(|git| git.exists()).collect();
    if known.is_empty() { vec!["git".into()] } else { known }
}

fn run(git: &Path, dir: &Path, args: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["-k", "2", "60"])
        .arg(git)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.invalid"])
        .args(args)
        .current_dir(dir)
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "git {args:?} in {}: {said}", dir.display());
    String::from_utf8(output.stdout).unwrap()
}

fn status(git: &Path, dir: &Path) -> String {
    run(git, dir, &["status", "--porcelain"])
}

/// Looks at every file, and leaves the index alone.
fn truth(git: &Path, dir: &Path) -> String {
    let without = ["-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false"];
    run(git, dir, &[&["--no-optional-locks"][..], &without, &["status", "--porcelain"]].concat())
}

#[test]
fn mount_git_status_in_a_fresh_fork_looks_at_nothing() {
    let real = Real::start();
    let repo = repository(&real.bed.path("repo"), 60);
    let session = real.session(Some(&repo));
    for git in gits() {
        let fork = real.fork(&session);
        let dir = real.dir(&fork);
        assert_eq!(status(&git, &dir), "");
        let remote = real.remote(&real.fork(&session));
        assert_eq!(status(&git, &remote), "");
        let out = run(&git, &dir, &["ls-files", "-f"]);
        // Lower case: git believes that the entry is unchanged without a look.
        let valid = out.lines().filter(|line| line.starts_with('h')).count();
        assert_eq!(valid, out.lines().count(), "{out}");
        fs::write(dir.join("run.sh"), "changed\n").unwrap();
        fs::write(dir.join("pkg-1/new"), "").unwrap();
        assert_eq!(status(&git, &dir), " M run.sh\n?? pkg-1/new\n");
    }
}

#[test]
fn mount_questions_are_files_that_nobody_sees() {
    let real = Real::start();
    let session = real.session(Some(&repository(&real.bed.path("repo"), 3)));
    for dir in [real.dir(&session), real.remote(&session)] {
        let ask = |instant: &str| fs::read_to_string(dir.join(format!(".aether-since-{instant}"))).unwrap();
        let everything = ask("nobody-knows");
        let now = everything.strip_suffix("\0/\0").unwrap_or_else(|| panic!("{everything:?}")).to_owned();
        assert_eq!(ask(&now), format!("{now}\0"));
        fs::write(dir.join("pkg-0/mod-0/file-1.txt"), "x").unwrap();
        fs::create_dir(dir.join("dir")).unwrap();
        let told = ask(&now);
        let mut words: Vec<&str> = told.split_terminator('\0').collect();
        let next = words.remove(0);
        words.sort_unstable();
        assert_eq!(words, ["dir", "pkg-0/mod-0/file-1.txt"]);
        assert_eq!(ask(next), format!("{next}\0"));
        let seen: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!seen.iter().any(|name| name.to_string_lossy().contains("since")), "{seen:?}");
        // Elsewhere, and for other names, it is a name like any other.
        assert!(!dir.join("pkg-0/.aether-since-x").exists() && !dir.join(".aether-since-").exists());
        assert!(fs::write(dir.join(format!(".aether-since-{now}")), "x").is_err());
        sh(&dir, "rm -r dir; git checkout -q .");
    }
}

/// Whoever changes a session: its own mount, another one, the API.
struct Hands {
    dirs: [PathBuf; 2],
    session: String,
}

impl Hands {
    fn change(&self, real: &Real, roll: &mut impl FnMut(usize) -> usize) {
        let at = |roll: &mut dyn FnMut(usize) -> usize| {
            let (dir, file) = (roll(12), roll(5));
            format!("pkg-{}/mod-{dir}/file-{file}.txt", dir % 7)
        };
        let dir = &self.dirs[roll(2)];
        let path = at(roll);
        let place = format!("{}:/{path}", self.session);
        match roll(11) {
            0 | 1 => drop(fs::write(dir.join(&path), format!("{}\n", roll(1000)))),
            2 => drop(fs::remove_file(dir.join(&path))),
            3 => drop(fs::rename(dir.join(&path), dir.join(at(roll)))),
            4 => {
                let (a, b) = (format!("pkg-{}", roll(7)), format!("pkg-{}", roll(9)));
                drop(fs::rename(dir.join(a), dir.join(b)));
            }
            5 => {
                let new = dir.join(format!("pkg-{}/new-{}", roll(7), roll(3)));
                drop(fs::create_dir_all(&new).and_then(|()| fs::write(new.join("f"), "x")));
            }
            6 => drop(fs::remove_dir_all(dir.join(format!("pkg-{}/new-{}", roll(7), roll(3))))),
            7 => drop(fs::write(
                dir.join(format!("pkg-{}/.gitignore", roll(7))),
                format!("new-{}/\n", roll(3)),
            )),
            8 => drop(real.bed.try_run(&["fs", "rm", &place])),
            9 => {
                fs::write(real.bed.path("input"), format!("{}\n", roll(1000))).unwrap();
                drop(real.bed.try_run(&["fs", "put", real.bed.path("input").to_str().unwrap(), &place]));
            }
            _ => {
                let args = [
                    &["add", "-A"][..],
                    &["stash", "-q"],
                    &["checkout", "-q", "."],
                    &["commit", "-qam", "x"],
                ];
                let mut git = Command::new("git");
                git.args(["-c", "user.name=T", "-c", "user.email=t@example.invalid"]).args(args[roll(4)]);
                git.current_dir(dir).output().unwrap(); // nothing to stash or commit is no failure here
            }
        }
    }
}

#[test]
fn mount_git_status_is_right_whoever_changes_what() {
    let real = Real::start();
    let repo = repository(&real.bed.path("repo"), 12);
    let mut session = real.session(Some(&repo));
    let mut dice: u64 = 0x5851_f42d_4c95_7f2d;
    let mut roll = move |n: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % n
    };
    let gits = gits();
    for round in 0..6 {
        let hands = Hands { dirs: [real.dir(&session), real.remote(&session)], session: session.clone() };
        let mut checkpoint = None;
        for step in 0..25 {
            for _ in 0..1 + roll(3) {
                hands.change(&real, &mut roll);
            }
            if step == 8 {
                let made = real.bed.json(&["checkpoint", "create", &session]);
                checkpoint = made["checkpoint_id"].as_str().map(str::to_owned);
            }
            if step == 16 {
                let args = ["checkpoint", "restore", &session, checkpoint.as_deref().unwrap()];
                real.bed.run(&args);
            }
            let git = &gits[roll(gits.len())];
            let dir = &hands.dirs[roll(2)];
            // The other mount hears of a change a moment later; git then must say the same in both.
            let seen = status(git, dir);
            let wanted = truth(git, dir);
            assert_eq!(seen, wanted, "round {round}, step {step}, {} in {}", git.display(), dir.display());
        }
        real.bed.run(&["unmount", hands.dirs[1].to_str().unwrap()]);
        session = real.fork(&session);
        assert_eq!(
            status(&gits[0], &real.dir(&session)),
            truth(&gits[0], &real.dir(&session)),
            "round {round}"
        );
    }
}

#[test]
fn mount_git_asks_again_after_a_restart_of_the_server() {
    let mut real = Real::start();
    let session = real.session(Some(&repository(&real.bed.path("repo"), 10)));
    let git = &gits()[0];
    let remote = real.remote(&session);
    fs::write(real.dir(&session).join("run.sh"), "one\n").unwrap();
    run(git, &real.dir(&session), &["add", "-A"]); // the index now names an instant of this start
    assert_eq!(status(git, &real.dir(&session)), "M  run.sh\n");
    fs::write(real.dir(&session).join("link2"), "x").unwrap();
    real.restart();
    for dir in [real.dir(&session), remote] {
        eventually("the mount is there again", || dir.join(".git").exists());
        assert_eq!(status(git, &dir), "M  run.sh\n?? link2\n");
    }
}

/// All files of a base have one modification time: what tells that they changed places is all else that git compares.
#[test]
fn mount_git_sees_files_of_the_same_size_that_change_places() {
    let real = Real::start();
    let repo = repository(&real.bed.path("repo"), 2);
    sh(
        &repo,
        "mkdir -p p q && echo aaaa >p/x && echo bbbb >p/y && echo cccc >q/z && git add -A && git commit -qm same",
    );
    let session = real.session(Some(&repo));
    for script in [
        "mv p/x t && mv p/y p/x && mv t p/y",
        "cp -p p/x p/y",
        "mv p/x p/y",
        "mv q/z p/x",
        "mv p t && mv q p && mv p/z p/x && mv t q",
        "rsync -a p/x q/z 2>/dev/null || cp -p p/x q/z",
    ] {
        let native = real.bed.path("native");
        sh(&repo, &format!("rm -rf {0} && cp -a . {0}", native.display()));
        sh(&native, script);
        for git in gits() {
            let want = status(&git, &native);
            assert!(!want.is_empty(), "{script}");
            for dir in [real.dir(&real.fork(&session)), real.remote(&real.fork(&session))] {
                assert_eq!(status(&git, &dir), "");
                sh(&dir, script);
                assert_eq!(status(&git, &dir), want, "{script} in {}", dir.display());
                run(&git, &dir, &["add", "-A"]);
                assert_eq!(
                    run(&git, &dir, &["diff", "--cached", "--name-only"]).is_empty(),
                    want.is_empty(),
                    "{script}"
                );
            }
        }
    }
}
