//! What people meet first: long lists, imports that fail, that are interrupted or last, and errors that say how to go on.

use crate::bed::{Bed, eventually, pause, sh};
use crate::real::{Real, repository};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Runs a command that must fail, and returns its exit code, its problem and what people are told.
fn fails(bed: &Bed, args: &[&str]) -> (i32, Value, String) {
    let (code, out, err) = bed.try_run(&[args, &["--json"]].concat());
    assert!(code != 0 && out.is_empty(), "{args:?}: {out}{err}");
    let problem: Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{e}: {err}"));
    let (_, _, text) = bed.try_run(args);
    (code, problem, text)
}

/// Ids of all sources.
fn sources(bed: &Bed) -> Vec<String> {
    let listed = bed.json(&["source", "list"]);
    let id = |s: &Value| s["source_id"].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(id).collect()
}

#[test]
fn a_list_is_whole_and_a_limit_says_what_it_leaves_out() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.session(None);
    bed.run(&["session", "fork", &id, "-n", "1100"]);
    let (code, out, err) = bed.try_run(&["session", "list"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("SESSION "), "{}", &out[..200]);
    let ids: Vec<&str> = out.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert!(ids.len() == 1101 && ids.iter().all(|id| id.starts_with("sess_")), "{} lines", ids.len());
    assert_eq!(bed.json(&["session", "list"]).as_array().unwrap().len(), 1101);
    for (limit, lines) in [("1000", 1000), ("1001", 1001), ("2", 2)] {
        let (code, out, err) = bed.try_run(&["session", "list", "--limit", limit]);
        assert_eq!((code, out.lines().count()), (0, lines + 1), "--limit {limit}");
        assert!(err.contains(&format!("first {limit} are shown")) && err.contains("--limit"), "{err}");
    }
    for limit in ["1101", "5000"] {
        let (_, out, err) = bed.try_run(&["session", "list", "--limit", limit]);
        assert_eq!((out.lines().count(), err.as_str()), (1102, ""), "--limit {limit}");
    }
    assert_eq!(bed.json(&["session", "list", "--limit", "1001"]).as_array().unwrap().len(), 1001);

    for name in ["a", "b", "c"] {
        bed.run(&["checkpoint", "create", &id, "--name", name]);
    }
    let (_, out, err) = bed.try_run(&["checkpoint", "list", &id, "--limit", "2"]);
    assert!(out.lines().count() == 3 && err.contains("there are more"), "{out}{err}");
    let (_, out, err) = bed.try_run(&["checkpoint", "list", &id]);
    assert_eq!((out.lines().count(), err.as_str()), (4, ""), "{out}");
    assert_eq!(bed.run(&["commit", "list", &id]).lines().count(), 1, "the head alone");
}

#[test]
fn a_mistyped_repository_leaves_no_source_behind() {
    let real = Real::start();
    let bed = &real.bed;
    let repo = repository(&bed.path("repo"), 1).display().to_string();
    let typo = format!("{repo}@nope");
    for (from, code) in [("nowhere", 6), ("/nowhere/at/all", 6), (typo.as_str(), 2)] {
        let (got, problem, text) = fails(bed, &["session", "create", "--git", from]);
        assert_eq!(got, code, "{problem}");
        assert!(problem["metadata"].get("source_id").is_none() && !text.contains("src_"), "{problem} {text}");
        assert!(!text.contains("refresh"), "there is nothing to refresh: {text}");
        assert_eq!(sources(bed), Vec::<String>::new(), "{from}");
    }

    // What somebody has made by itself stays, and so does what has a version.
    let (_, problem, _) = fails(bed, &["source", "create", "--git", "nowhere"]);
    let kept = problem["metadata"]["source_id"].as_str().unwrap().to_owned();
    let (_, problem, _) = fails(bed, &["session", "create", "--git", "nowhere"]);
    assert_eq!(problem["metadata"]["source_id"], kept.as_str());
    assert_eq!(sources(bed), std::slice::from_ref(&kept));
    bed.run(&["source", "delete", &kept]);
    bed.run(&["session", "create", "--git", &repo]);
    fs::rename(bed.path("repo"), bed.path("elsewhere")).unwrap();
    bed.try_run(&["session", "create", "--git", &repo]);
    assert_eq!(sources(bed).len(), 1);
}

#[test]
fn an_import_that_cannot_be_says_what_can() {
    let real = Real::start();
    let bed = &real.bed;
    repository(&bed.path("repo"), 1);
    sh(
        &bed.path(""),
        "git init -q void; git init -q --object-format=sha256 other; git -C other commit -q --allow-empty -m x",
    );
    for command in ["source", "session"] {
        let create = |from: &'static str| fails(bed, &[command, "create", "--git", from]);
        let (code, problem, text) = create("repo@");
        assert!(code == 2 && text.contains("empty") && text.contains("ref"), "{text}");
        assert_eq!(problem["violations"][0]["field"], "git", "{problem}");
        let (code, _, text) = create("void");
        assert!(code == 2 && text.contains("--empty"), "{text}");
        let (_, _, text) = create("other");
        assert!(text.contains("not supported yet") && text.contains("--local"), "{text}");
    }
    bed.run(&["session", "create", "--git", "repo@HEAD~0"]);
    bed.run(&["session", "create", "--git", "repo@main^{}"]);
}

#[test]
fn who_interrupts_an_import_is_told_that_it_goes_on() {
    let real = Real::start();
    let bed = &real.bed;
    // Takes connections and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let repository = format!("git://{}/x.git", silent.local_addr().unwrap());
    for (signal, wanted, args) in [
        ("INT", 130, &["source", "create", "--git", &repository][..]),
        ("TERM", 143, &["session", "create", "--git", &repository]),
        ("INT", 130, &["session", "create", "--json", "--git", &repository]),
    ] {
        let mut command = bed.command(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("the import runs", || sources(bed).len() == 1);
        // It has the answer to its request, and waits.
        pause(Duration::from_secs(1));
        sh(&bed.path(""), &format!("kill -{signal} {}", child.id()));
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(wanted), 0), "{args:?}: {said}");
        let [source] = &sources(bed)[..] else { panic!("{said}") };
        let (look, stop) = (format!("aether source show {source}"), format!("aether source delete {source}"));
        assert!(said.contains("goes on") && said.contains(&look) && said.contains(&stop), "{said}");
        if args.contains(&"--json") {
            let problem: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
            assert_eq!(problem["metadata"]["source_id"], source.as_str());
        }
        assert_eq!(bed.json(&["source", "show", source])["state"], "RESOURCE_STATE_RUNNING");
        bed.run(&["source", "delete", source]);
        assert_eq!(sources(bed).len(), 0);
    }
}

#[test]
fn an_id_that_is_taken_asks_for_another_id() {
    let real = Real::start();
    let bed = &real.bed;
    let create = ["session", "create", "--empty", "--id", "sess_twice"];
    bed.run(&create);
    let (code, _, text) = fails(bed, &create);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("next: choose another id") && !text.contains("overwrit"), "{text}");
    let (_, _, text) = fails(bed, &["session", "fork", "sess_twice", "--id", "sess_twice"]);
    assert!(text.contains("next: choose another id"), "{text}");
}

#[test]
fn status_of_a_server_that_says_nothing_takes_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let bed = Bed::new(&format!("http://{}", silent.local_addr().unwrap()));
    let begin = Instant::now();
    let (code, out, _) = bed.try_run(&["status"]);
    assert!(code == 6 && out.contains("no mounts"), "{code} {out}");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}
