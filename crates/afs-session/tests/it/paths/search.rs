//! Glob and grep.

use super::*;

fn glob(view: &View, pattern: &str, scope: Scope) -> Vec<String> {
    let query = GlobQuery { pattern: pattern.into(), scope };
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = view.glob(&query, 2, &token).unwrap();
        all.extend(page.entries.into_iter().map(|e| e.path.to_text()));
        match page.next {
            Some(next) => token = next,
            None => return all,
        }
    }
}

#[test]
fn globs() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let v = f.view();
    assert_eq!(glob(&v, "**/*.rs", Scope::default()), ["/src/deep/lib.rs", "/src/main.rs", "/target/out.rs"]);
    let tracked = Scope { respect_gitignore: true, ..Scope::default() };
    assert_eq!(glob(&v, "**/*.{rs,log}", tracked.clone()), ["/src/deep/lib.rs", "/src/main.rs"]);
    assert_eq!(glob(&v, "*.rs", Scope { path: p("/dirlink"), ..Scope::default() }), ["/dirlink/main.rs"]);
    assert_eq!(glob(&v, "**", tracked).len(), 12);
    write(&f, "/src/deep/new.rs", "x");
    f.move_path(&p("/target"), &p("/t"), false, &Precondition::default(), &By::default()).unwrap();
    let changed = Scope { changed_only: true, ..Scope::default() };
    assert_eq!(glob(&f.view(), "**/*.rs", changed.clone()), ["/src/deep/new.rs", "/t/out.rs"]);
    assert_eq!(glob(&f.view(), "*.rs", Scope { path: p("/src/deep"), ..changed }), ["/src/deep/new.rs"]);
    fails(
        v.glob(&GlobQuery { pattern: "a[".into(), ..GlobQuery::default() }, 0, ""),
        Reason::InvalidArgument,
    );
}

fn grep(view: &View, query: &GrepQuery) -> Vec<String> {
    let mut found = Vec::new();
    view.grep(query, &mut |m| {
        found.push(format!("{}:{}:{}", m.path, m.line, m.text));
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    found
}

#[test]
fn greps() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let needle = GrepQuery { pattern: "needle".into(), ..GrepQuery::default() };
    let all = [
        "/README.md:3:needle one",
        "/src/main.rs:2:    let needle = 1;",
        "/target/out.rs:1:needle",
        "/x.log:1:needle",
    ];
    assert_eq!(grep(&f.view(), &needle), all);
    let tracked = Scope { respect_gitignore: true, ..Scope::default() };
    assert_eq!(grep(&f.view(), &GrepQuery { scope: tracked, ..needle.clone() }), all[..2]);
    let globs = |globs: &[&str]| globs.iter().map(|g| (*g).to_owned()).collect();
    assert_eq!(grep(&f.view(), &GrepQuery { globs: globs(&["*.rs"]), ..needle.clone() }), all[1..3]);
    assert_eq!(
        grep(&f.view(), &GrepQuery { globs: globs(&["*.rs", "!/target"]), ..needle.clone() }),
        all[1..2]
    );
    let one = Scope { path: p("/link"), ..Scope::default() };
    assert_eq!(grep(&f.view(), &GrepQuery { scope: one, ..needle.clone() }), ["/link:2:    let needle = 1;"]);
    let done = f
        .view()
        .grep(&GrepQuery { max_count: 2, ..needle.clone() }, &mut |_| Ok(ControlFlow::Continue(())))
        .unwrap();
    assert_eq!((done.matches, done.truncated), (2, true));
    let done = f.view().grep(&needle, &mut |_| Ok(ControlFlow::Continue(()))).unwrap();
    assert_eq!((done.matches, done.truncated, done.binary), (4, false, 1));
    // Enough for several batches on two threads.
    let line = "x".repeat(100) + "\n";
    let changes = (0..300).map(|i| {
        change(ChangeOp::Write {
            path: p(&format!("/many/{i:03}")),
            content: format!("{}hay {i}\n", line.repeat(100)).into(),
            mode: None,
            create_parents: true,
        })
    });
    f.submit_changes(&ChangeSet { changes: changes.collect(), ..ChangeSet::default() }, &By::default())
        .unwrap();
    let hay = GrepQuery { pattern: "^hay".into(), before: 1, ..GrepQuery::default() };
    let want: Vec<String> = (0..300).map(|i| format!("/many/{i:03}:101:hay {i}")).collect();
    assert_eq!(grep(&f.view(), &hay), want);
    let changed = Scope { changed_only: true, ..Scope::default() };
    assert_eq!(
        grep(&f.view(), &GrepQuery { pattern: "hay 7$".into(), scope: changed, ..GrepQuery::default() }),
        ["/many/007:101:hay 7"]
    );
}
