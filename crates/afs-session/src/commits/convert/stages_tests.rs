//! Stages against a table, in pieces of any size, and against git itself.

use super::*;
use crate::test_git::{git, try_git};
use std::path::Path;

/// What all stages make of some bytes that come in pieces of one size.
fn run(mut stages: Stages, bytes: &[u8], piece: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for piece in bytes.chunks(piece) {
        stages.push(piece, &mut out)?;
    }
    stages.finish(&mut out)?;
    Ok(out)
}

fn stages(encoding: Option<&str>, line_ends: bool, ident: bool) -> Stages {
    let decode = encoding.map(|name| Decoder::named(name.as_bytes()).unwrap());
    Stages::new(decode, line_ends.then(CrLf::default), ident.then(Ident::default))
}

fn stats(bytes: &[u8], piece: usize) -> Stats {
    let mut stats = Stats::default();
    bytes.chunks(piece).for_each(|piece| stats.push(piece));
    stats.finish();
    stats
}

#[test]
fn what_looks_like_text_is_gits_rule() {
    let printable = |n: usize| "x".repeat(n);
    for (bytes, crlf, is_binary) in [
        (String::new(), 0, false),
        ("a\r\nb\n".into(), 1, false),
        ("a\r\r\n".into(), 1, true),
        ("a\r".into(), 0, true),
        ("a\0\r\n".into(), 1, true),
        ("\x1b[1m\x08\x0c\t\r\n".into(), 1, false),
        ("a\x7f\r\n".into(), 1, true),
        (printable(127) + "\x01", 0, true),
        (printable(128) + "\x01", 0, false),
        (printable(255) + "\x01\x01", 0, true),
        // An end of file of old, at the end only.
        ("a\r\n\x1a".into(), 1, false),
        ("a\x1a\r\n".into(), 1, true),
    ] {
        for piece in 1..4 {
            let stats = stats(bytes.as_bytes(), piece);
            assert_eq!((stats.crlf, stats.is_binary()), (crlf, is_binary), "{bytes:?} by {piece}");
        }
    }
}

#[test]
fn pieces_make_no_difference() {
    let text = "$Id: a$ $Id$ $I$Id:x\ny$\r\n$$Id:$\r\r\n$Id: \r\n$ \u{1f600}\u{e9}$Id: open";
    let want = "$Id$ $Id$ $I$Id:x\ny$\n$$Id$\r\n$Id: \n$ \u{1f600}\u{e9}$Id: open";
    let utf16: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    let utf32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    for (encoding, bytes) in
        [(None, text.as_bytes()), (Some("utf-16"), &utf16[..]), (Some("UTF32LE"), &utf32[..])]
    {
        for piece in [1, 2, 3, 5, 7, 1000] {
            let made = run(stages(encoding, true, true), bytes, piece).unwrap();
            assert_eq!(String::from_utf8(made).unwrap(), want, "{encoding:?} by {piece}");
        }
    }
}

#[test]
fn an_ident_without_end_is_refused_not_kept() {
    let most = limits::MAX_IDENT_BYTES;
    let text = |n: usize| format!("$Id:{}\n", "x".repeat(n - 4));
    assert_eq!(run(stages(None, false, true), text(most).as_bytes(), 4096).unwrap().len(), most + 1);
    let error = run(stages(None, false, true), text(most + 1).as_bytes(), 4096).unwrap_err();
    assert_eq!(error.reason, Reason::FileTooLarge);
    assert_eq!(error.metadata(), [("limit", most.to_string())]);
}

/// The blob that git makes of some bytes; none if it refuses them.
fn blob(dir: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
    let git = |args: &[&str], input: &[u8]| {
        let output = try_git(dir, args, input);
        output.status.success().then_some(output.stdout)
    };
    let oid = git(&["hash-object", "-w", "--stdin", "--path=f"], bytes)?;
    git(&["cat-file", "blob", String::from_utf8(oid).unwrap().trim()], b"")
}

fn repository(attributes: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"], b"");
    std::fs::write(dir.path().join(".gitattributes"), attributes).unwrap();
    dir
}

