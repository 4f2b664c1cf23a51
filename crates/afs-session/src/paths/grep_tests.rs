//! What is shown of matches, and what is read for it.

use super::*;

fn hits(skip: usize, most: usize) -> Hits {
    Hits { skip, found: Vec::new(), most, wanted: usize::MAX, is_whole: true, binary: false }
}

#[test]
fn a_search_goes_on_where_it_stopped() {
    let matcher = matcher(&GrepQuery { pattern: "x".into(), ..GrepQuery::default() }).unwrap();
    let text = b"x\na\nx\nx\n";
    let lines = |skip, most| {
        let mut sink = hits(skip, most);
        SearcherBuilder::new().line_number(true).build().search_slice(&matcher, text, &mut sink).unwrap();
        (sink.found.iter().map(|hit| hit.line).collect::<Vec<_>>(), sink.is_whole)
    };
    assert_eq!(lines(0, 2), (vec![1, 3], false));
    assert_eq!(lines(2, 2), (vec![4], true));
    assert_eq!(lines(0, 3), (vec![1, 3, 4], true), "exactly all is all");
    assert_eq!(lines(3, 3), (vec![], true));
}

#[test]
fn long_lines_around_many_matches_are_read_a_few_times() {
    let long = "y".repeat(3 * MIN_PART_BYTES) + "\n";
    let text = (long + &"x\n".repeat(150)).repeat(4);
    let query = GrepQuery { pattern: "x".into(), before: 100, after: 100, ..GrepQuery::default() };
    let mut sink = hits(0, 1000);
    let matcher = matcher(&query).unwrap();
    SearcherBuilder::new()
        .line_number(true)
        .build()
        .search_slice(&matcher, text.as_bytes(), &mut sink)
        .unwrap();
    assert_eq!(sink.found.len(), 600);
    place(&mut sink.found, text.as_bytes(), &query);
    let (mut rest, mut read) = (&sink.found[..], 0);
    while !rest.is_empty() {
        let count = part_of(rest);
        read += rest[count - 1].shown.1 - rest[0].shown.0;
        rest = &rest[count..];
    }
    assert!(read <= 4 * text.len(), "{read} bytes of {}", text.len());
}

#[test]
fn context_of_one_match_is_bounded() {
    let line = "y".repeat(MAX_SHOWN_BYTES) + "\n";
    let text = line.repeat(100) + "x\n" + &line.repeat(100);
    let query = GrepQuery { pattern: "x".into(), before: 100, after: 100, ..GrepQuery::default() };
    let found = shown(text.as_bytes(), &query);
    assert_eq!((found[0].before.len(), found[0].after.len()), (100, 100));
    assert!(found[0].weight() < 2 * MAX_CONTEXT_BYTES, "{}", found[0].weight());
}

fn shown(bytes: &[u8], query: &GrepQuery) -> Vec<GrepMatch> {
    let matcher = matcher(query).unwrap();
    let mut sink = hits(0, 100);
    let mut searcher = SearcherBuilder::new().line_number(true).multi_line(query.multiline).build();
    searcher.search_slice(&matcher, bytes, &mut sink).unwrap();
    let whole: Vec<GrepMatch> =
        sink.found.iter().map(|hit| show(&SessionPath::root(), (bytes, 0), hit, &matcher, query)).collect();
    // The same from just the part that it needs.
    place(&mut sink.found, bytes, query);
    for (hit, whole) in sink.found.iter().zip(&whole) {
        let (from, to) = hit.shown;
        assert_eq!(show(&SessionPath::root(), (&bytes[from..to], from), hit, &matcher, query), *whole);
    }
    whole
}

#[test]
fn lines_with_context_and_spans() {
    let query = GrepQuery { pattern: "b+".into(), before: 1, after: 2, ..GrepQuery::default() };
    let found = shown(b"a\nxbbyb\r\nc\nd\ne\n", &query);
    let [m] = &found[..] else { panic!("{found:?}") };
    assert_eq!((m.line, m.text.as_str(), &m.spans[..]), (2, "xbbyb", &[(1, 3), (4, 5)][..]));
    assert_eq!((&m.before, &m.after), (&vec!["a".to_owned()], &vec!["c".to_owned(), "d".to_owned()]));
    // Neighbouring matches are each other's context.
    let found = shown(b"b\nb\n", &query);
    assert_eq!((&found[0].after, &found[1].before), (&vec!["b".to_owned()], &vec!["b".to_owned()]));
}

#[test]
fn ways_to_match() {
    let count = |pattern: &str, change: fn(&mut GrepQuery)| {
        let mut query = GrepQuery { pattern: pattern.into(), ..GrepQuery::default() };
        change(&mut query);
        shown("A.c\nabc\nÄ\nx".as_bytes(), &query).len()
    };
    assert_eq!(count("a.c", |_| {}), 1);
    assert_eq!(count("a.c", |q| q.ignore_case = true), 2);
    assert_eq!(count("A.c", |q| q.fixed_string = true), 1);
    assert_eq!(count("ä", |q| q.ignore_case = true), 1);
    assert_eq!(count("^x$", |_| {}), 1);
    let query = GrepQuery { pattern: "c\nab".into(), multiline: true, ..GrepQuery::default() };
    assert_eq!(shown(b"A.c\nabc\n", &query)[0].text, "A.c\nabc");
}

#[test]
fn bytes_that_are_not_text_shift_spans() {
    let query = GrepQuery { pattern: "b".into(), ..GrepQuery::default() };
    let m = &shown(b"\xffb", &query)[0];
    assert_eq!((m.text.as_str(), &m.spans[..]), ("\u{fffd}b", &[(3, 4)][..]));
}

#[test]
fn bad_patterns_are_named() {
    for bad in ["", "(", r"(\w{100}){1000}"] {
        let query = GrepQuery { pattern: bad.into(), ..GrepQuery::default() };
        let error = matcher(&query).err().unwrap();
        assert_eq!(error.reason, Reason::InvalidArgument, "{bad}");
        assert!(error.message().starts_with("pattern "), "{error}");
    }
    assert_eq!(overrides(&["[".into()]).unwrap_err().reason, Reason::InvalidArgument);
}
