//! Lists that come in pages.
//!
//! Guarantees: a list without a limit is whole; what is for people is printed page by page, so that a list of any length takes the memory of one
//! page; a list that a limit has cut says so. JSON is one value, and therefore printed when all of it is there: a list that breaks off is none.

use crate::context::Context;
use crate::output::Listing;
use afs_types::{Result, limits};
use serde::Serialize;

/// Page after page, at most `limit` items, each page handed to `show`. True: there are more.
pub(crate) async fn pages<T>(
    limit: Option<usize>,
    mut page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String)>,
    mut show: impl FnMut(Vec<T>),
) -> Result<bool> {
    let (mut left, mut token) = (limit.unwrap_or(usize::MAX), String::new());
    loop {
        let size = left.clamp(1, limits::MAX_PAGE);
        let (mut items, next) = page(i32::try_from(size).unwrap_or(i32::MAX), token).await?;
        let is_cut = items.len() > left;
        items.truncate(left);
        left -= items.len();
        show(items);
        token = next;
        if left == 0 || token.is_empty() {
            return Ok(is_cut || !token.is_empty());
        }
    }
}

/// All items at once.
pub(crate) async fn all<T>(page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String)>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    pages(None, page, |items| all.extend(items)).await?;
    Ok(all)
}

/// Prints a list as a table, or as one JSON array.
pub(crate) async fn list<T: Serialize, const N: usize>(
    cx: &Context,
    limit: Option<usize>,
    head: [&'static str; N],
    page: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String)>,
    row: impl Fn(&T) -> [String; N],
) -> Result<()> {
    let (mut listing, mut kept) = (Listing::new(head), Vec::new());
    let more = pages(limit, page, |items| match cx.out.json {
        true => kept.extend(items),
        false => cx.out.bytes(listing.page(items.iter().map(&row)).as_bytes()),
    });
    let more = more.await?;
    if cx.out.json {
        cx.out.json_value(&kept);
    }
    if more {
        cut(cx, limit);
    }
    Ok(())
}

/// Says that a limit has cut a list.
pub(crate) fn cut(cx: &Context, limit: Option<usize>) {
    let shown = limit.unwrap_or_default();
    cx.out.remark(&format!("the first {shown} are shown, there are more: leave --limit out to see all"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context as Poller, Poll, Waker};

    /// Nothing here waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Poller::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    /// What is shown of `total` items, how many pages that took, and whether there are more.
    fn look(total: usize, limit: Option<usize>) -> (Vec<usize>, usize, bool) {
        let (mut seen, mut calls) = (Vec::new(), 0);
        let page = async |size: i32, token: String| {
            calls += 1;
            let from: usize = if token.is_empty() { 0 } else { token.parse().unwrap() };
            let to = total.min(from + usize::try_from(size).unwrap());
            Ok(((from..to).collect(), if to < total { to.to_string() } else { String::new() }))
        };
        let more = now(pages(limit, page, |items| seen.extend(items))).unwrap();
        (seen, calls, more)
    }

    #[test]
    fn a_list_without_a_limit_is_whole_and_a_limit_says_that_it_cuts() {
        let whole: Vec<usize> = (0..2500).collect();
        assert_eq!(look(2500, None), (whole.clone(), 3, false));
        assert_eq!(look(2500, Some(2500)), (whole.clone(), 3, false));
        assert_eq!(look(2500, Some(9000)), (whole.clone(), 3, false));
        assert_eq!(look(2500, Some(1001)), (whole[..1001].to_vec(), 2, true));
        assert_eq!(look(2500, Some(7)), (whole[..7].to_vec(), 1, true));
        assert_eq!(look(1, Some(0)), (vec![], 1, true));
        assert_eq!(look(0, None), (vec![], 1, false));
    }

    #[test]
    fn a_page_may_be_smaller_than_asked_for_and_even_empty() {
        let mut parts = vec![(vec![1, 2], "a"), (vec![], "b"), (vec![3], "")].into_iter();
        let page = async |_: i32, _: String| {
            let (items, next) = parts.next().unwrap();
            Ok((items, next.to_owned()))
        };
        assert_eq!(now(all(page)).unwrap(), [1, 2, 3]);
    }
}
