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

#[test]
fn a_file_with_more_matches_than_are_held_at_once_is_read_on() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let text = |n: usize| (0..n).map(|i| format!("hay {i} {}\n", "x".repeat(250))).collect::<String>();
    // More lines, and more bytes of matches, than one round has.
    write(&f, "/hay/a", &text(25_000));
    write(&f, "/hay/b", "nothing\n");
    write(&f, "/hay/c", &text(3));
    let scope = Scope { path: p("/hay"), ..Scope::default() };
    let query = GrepQuery { pattern: "^hay [0-9]+".into(), scope, ..GrepQuery::default() };
    let mut want = Vec::new();
    for (file, count) in [("a", 25_000), ("c", 3)] {
        let line = |i: usize| format!("/hay/{file}:{}:hay {i} {}", i + 1, "x".repeat(250));
        want.extend((0..count).map(line));
    }
    assert_eq!(grep(&f.view(), &query), want);
    let done = f
        .view()
        .grep(&GrepQuery { max_count: 20_000, ..query }, &mut |_| Ok(ControlFlow::Continue(())))
        .unwrap();
    assert_eq!((done.matches, done.truncated, done.files), (20_000, true, 1));
}

#[test]
fn who_takes_matches_slowly_holds_no_memory_for_contents() {
    fn nested(view: &View, query: &GrepQuery, depth: usize) -> usize {
        let mut found = 0;
        view.grep(query, &mut |_| {
            found += 1 + if depth > 0 { nested(view, query, depth - 1) } else { 0 };
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        found
    }
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let size = 20 << 20;
    write(&f, "/large", &format!("needle\n{}", "hay\n".repeat(size / 4)));
    let scope = Scope { path: p("/large"), ..Scope::default() };
    let query = GrepQuery { pattern: "needle".into(), scope, ..GrepQuery::default() };
    // Together they would need more than there is, and wait for each other until they are refused.
    let depth = limits::MAX_LARGE_TEXTS_BYTES / size + 1;
    assert_eq!(nested(&f.view(), &query, depth), depth + 1);
}

/// Rules are read again after every match, so that nobody's pace decides how long they are held; they stay the same rules, and count once.
#[test]
fn who_takes_matches_slowly_holds_no_rules() {
    fn nested(view: &View, query: &GrepQuery, depth: usize) -> Vec<SessionPath> {
        let mut found = Vec::new();
        view.grep(query, &mut |m| {
            found.push(m.path);
            if depth > 0 {
                found.extend(nested(view, query, depth - 1));
            }
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        found
    }
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    // Text is what takes the memory.
    let rules = |rest: &str| format!("#{}\n{rest}\n", "x".repeat(1_000_000));
    let (above, below) = (rules("other"), rules("*.log"));
    let size = above.len() + below.len();
    assert!(size < limits::MAX_IGNORES_BYTES && 2 * size > limits::MAX_IGNORES_BYTES);
    write(&f, "/.gitignore", &above);
    write(&f, "/.git/info/exclude", "secret\n");
    write(&f, "/d/.gitignore", &below);
    // More than one batch, so that the walk goes on after the match.
    let quiet = (1..200).map(|n| (format!("/d/{n:03}"), "hay\n"));
    let loud = ["/d/000", "/d/secret", "/d/z.log"].map(|path| (path.to_owned(), "needle\n"));
    let changes = loud.into_iter().chain(quiet).map(|(path, text)| {
        change(ChangeOp::Write { path: p(&path), content: text.into(), mode: None, create_parents: true })
    });
    f.submit_changes(&ChangeSet { changes: changes.collect(), ..ChangeSet::default() }, &By::default())
        .unwrap();
    let scope = Scope { path: p("/d"), respect_gitignore: true, ..Scope::default() };
    let query = GrepQuery { pattern: "needle".into(), scope, ..GrepQuery::default() };
    // Together they would need more than there is.
    let depth = limits::MAX_SEARCH_RULES_BYTES / size + 1;
    let found = std::thread::scope(|scope| {
        let deep = std::thread::Builder::new().stack_size(256 << 20);
        deep.spawn_scoped(scope, || nested(&f.view(), &query, depth)).unwrap().join().unwrap()
    });
    assert_eq!(found, vec![p("/d/000"); depth + 1]);
}

#[test]
fn a_file_that_matches_all_over_is_not_read_for_every_few_matches() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    let (lines, rest) = (8192, "x".repeat(1000));
    let line = |n: usize| format!("hay {n} {rest}");
    let text: String = (0..lines).map(|n| line(n) + "\n").collect();
    write(&f, "/a", &text);
    let scope = Scope { path: p("/a"), ..Scope::default() };
    let query = GrepQuery { pattern: "^hay".into(), before: 2, after: 2, scope, ..GrepQuery::default() };
    let mut seen = 0;
    let done = f
        .view()
        .grep(&query, &mut |m| {
            assert_eq!((m.line, m.text), (seen as u64 + 1, line(seen)));
            assert_eq!(m.before, (seen.saturating_sub(2)..seen).map(line).collect::<Vec<_>>());
            assert_eq!(m.after, (seen + 1..lines.min(seen + 3)).map(line).collect::<Vec<_>>());
            seen += 1;
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert_eq!((seen, done.matches, done.files), (lines, lines, 1));
    // Once to search it, and each part about once to show it. The matches take five times its bytes, in parts of 4 MiB.
    assert!(done.bytes_read <= 3 * text.len() as u64, "{} of {}", done.bytes_read, text.len());
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