#[test]
fn git_reads_encodings_the_same() {
    let utf16 = |text: &str, big: bool| -> Vec<u8> {
        let units = text.encode_utf16();
        units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    };
    let utf32 = |text: &str, big: bool| -> Vec<u8> {
        let chars = text.chars().map(u32::from);
        chars.flat_map(|c| if big { c.to_be_bytes() } else { c.to_le_bytes() }).collect()
    };
    let text = "a\u{e9}\r\n\u{1f600}\u{feff}\u{ffff}";
    let marked = format!("\u{feff}{text}");
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for text in [text, &marked] {
        for big in [false, true] {
            inputs.extend([utf16(text, big), utf32(text, big)]);
        }
    }
    // Halves of characters, in the wrong order, and cut.
    for units in [&b"\xff\xfe\x00\xd8"[..], b"\xff\xfe\x00\xdc\x00\xd8", b"\xff\xfea", b"\xff\xfe", b"\xff"] {
        inputs.push(units.to_vec());
    }
    inputs.push(b"\xff\xfe\0\0\0\xd8\0\0".to_vec());
    inputs.push(b"\xff\xfe\0\0\0\0\x11\0".to_vec());
    for name in ["UTF-16", "utf16", "UTF-16LE", "UTF-16BE", "UTF-16LE-BOM", "UTF-32", "UTF-32LE", "UTF-32BE"]
    {
        let dir = repository(&format!("f working-tree-encoding={name}\n"));
        for bytes in &inputs {
            let ours = run(stages(Some(name), false, false), bytes, 3).ok();
            assert_eq!(ours, blob(dir.path(), bytes), "{name} {bytes:x?}");
        }
    }
    for name in ["UTF-16BE-BOM", "UTF-32LE-BOM", "nonsense", "true"] {
        assert_eq!(Decoder::named(name.as_bytes()).map(drop).unwrap_err().reason, Reason::Unsupported);
        assert_eq!(
            blob(repository(&format!("f working-tree-encoding={name}\n")).path(), b"a"),
            None,
            "{name}"
        );
    }
}

#[test]
fn git_reads_every_byte_of_an_encoding_the_same() {
    for name in SINGLE_BYTE.into_iter().chain(["cp1252", "ISO8859-15", "CP866"]) {
        let dir = repository(&format!("f working-tree-encoding={name}\n"));
        let known = |byte: &u8| run(stages(Some(name), false, false), &[*byte], 1).is_ok();
        let (good, bad): (Vec<u8>, Vec<u8>) = (0..=255).partition(known);
        assert!(good.len() > 200, "{name}: {bad:x?}");
        assert_eq!(run(stages(Some(name), false, false), &good, 7).ok(), blob(dir.path(), &good), "{name}");
        for byte in bad {
            assert_eq!(blob(dir.path(), &[byte]), None, "{name} {byte:x}");
        }
    }
}

#[test]
fn git_makes_the_same_of_ends_of_lines_and_ids() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |most: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % most as u64) as usize
    };
    let parts: [&[u8]; 12] = [
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\x1a",
        b"$",
        b"$Id$",
        b"$Id: x $",
        b"$Id:",
        b"Id:$",
        b"text ",
    ];
    let [text, auto] = ["f text ident\n", "f text=auto\n"].map(repository);
    let mut changed = 0;
    for round in 0..150 {
        // The rare ones not in each.
        let from = if next(3) == 0 { &parts[..] } else { &parts[6..] };
        let mut bytes: Vec<u8> = (0..next(9)).flat_map(|_| from[next(from.len())].iter().copied()).collect();
        bytes.extend_from_slice(if next(2) == 0 { b"\r\n" } else { b"" });
        let ours = run(stages(None, true, true), &bytes, 1 + round % 3).unwrap();
        changed += usize::from(ours != bytes);
        assert_eq!(Some(ours), blob(text.path(), &bytes), "{:?}", String::from_utf8_lossy(&bytes));
        let stats = stats(&bytes, 1 + round % 3);
        let ours = run(stages(None, !stats.is_binary(), false), &bytes, 2).unwrap();
        changed += usize::from(ours != bytes);
        assert_eq!(Some(ours), blob(auto.path(), &bytes), "{:?}", String::from_utf8_lossy(&bytes));
    }
    assert!(changed > 100, "the bytes give next to nothing to do: {changed}");
}
