//! Ordinary tools leave the same tree in a mount as on the disk: the same script runs, at the same path, on the file system of this
//! machine, in the server's mount and in a mount over the wire.

use crate::bed::sh;
use crate::real::Real;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether times are part of what a tool promises.
#[derive(Clone, Copy, PartialEq)]
enum Times {
    Compared,
    Ignored,
}

/// Runs a script in all three places and compares what it says and leaves. `skip` names what may differ.
fn same_everywhere(real: &Real, script: &str, times: Times, skip: &[&str]) {
    let disk = real.bed.path("disk");
    fs::create_dir(&disk).unwrap();
    let (mine, other) = (real.session(None), real.session(None));
    let places = [("disk", disk), ("server's mount", real.dir(&mine)), ("remote mount", real.remote(&other))];
    let here = real.bed.path("here");
    fs::create_dir(&here).unwrap();
    let mut wanted: Option<(String, BTreeMap<PathBuf, String>)> = None;
    for (name, place) in places {
        mount_bind(&place, &here).unwrap();
        let ran = std::panic::catch_unwind(|| sh(&here, script));
        unmount(&here, UnmountFlags::empty()).unwrap();
        let said = ran.unwrap_or_else(|_| panic!("it failed in the {name}"));
        // From outside: nothing of it may be in the script's own caches only.
        let left = look(&place, times, skip);
        match &wanted {
            None => wanted = Some((said, left)),
            Some((words, tree)) => {
                assert_eq!(words, &said, "in the {name}");
                let differs = |path: &&PathBuf| tree.get(*path) != left.get(*path);
                let paths: Vec<_> = tree.keys().chain(left.keys()).filter(differs).collect();
                let shown: Vec<_> = paths.iter().take(5).map(|p| (p, tree.get(*p), left.get(*p))).collect();
                assert!(paths.is_empty(), "{} paths differ in the {name}: {shown:#?}", paths.len());
            }
        }
    }
    assert!(wanted.is_some_and(|(_, tree)| tree.len() > 3), "the script left nothing to compare");
}

/// Path to type, mode, size, links, target or hash of the content, and perhaps time.
fn look(root: &Path, times: Times, skip: &[&str]) -> BTreeMap<PathBuf, String> {
    let (mut all, mut todo) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if skip.iter().any(|s| name.starts_with(s) || name.ends_with(s)) {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.file_type() {
                t if t.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                t if t.is_file() => format!("{:?}", hash(&fs::read(&path).unwrap())),
                _ => String::new(),
            };
            // A directory's size and link count are the file system's own business.
            let numbers = if meta.is_dir() { (0, 0) } else { (meta.len(), meta.nlink()) };
            let time = if times == Times::Compared { (meta.mtime(), meta.mtime_nsec()) } else { (0, 0) };
            all.insert(name, format!("{:o} {numbers:?} {time:?} {content}", meta.mode()));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    all
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !found.status.success() {
        eprintln!("{program} is not installed: nothing is shown about it");
    }
    found.status.success()
}

/// The sources of this project: a tree as real as any.
fn sources(real: &Real) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let tar = real.bed.path("sources.tar");
    sh(
        &root,
        &format!("tar --format=posix -cf {} Cargo.toml README.md docs crates proto scripts", tar.display()),
    );
    tar
}

#[test]
fn mount_tools_tar_and_copies() {
    let real = Real::start();
    let odd = real.bed.path("odd");
    fs::create_dir(&odd).unwrap();
    sh(
        &odd,
        "mkdir -p d/e; echo 1 >d/a; ln d/a d/e/hard; ln -s ../nowhere d/dangling; mkfifo d/pipe; chmod 4711 d/a; chmod 1777 d/e
         printf x >\"$(printf 'caf\\351')\"; printf y >'new
line'; head -c 3000000 /dev/urandom >big; : >empty; touch -d '1969-12-31 23:59:58.25 UTC' old
         truncate -s 5000000 sparse; printf end >>sparse; tar --format=posix -cf ../odd.tar .",
    );
    let (tar, odd) = (sources(&real), real.bed.path("odd.tar"));
    let script = format!(
        "tar xf {tar}; mkdir odd; tar xf {odd} -C odd; cp -a crates copy; rm -r crates/aether; mv docs papers
         tar cf - papers | tar xf - -C copy; chmod -R g-w copy; ln copy/papers/glossary.md same; find . -type l | sort | wc -l
         truncate -s 0 papers/glossary.md; cp --sparse=always odd/sparse s2; cmp odd/sparse s2; du -a --apparent-size odd/e | wc -l",
        tar = tar.display(),
        odd = odd.display(),
    );
    // `truncate` and the directories that were written into have the time of the run.
    same_everywhere(&real, &script, Times::Ignored, &[]);
    fs::remove_dir(real.bed.path("here")).unwrap();
    fs::remove_dir_all(real.bed.path("disk")).unwrap();
    let script =
        format!("tar xf {}; mkdir odd; tar xf {} -C odd; touch -d @7 odd .", tar.display(), odd.display());
    same_everywhere(&real, &script, Times::Compared, &[]);
}

