//! Ordinary tools work and leave the same tree as on a local disk.

use crate::bed::{Bed, sh_in};

#[test]
fn shell_and_coreutils() {
    let bed = Bed::new();
    let out = bed.sh(
        "mkdir -p a/b/c; echo one >a/b/c/f; cat a/b/c/f; echo two >>a/b/c/f; wc -l <a/b/c/f
         mv a/b x; ls x/c; ln -s x/c/f link; cat link; ln x/c/f hard; stat -c %h hard
         chmod 640 hard; stat -c %a x/c/f; cp -a x y; diff -r x y; rm -r x; cat hard; test -h link; ! test -e link
         printf %s abc >hard; cat hard; truncate -s 1 hard; stat -c %s hard; touch -d @12345.5 hard; stat -c %Y hard
         df . | tail -1 | wc -l",
    );
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["one", "2", "f", "one", "two", "2", "640", "one", "two", "abc1", "12345", "1"]);
}

#[test]
fn sed_in_place_and_ripgrep() {
    let bed = Bed::new();
    bed.sh("mkdir src; for i in $(seq 200); do echo \"fn f$i() { old_name(); }\" >src/$i.rs; done");
    bed.sh("sed -i 's/old_name/new_name/' src/*.rs");
    assert_eq!(bed.sh("rg -c new_name src | wc -l").trim(), "200");
    assert_eq!(bed.sh("rg old_name src | wc -l || true").trim(), "0");
}

#[test]
fn tar_leaves_the_same_tree_as_on_a_local_disk() {
    let bed = Bed::new();
    let local = tempfile::tempdir().unwrap();
    let make = "mkdir -p d/e; head -c 3000000 /dev/urandom >d/big; echo x >d/e/small; chmod 755 d/e/small
        ln -s ../big d/e/l; ln d/big d/hard; : >d/empty; mkfifo d/p; touch -d @1000000000.123456789 d/e/small
        tar cf t.tar d; rm -r d; tar xf t.tar";
    sh_in(local.path(), make);
    let archive = local.path().join("t.tar");
    bed.sh(&format!("tar xf {}", archive.display()));
    let list = "cd d; find . -printf '%p %y %m %n %s %l %TY%Tm%Td%TT\\n' | grep -v ' d ' | sort; find . -type f | sort | xargs sha256sum";
    assert_eq!(bed.sh(list), sh_in(local.path(), list));
    assert_eq!(bed.sh("tar cf - d | tar tf - | wc -l"), sh_in(local.path(), "tar cf - d | tar tf - | wc -l"));
}

#[test]
fn git_init_commit_branch_status() {
    let bed = Bed::new();
    let out = bed.sh(
        "mkdir r; cd r; git init -q; for i in $(seq 300); do mkdir -p d$((i%10)); echo $i >d$((i%10))/$i; done
         git add .; git commit -qm first; git status --porcelain; echo changed >d1/1; git status --porcelain
         git checkout -qb topic; git commit -qam second; git checkout -q main; cat d1/1; git merge -q topic; cat d1/1
         git log --oneline | wc -l; git gc -q; git fsck 2>&1; git status --porcelain",
    );
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["M", "d1/1", "1", "changed", "2"]);
}

#[test]
fn git_status_reads_no_file_content() {
    let bed = Bed::new();
    bed.sh("git init -q; for i in $(seq 500); do mkdir -p d$((i%10)); echo $i >d$((i%10))/$i; done
         git add .; git commit -qm x; sleep 1.1; git update-index -q --refresh; git status --porcelain");
    // As in a mount that has just been made: the kernel knows no name and no attribute, only git's own
    // files are read.
    bed.fs.report_everything();
    bed.settle();
    let before = bed.counters();
    assert_eq!(bed.sh("git status --porcelain"), "");
    let status = bed.counters().since(&before);
    let git_files =
        bed.sh("stat -c %s .git/index .git/HEAD .git/config .git/info/exclude | awk '{s+=$1} END {print s}'");
    let git_bytes: u64 = git_files.trim().parse().unwrap();
    assert!(status.read_bytes <= git_bytes + 4096, "{status:?}, git's own files have {git_bytes} bytes");
    assert!(status.reads < 20 && status.opens < 20, "{status:?}");
    // A second one is answered from the kernel's caches.
    let before = bed.counters();
    bed.sh("git status --porcelain");
    let again = bed.counters().since(&before);
    assert!(again.lookups + again.getattrs < 60, "{again:?}");
}

#[test]
fn python_sqlite_and_mmap() {
    let bed = Bed::new();
    let out = bed.sh(
        r#"python3 - <<'P'
import mmap, sqlite3, os
for mode in ("delete", "wal"):
    db = sqlite3.connect(f"{mode}.db")
    print(db.execute(f"pragma journal_mode={mode}").fetchone()[0])
    db.execute("create table t(a)")
    for i in range(200):
        db.execute("insert into t values (?)", (i,)); db.commit()
    print(db.execute("pragma integrity_check").fetchone()[0], db.execute("select sum(a) from t").fetchone()[0])
    db.close()
with open("m", "w+b") as f:
    f.truncate(100000)
    with mmap.mmap(f.fileno(), 100000) as m:
        m[5000:5005] = b"hello"; m[99999:] = b"!"; m.flush()
    os.fsync(f.fileno())
print(open("m", "rb").read()[5000:5005], open("m", "rb").read()[-1:])
P"#,
    );
    assert_eq!(out.lines().collect::<Vec<_>>(), ["delete", "ok 19900", "wal", "ok 19900", "b'hello' b'!'"]);
    assert!(bed.counters().ioctls > 0); // the terminal question of Python, answered ENOTTY
}
