//! Lines against a table, and against git itself.

use super::*;
use crate::test_git::git;

const WANTED: [&[u8]; 5] = [b"text", b"crlf", b"eol", b"ident", b"working-tree-encoding"];
const BUILT_IN: &[u8] = b"[attr]binary -diff -merge -text";

/// As `git check-attr` says it.
fn said(state: State<'_>) -> String {
    match state {
        State::Set => "set".into(),
        State::Unset => "unset".into(),
        State::Unspecified => "unspecified".into(),
        State::Value(value) => String::from_utf8_lossy(value).into_owned(),
    }
}

fn text_of(file: &[u8], path: &str) -> String {
    let (lines, built_in) = (Lines::parse(file, true).unwrap(), Lines::parse(BUILT_IN, true).unwrap());
    let macros = [&lines, &built_in];
    let mut found = Found::new(&WANTED, &macros);
    found.take(&lines, path.as_bytes());
    said(found.state(b"text"))
}

#[test]
fn lines_say_what_git_reads_in_them() {
    let long = |bytes: usize| format!("{} text\n", "a".repeat(bytes - 5));
    for (file, want) in [
        ("a text\n", "set"),
        ("a -text", "unset"),
        ("* text\na !text\n", "unspecified"),
        ("a text=auto\r\n", "auto"),
        ("\u{feff}  a\ttext\n", "set"),
        ("# a text\n", "unspecified"),
        ("a text -text\n", "unset"),
        ("a text\na eol=lf\n", "set"),
        ("a binary\n", "unset"),
        ("a text binary\n", "unset"),
        ("a binary text\n", "set"),
        ("a -binary\n", "unspecified"),
        // A macro counts where it is named, and its last definition everywhere.
        ("a m\n[attr]m text\n[attr]m -text\n", "unset"),
        ("[attr]m m n\n[attr]n m text\na m\n", "set"),
        ("[attr]binary text\na binary\n", "set"),
        ("\"\\141\" text\n", "set"),
        ("\"a\"text\n", "set"),
        ("\"a text\n", "unspecified"),
        ("a/ text\n", "unspecified"),
        ("/a text\n", "set"),
        ("b/a text\n", "unspecified"),
        // Lines that git drops as a whole.
        ("!a text\n", "unspecified"),
        ("a text builtin_x\n", "unspecified"),
        ("a text b=c d\u{e9}\n", "unspecified"),
        ("a text --b\n", "unspecified"),
        ("a te\0xt text\n", "unspecified"),
        ("a text\0 -text\n", "set"),
    ] {
        assert_eq!(text_of(file.as_bytes(), "a"), want, "{file:?}");
    }
    let name = "a".repeat(MAX_LINE - 5);
    assert_eq!(text_of(long(MAX_LINE).as_bytes(), &name), "set");
    assert_eq!(text_of(long(MAX_LINE + 1).as_bytes(), &format!("{name}a")), "unspecified");
    // Only where a macro may be.
    assert_eq!(Lines::parse(b"[attr]m text\n", false).unwrap().len(), 0);
}

#[test]
fn hostile_lines_take_bounded_time_and_memory() {
    let many = "a x\n".repeat(limits::MAX_ATTRIBUTES_FILE_LINES);
    assert_eq!(Lines::parse(many.as_bytes(), true).unwrap().len(), limits::MAX_ATTRIBUTES_FILE_LINES);
    let error = Lines::parse((many + "a x\n").as_bytes(), true).unwrap_err();
    assert_eq!(error.reason, Reason::FileTooLarge);
    assert_eq!(error.metadata(), [("limit", limits::MAX_ATTRIBUTES_FILE_LINES.to_string())]);
    // Macros that name each other: each twice the next, to the power of their number if each were expanded each time; and one long chain.
    let doubled: String = (0..200).map(|n| format!("[attr]m{n} m{0} -m{0} m{0}\n", n + 1)).collect();
    assert_eq!(text_of(format!("{doubled}[attr]m200 text m0\na m0\n").as_bytes(), "a"), "set");
    let most = limits::MAX_ATTRIBUTES_FILE_LINES - 2;
    let chain: String = (0..most).map(|n| format!("[attr]m{n} m{}\n", n + 1)).collect();
    assert_eq!(text_of(format!("{chain}[attr]m{most} text\na m0\n").as_bytes(), "a"), "set");
}

struct Dice(u64);

impl Dice {
    fn next(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.next(of.len())]
    }
}

