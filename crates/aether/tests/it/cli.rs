//! Arguments, settings, exit codes, output.

use crate::bed::Bed;
use std::fs;

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn usage_errors_are_exit_code_2() {
    let bed = Bed::new(NOBODY);
    for args in [
        &["frobnicate"][..],
        &["session", "create"],
        &["session", "create", "--empty", "--git", "."],
        &["session", "show", "not-an-id"],
        &["fs", "ls", "sess_a:/../x"],
        &["fs", "chmod", "999", "sess_a:/x"],
        &["session", "fork", "sess_a", "-n", "0"],
        &["mount", "--session", "sess_a"],
        &["status", "--timeout", "soon"],
    ] {
        let (code, stdout, stderr) = bed.try_run(args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        let (code, stdout, stderr) = bed.try_run(&[args, &["--json"]].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        let problem: serde_json::Value =
            serde_json::from_str(&stderr).unwrap_or_else(|e| panic!("{e}: {stderr}"));
        assert_eq!(problem["reason"], "INVALID_ARGUMENT", "{args:?}");
    }
    let (code, _, stderr) = bed.try_run(&["status", "--endpoint", "ftp://x"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn a_usage_error_in_json_names_the_argument() {
    let bed = Bed::new(NOBODY);
    for (args, field, said) in [
        (&["mount", "--session", "sess_a"][..], "<DIR>", "<DIR>"),
        (&["session", "show", "not-an-id"], "<SESSION>", "not-an-id"),
        (&["session", "list", "--frob"], "--frob", "--frob"),
        (&["fs", "chmod", "u+x", "sess_a:/x"], "<MODE>", "octal"),
        (&["session", "create", "--empty", "--git", "."], "--", "--git"),
    ] {
        let (code, _, stderr) = bed.try_run(&[args, &["--json"]].concat());
        let problem: serde_json::Value =
            serde_json::from_str(&stderr).unwrap_or_else(|e| panic!("{e}: {stderr}"));
        let detail = problem["detail"].as_str().unwrap();
        assert!(code == 2 && detail.contains(said) && !detail.contains('\n'), "{args:?}: {stderr}");
        assert!(!detail.contains("Usage:") && !detail.contains("--help"), "{args:?}: {stderr}");
        let named = problem["violations"][0]["field"].as_str().unwrap_or_default();
        assert!(named.contains(field), "{args:?}: {stderr}");
    }
    let (_, _, stderr) = bed.try_run(&["sessoin", "list", "--json"]);
    let problem: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(problem["metadata"]["command"], "sessoin", "{stderr}");
    assert!(problem["detail"].as_str().unwrap().contains("'session'"), "{stderr}");
}

#[test]
fn commands_that_differ_have_help_that_differs() {
    let bed = Bed::new(NOBODY);
    let about = |args: &[&str]| {
        let help = bed.run(&[args, &["--help"]].concat());
        assert!(!help.contains("[default: ]") && !help.contains("[default: \"\"]"), "{args:?}: {help}");
        help.lines().next().unwrap().to_owned()
    };
    for (noun, verbs) in
        [("session", &["show", "archive", "resume", "delete"][..]), ("checkpoint", &["show", "delete"])]
    {
        let mut abouts: Vec<String> = verbs.iter().map(|verb| about(&[noun, verb])).collect();
        abouts.sort();
        abouts.dedup();
        assert_eq!(abouts.len(), verbs.len(), "{abouts:?}");
    }
}

#[test]
fn help_is_an_answer() {
    let bed = Bed::new(NOBODY);
    for args in [
        &["--help"][..],
        &["fs", "--help"],
        &["fs", "put", "--help"],
        &["session", "fork", "-h"],
        &["--version"],
    ] {
        let (code, stdout, stderr) = bed.try_run(args);
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        assert!(stdout.contains("aether"), "{stdout}");
    }
}

#[test]
fn a_server_that_is_not_there_is_exit_code_6_at_once() {
    let bed = Bed::new(NOBODY);
    let begin = std::time::Instant::now();
    let (code, stdout, stderr) = bed.try_run(&["session", "list"]);
    assert_eq!((code, stdout.as_str()), (6, ""), "{stderr}");
    assert!(stderr.contains(NOBODY) && stderr.contains("refused") && stderr.contains("next: "), "{stderr}");
    let (code, _, stderr) = bed.try_run(&["session", "list", "--json"]);
    let problem: serde_json::Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, &problem["reason"], &problem["status"]), (6, &"UNAVAILABLE".into(), &503.into()));
    // A mount says the same, in the foreground and in the background.
    for flag in [&[][..], &["--foreground"]] {
        let (code, _, stderr) = bed.try_run(&[&["mount", "--session", "sess_a", "dir"], flag].concat());
        assert!(code == 6 && stderr.contains("refused"), "{code} {stderr}");
    }
    let (code, stdout, _) = bed.try_run(&["status"]);
    assert!(code == 6 && stdout.contains("no mounts"), "{stdout}");
    let (code, stdout, _) = bed.try_run(&["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let server = checks.as_array().unwrap().iter().find(|c| c["name"] == "server").unwrap();
    assert_eq!((code, &server["status"]), (1, &"failed".into()));
    assert!(begin.elapsed().as_secs() < 15, "{:?}", begin.elapsed());
}

#[test]
fn settings_and_where_they_come_from() {
    let mut bed = Bed::new("");
    let endpoint = |bed: &Bed, args: &[&str]| {
        let shown = bed.json(&[&["config", "show", "--origin"], args].concat());
        let e = &shown["bridge.server_endpoint"];
        (e["value"].as_str().unwrap().to_owned(), e["origin"].as_str().unwrap().to_owned())
    };
    assert_eq!(endpoint(&bed, &[]), ("http://127.0.0.1:7440".into(), "default".into()));
    let user = bed.path("../.config/aether");
    fs::create_dir_all(&user).unwrap();
    fs::write(
        user.join("config.toml"),
        "[bridge]\nserver_endpoint = \"http://user\"\n[logging]\nformat = \"json\"\n",
    )
    .unwrap();
    assert_eq!(endpoint(&bed, &[]).0, "http://user");
    fs::write(bed.path(".aether.toml"), "[bridge]\nserver_endpoint = \"http://project\"\n").unwrap();
    assert_eq!(endpoint(&bed, &[]), ("http://project".into(), ".aether.toml".into()));
    assert_eq!(bed.json(&["config", "show"])["logging.format"], "json");
    bed.endpoint = "http://variable".into();
    assert_eq!(
        endpoint(&bed, &[]),
        ("http://variable".into(), "environment AFS_AETHER_SERVER_ENDPOINT".into())
    );
    assert_eq!(
        endpoint(&bed, &["--endpoint", "http://flag"]),
        ("http://flag".into(), "flag --endpoint".into())
    );
    fs::write(bed.path("bad.toml"), "[bridge]\nendpoint = 1\n").unwrap();
    let (code, _, stderr) = bed.try_run(&["config", "show", "--config", "bad.toml"]);
    assert!(code == 2 && stderr.contains("bad.toml") && stderr.contains("server_endpoint"), "{stderr}");
}

#[test]
fn completions_for_three_shells() {
    let bed = Bed::new(NOBODY);
    for shell in ["bash", "zsh", "fish"] {
        let script = bed.run(&["completion", shell]);
        assert!(script.contains("checkpoint") && script.len() > 10_000, "{shell}");
    }
    fs::write(bed.path("c.sh"), bed.run(&["completion", "bash"])).unwrap();
    crate::bed::sh(&bed.path(""), "bash -n c.sh");
}