#[test]
fn mount_tools_that_edit_and_search() {
    let real = Real::start();
    let rg = if is_installed("rg") { "rg -n --sort path Session crates | sha256sum" } else { ":" };
    let script = format!(
        "tar xf {tar}; grep -rl Session crates | sort | sha256sum; {rg}
         find crates -name '*.rs' -exec sed -i 's/Session/Sitting/g; 1d' {{}} +
         grep -rc Sitting crates | sort | sha256sum
         cp README.md old; sed -i '3s/.*/changed/' README.md; diff -u old README.md | sed 's/\\t.*//' >p || true; patch -R README.md p
         cmp old README.md; sort -o Cargo.toml Cargo.toml; printf 'a\\nb\\n' | tee new >/dev/null; dd if=/dev/zero of=new bs=1 seek=1 count=1 conv=notrunc 2>/dev/null
         find . -empty | sort; find . -newer old -name '*.rs' | wc -l >/dev/null; wc -c $(find proto -type f | sort) | tail -1",
        tar = sources(&real).display(),
    );
    same_everywhere(&real, &script, Times::Ignored, &[]);
}

#[test]
fn mount_tools_git_clone_commit_rebase() {
    let real = Real::start();
    let script = "
        export GIT_AUTHOR_DATE='@1700000000 +0000' GIT_COMMITTER_DATE='@1700000000 +0000' HOME=/nonexistent
        git init -q -b main r; cd r
        for i in $(seq 20); do mkdir -p d$((i % 4)); echo line $i >d$((i % 4))/f$i; echo $i >>log; git add -A; git commit -qm c$i; done
        git checkout -q -b side HEAD~10; for i in $(seq 5); do echo side $i >>side; git add -A; git commit -qm s$i; done
        git rebase -q main; git checkout -q main; git merge -q --no-ff -m merged side; git mv d1 moved; git commit -qm moved
        echo stashed >>log; git stash -q; git stash pop -q; git diff --stat; git checkout -q .; git tag v1; git gc -q; git fsck --strict
        git worktree add -q ../w side; (cd ../w; echo w >w; git add w; git commit -qm w; git status --porcelain)
        cd ..; git clone -q r c; cd c; git log --format='%H %s' --all | sha256sum; git rev-parse HEAD origin/side; git status --porcelain
        git reset -q --hard HEAD~3; git clean -qfdx; git log --oneline | wc -l; git submodule status; ls -R | sha256sum";
    // Indexes and logs hold times; the objects are named by the ids that were printed.
    same_everywhere(&real, script, Times::Ignored, &["r/.git", "c/.git", "w/.git"]);
}

#[test]
fn mount_tools_npm_install() {
    if !is_installed("npm") {
        return;
    }
    let real = Real::start();
    let packages = real.bed.path("packages");
    fs::create_dir(&packages).unwrap();
    for name in ["alpha", "beta"] {
        let dir = packages.join(name);
        fs::create_dir_all(dir.join("lib/deep")).unwrap();
        let manifest = format!(r#"{{"name":"{name}","version":"1.0.0","bin":{{"{name}-tool":"cli.js"}}}}"#);
        fs::write(dir.join("package.json"), manifest).unwrap();
        fs::write(
            dir.join("cli.js"),
            "#!/usr/bin/env node\nconsole.log('run', require('./lib/deep/x0.js'));\n",
        )
        .unwrap();
        for i in 0..40 {
            fs::write(
                dir.join(format!("lib/deep/x{i}.js")),
                format!("module.exports = {i};\n").repeat(i + 1),
            )
            .unwrap();
        }
        sh(&packages, &format!("HOME={0} npm pack --silent ./{name} >/dev/null", packages.display()));
    }
    let script = format!(
        "export HOME={home} npm_config_cache={home}/cache npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
         printf '{{\"name\":\"app\",\"version\":\"1.0.0\",\"scripts\":{{\"postinstall\":\"echo installed >done\"}}}}' >package.json
         npm install --silent --offline {home}/alpha-1.0.0.tgz {home}/beta-1.0.0.tgz; ls node_modules/.bin; npx --offline beta-tool
         rm -r node_modules; npm ci --silent --offline; cat done; npm ls --all | sed 1d",
        home = packages.display(),
    );
    same_everywhere(&real, &script, Times::Ignored, &[]);
}

#[test]
fn mount_tools_cargo_build() {
    let real = Real::start();
    let script = "
        export CARGO_INCREMENTAL=0 CARGO_TERM_QUIET=true CARGO_NET_OFFLINE=true; unset CARGO_TARGET_DIR RUSTFLAGS RUSTC_WRAPPER
        mkdir -p app/src lib/src
        printf '[workspace]\\nresolver=\"3\"\\nmembers=[\"app\",\"lib\"]\\n' >Cargo.toml
        printf '[package]\\nname=\"app\"\\nversion=\"0.1.0\"\\nedition=\"2024\"\\n[dependencies]\\nlib={path=\"../lib\"}\\n' >app/Cargo.toml
        printf '[package]\\nname=\"lib\"\\nversion=\"0.1.0\"\\nedition=\"2024\"\\n' >lib/Cargo.toml
        printf 'fn main() { std::fs::write(std::path::Path::new(&std::env::var(\"OUT_DIR\").unwrap()).join(\"n.rs\"), \"40\").unwrap(); println!(\"cargo::rerun-if-changed=build.rs\"); }' >lib/build.rs
        printf 'pub fn n() -> u32 { include!(concat!(env!(\"OUT_DIR\"), \"/n.rs\")) + 2 }\\n#[test]\\nfn t() { assert_eq!(n(), 42) }\\n' >lib/src/lib.rs
        printf 'fn main() { println!(\"{}\", lib::n()); }\\n' >app/src/main.rs
        cargo build --release; ./target/release/app; touch lib/src/lib.rs; cargo build --release; ./target/release/app
        cargo test -q 2>/dev/null | grep -c 'test result: ok'";
    // Cargo writes down the files of a crate, and what it asked rustc, in whatever order it met them, on a disk too.
    same_everywhere(&real, script, Times::Ignored, &["dep-lib-lib", "dep-test-lib-lib", ".rustc_info.json"]);
}
