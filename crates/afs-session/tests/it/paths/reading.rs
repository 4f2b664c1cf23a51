//! Stat, list, manifest, read.

use super::*;

#[test]
fn reading_a_base() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let link = f.stat(&p("/link")).unwrap();
    assert_eq!(
        (link.target.as_deref(), link.base, link.attr.is_symlink()),
        (Some(&b"src/main.rs"[..]), true, true)
    );
    let main = f.stat(&p("/src/main.rs")).unwrap();
    assert!(main.etag.starts_with("b3-") && main.etag.len() == 35, "{}", main.etag);
    assert_eq!(f.open_read(&p("/link")).unwrap().entry.attr, main.attr);
    assert_eq!(text(&f, "/dirlink/deep/lib.rs"), "// nothing\n");
    fails(f.open_read(&p("/out")), Reason::NotFound);
    fails(f.open_read(&p("/src")), Reason::IsADirectory);
    let error = fails(f.stat(&p("/src/none/x")), Reason::NotFound);
    assert_eq!(
        (error.message(), error.metadata()),
        ("/src/none/x: no such file or directory", &[("path", "/src/none/x".to_owned())][..],)
    );
    let lines = f.read_lines(&p("/src/main.rs"), 2, 1, 0).unwrap();
    assert_eq!(
        (lines.content.as_str(), lines.total_lines, lines.truncated),
        ("    let needle = 1;\n", 3, true)
    );
    assert_eq!(lines.etag, main.etag);
    fails(f.read_lines(&p("/bin"), 0, 0, 0), Reason::NotText);
    let batch = f.view().batch_read(&[p("/README.md"), p("/none"), p("/link")], 20).unwrap();
    assert_eq!(batch[0].as_ref().unwrap().content, "# Title\n\nneedle one\n".as_bytes());
    assert_eq!(batch[1].as_ref().unwrap_err().reason, Reason::NotFound);
    assert_eq!(batch[2].as_ref().unwrap_err().reason, Reason::FileTooLarge);
    let base = rig.engine.files(f.session().id()).unwrap().view_at("base").unwrap();
    write(&f, "/README.md", "new");
    assert_eq!(bytes(&base, "/README.md"), b"# Title\n\nneedle one\n");
}

#[test]
fn a_file_that_no_answer_holds_is_too_large_and_one_that_another_would_hold_is_not() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let all = limits::MAX_MESSAGE_SIZE_BYTES / 2;
    let text = "x".repeat(all + 1);
    write(&f, "/large", &text);
    write(&f, "/fits", &text[..all]);
    write(&f, "/small", "x");
    let read = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| p(path)).collect();
        f.view().batch_read(&paths, u64::MAX).unwrap()
    };
    let none: &[&str] = &[];
    for before in [none, &["/small"], &["/fits"]] {
        let Some(Err(error)) = read(&[before, &["/large"]].concat()).pop() else { panic!("{before:?}") };
        assert_eq!(error.reason, Reason::FileTooLarge, "{before:?}: {error}");
        assert_eq!(error.next_step(), "read it in ranges");
        assert!(error.metadata().contains(&("limit", all.to_string())), "{error:?}");
    }
    assert_eq!(read(&["/large", "/fits"])[1].as_ref().unwrap().content.len(), all);
    let second = read(&["/small", "/fits"]).pop().unwrap();
    assert_eq!(second.unwrap_err().reason, Reason::MessageTooLarge, "asked for alone it is answered");
}

#[test]
fn lists_and_pages_are_stable() {
    let rig = Rig::new();
    let f = based(&rig, "sess_a");
    let all = paths(&f.view());
    let want = [
        "/.gitignore",
        "/README.md",
        "/bin",
        "/dirlink",
        "/link",
        "/out",
        "/src",
        "/src/b.txt",
        "/src/c.txt",
        "/src/deep",
        "/src/deep/lib.rs",
        "/src/main.rs",
        "/target",
        "/target/out.rs",
        "/x.log",
    ];
    assert_eq!(all, want);
    let list = |path: &str, depth, size| {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = f.list(&p(path), depth, size, &token).unwrap();
            assert!(page.entries.len() <= size.max(1));
            all.extend(page.entries.into_iter().map(|e| e.path.to_text()));
            match page.next {
                Some(next) => token = next,
                None => return all,
            }
        }
    };
    for size in 1..=16 {
        assert_eq!(list("/", 9, size), want, "{size}");
        assert_eq!(list("/src", 1, size), ["/src/b.txt", "/src/c.txt", "/src/deep", "/src/main.rs"]);
    }
    let first = f.list(&p("/src"), 2, 3, "").unwrap();
    assert_eq!(first.entries.last().unwrap().path, p("/src/deep"));
    // The page ended at /src/deep; while nobody looks it goes, and others come before and after.
    f.remove(&p("/src/deep"), true, &Precondition::default(), &By::default()).unwrap();
    write(&f, "/src/a.txt", "");
    write(&f, "/src/e.txt", "");
    let next = f.list(&p("/src"), 2, 9, &first.next.clone().unwrap()).unwrap();
    let next: Vec<String> = next.entries.iter().map(|e| e.path.to_text()).collect();
    assert_eq!(next, ["/src/e.txt", "/src/main.rs"]);
    fails(f.list(&p("/"), 2, 3, &first.next.unwrap()), Reason::InvalidPageToken);
    fails(f.list(&p("/README.md"), 1, 3, ""), Reason::NotADirectory);
    fails(f.list(&p("/"), 1, 100_000, ""), Reason::InvalidArgument);
}

#[test]
fn listing_a_large_directory_goes_in_chunks() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    let changes = (0..3000).map(|i| Change {
        op: ChangeOp::Mkdir { path: p(&format!("/d{i:04}")), mode: None, parents: false },
        precondition: Precondition::default(),
    });
    f.submit_changes(&ChangeSet { changes: changes.collect(), ..ChangeSet::default() }, &By::default())
        .unwrap();
    let want: Vec<String> = (0..3000).map(|i| format!("/d{i:04}")).collect();
    assert_eq!(paths(&f.view()), want);
    let page = f.list(&p("/"), 1, 1000, "").unwrap();
    let page = f.list(&p("/"), 1, 1000, &page.next.unwrap()).unwrap();
    assert_eq!(page.entries[0].path, p("/d1000"));
}

#[test]
fn a_reader_stays_on_its_instant() {
    let rig = Rig::new();
    rig.empty("sess_a");
    let f = files(&rig, "sess_a");
    write(&f, "/f", "old text");
    let reader = f.open_read(&p("/f")).unwrap();
    write(&f, "/f", "new");
    f.remove(&p("/f"), false, &Precondition::default(), &By::default()).unwrap();
    assert_eq!((reader.read_at(4, 100).unwrap(), reader.size()), ("text".as_bytes().into(), 8));
    assert_eq!(reader.read_at(8, 100).unwrap(), "");
    assert_eq!(reader.read_at(u64::MAX, 100).unwrap(), "");
}
