//! Content against a plain byte array, by random histories.
use super::*;

/// Each source byte has one value, so that a wrong offset shows.
fn byte(source: Source) -> u8 {
    match source {
        Source::Log(at) => (at.offset as u8).wrapping_mul(31) ^ at.segment as u8,
        Source::Blob(id, offset) => (offset as u8).wrapping_mul(17) ^ id.0[0],
    }
}

fn read(content: &Content, size: u64, offset: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for run in content.runs(size, offset, len) {
        assert_eq!(run.start, offset + out.len() as u64, "runs have no gap");
        out.extend((0..run.len).map(|i| run.source.map_or(0, |s| byte(s.skip(i)))));
    }
    out
}

#[test]
fn content_agrees_with_bytes() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..300 {
        let (mut content, mut model) = (Content::Empty, Vec::<u8>::new());
        let mut log = 0;
        for _ in 0..60 {
            let (offset, len) = (next(300), 1 + next(80));
            match next(10) {
                0 => {
                    content.truncate(offset);
                    model.resize(offset as usize, 0);
                }
                1 => {
                    content.punch(model.len() as u64, offset, len);
                    let (a, b) =
                        ((offset as usize).min(model.len()), ((offset + len) as usize).min(model.len()));
                    model[a..b].fill(0);
                }
                n => {
                    let offset = if n < 5 { model.len() as u64 } else { offset };
                    let source = match n {
                        8 => Source::Blob(BlobId([7; 32]), if offset == 0 { 0 } else { next(50) }),
                        _ => Source::Log(LogRef { segment: 1, offset: log }),
                    };
                    log += len;
                    content.write(model.len() as u64, offset, len, source);
                    if model.len() < (offset + len) as usize {
                        model.resize((offset + len) as usize, 0);
                    }
                    for i in 0..len {
                        model[(offset + i) as usize] = byte(source.skip(i));
                    }
                }
            }
            let size = model.len() as u64;
            assert_eq!(read(&content, size, 0, size), model);
            let from = next(size.max(1));
            assert_eq!(
                read(&content, size, from, 33),
                model[from as usize..][..33.min((size - from) as usize)]
            );
            let mut e = Enc::new();
            content.encode(&mut e);
            let back = Content::decode(&mut Dec::new(&e.out, "content")).unwrap();
            assert_eq!(read(&back, size, 0, size), model);
        }
    }
}

/// A blob that is cut, or of which only the start was copied, is not the content: an etag made of its id would
/// say that two different files are equal.
#[test]
fn a_part_of_a_blob_is_not_the_whole() {
    let id = BlobId([7; 32]);
    let mut cut = Content::Blob(id, 100);
    assert_eq!(cut.whole_blob(100), Some(id));
    cut.truncate(100);
    assert_eq!(cut.whole_blob(100), Some(id));
    cut.truncate(50);
    assert_eq!((cut.whole_blob(50), cut.allocated(50)), (None, 50));
    assert_eq!(read(&cut, 50, 0, 50), read(&Content::Blob(id, 100), 100, 0, 50));
    let mut copied = Content::Empty;
    copied.write(0, 0, 50, Source::Blob(id, 0));
    assert_eq!((copied.whole_blob(50), copied.allocated(50)), (None, 50));
}

#[test]
fn pieces_make_a_content() {
    let piece = |offset| Piece { len: 10, source: Source::Log(LogRef { segment: 1, offset }) };
    let content = Content::of_pieces([(0, piece(7)), (30, piece(90))]);
    assert_eq!((content.allocated(60), content.is_unsealed()), (20, true));
    let starts: Vec<_> = content.runs(60, 0, 60).iter().map(|r| (r.start, r.source.is_some())).collect();
    assert_eq!(starts, [(0, true), (10, false), (30, true), (40, false)]);
    assert!(matches!(Content::of_pieces([]), Content::Empty));
}