const PATTERNS: [&str; 26] = [
    "a",
    "*",
    "*.c",
    "/a",
    "b/",
    "b/*",
    "b/**",
    "**/x.c",
    "**/b/*",
    "[a-c]*",
    "[",
    "a\\",
    "\\a",
    "!a",
    "\\!a",
    "#a",
    "\"a b\"",
    "\"\\141\"",
    "\"a",
    "\"\\400\"",
    "\"\\t\"",
    "\"\"",
    "d?/a",
    "d1*/*.c",
    "x.*",
    "[attr]",
];
const WORDS: [&str; 32] = [
    "text",
    "-text",
    "!text",
    "text=auto",
    "text=",
    "text=odd",
    "crlf",
    "-crlf",
    "!crlf",
    "crlf=input",
    "eol=lf",
    "eol=crlf",
    "-eol",
    "ident",
    "-ident",
    "!ident",
    "working-tree-encoding=UTF-16",
    "-working-tree-encoding",
    "binary",
    "-binary",
    "!binary",
    "m1",
    "m2",
    "m3",
    "-m1",
    "!m2",
    "m1=x",
    "builtin_x",
    "b!d",
    "-",
    "=x",
    "other=b=c",
];

/// A random line: mostly one that git takes.
fn line(dice: &mut Dice) -> String {
    let name = match dice.next(6) {
        0 => format!("[attr]{}", dice.one(&["m1", "m2", "m3", "binary", "-m", "", "m1\t"])),
        1 => format!(
            "{}{}",
            dice.one(&[" ", "\t", ""]),
            dice.one(&["\"[attr]m2 x\"", "\"[attr] m3\"", "\"*\""])
        ),
        _ => dice.one(&PATTERNS).to_owned(),
    };
    // Those at the end of the list make git drop the line.
    let words = if dice.next(8) == 0 { &WORDS[..] } else { &WORDS[..27] };
    let words: String =
        (0..dice.next(5)).map(|_| format!("{}{}", dice.one(&[" ", "\t", "  "]), dice.one(words))).collect();
    format!("{name}{words}{}\n", dice.one(&["", "\r", " "]))
}

const PATHS: [&str; 9] = ["a", "a b", "!a", "#a", "x.c", "\t", "b/a", "b/x.c", "b/b/x.c"];

#[test]
fn git_finds_the_same() {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"], b"");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut differ, mut compared) = (0, 0);
    for round in 0..20 {
        // Macros stand at the root only, so that this has to change, too.
        let root: String = (0..dice.next(12)).map(|_| line(&mut dice)).collect();
        std::fs::write(dir.path().join(".gitattributes"), &root).unwrap();
        let (mut files, mut asked) = (Vec::new(), Vec::new());
        for n in 0..20 {
            let text: String = (0..dice.next(6)).map(|_| line(&mut dice)).collect();
            let top = dir.path().join(format!("d{n}"));
            std::fs::create_dir_all(&top).unwrap();
            std::fs::write(top.join(".gitattributes"), &text).unwrap();
            PATHS.iter().for_each(|path| asked.extend_from_slice(format!("d{n}/{path}\0").as_bytes()));
            files.push(text);
        }
        let mut args = vec!["check-attr", "-z", "--stdin"];
        args.extend(WANTED.iter().map(|name| std::str::from_utf8(name).unwrap()));
        let out = git(dir.path(), &args, &asked);
        let mut out = out.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let (top, built_in) =
            (Lines::parse(root.as_bytes(), true).unwrap(), Lines::parse(BUILT_IN, true).unwrap());
        for (n, text) in files.iter().enumerate() {
            let here = Lines::parse(text.as_bytes(), false).unwrap();
            let macros = [&here, &top, &built_in];
            for path in PATHS {
                let full = format!("d{n}/{path}");
                let mut found = Found::new(&WANTED, &macros);
                found.take(&here, path.as_bytes());
                found.take(&top, full.as_bytes());
                for name in WANTED {
                    assert_eq!(out.next().as_deref(), Some(full.as_str()));
                    assert_eq!(out.next().as_deref(), std::str::from_utf8(name).ok());
                    let ours = said(found.state(name));
                    differ += usize::from(ours != "unspecified");
                    compared += 1;
                    assert_eq!(Some(ours), out.next(), "{round} {full:?} {name:?}\n{root}\n---\n{text}");
                }
            }
        }
    }
    assert!(differ > compared / 10, "the lines say next to nothing: {differ} of {compared}");
}
