//! Over which attachments changes of a mount went that were not answered yet, and what a server that is asked again must be told of it.
//!
//! Guarantees: as long as one attempt may have been made, the name that the changes have in the server's journal (the first attachment
//! and `op_id`) stays, whatever attachments follow.

use crate::api;
use crate::mount::Link;

/// How some changes went so far.
pub(crate) struct Way {
    /// How often a crash had taken something back when they began.
    pub(crate) losses: u64,
    /// What had been seen of the session when they began: they are behind it.
    revision: u64,
    /// The attachment that they were sent over first.
    first: Option<String>,
    /// The one that they were sent over last, or are bound to, and its start of the server; 0: they are bound and not sent, or that server
    /// is of a version that does not name changes in its journal.
    before: Option<(String, u32)>,
    /// The newest start in which another attachment got them; 0: none did.
    elsewhere: u32,
    /// The one that they are bound to from the start.
    of: Option<String>,
    /// One that was sent and not answered may be applied at any time.
    pub(crate) is_unsure: bool,
}

impl Way {
    pub(crate) fn new(losses: u64, revision: u64, of: Option<String>) -> Self {
        Self { losses, revision, first: None, before: None, elsewhere: 0, of, is_unsure: false }
    }

    /// Nothing that was sent can have been made: as if nothing was.
    pub(crate) fn begin_anew(&mut self) {
        (self.first, self.elsewhere) = (None, 0);
        self.before = self.of.clone().map(|of| (of, 0));
    }

    /// Notes that they are sent over an attachment.
    pub(crate) fn go(&mut self, link: &Link) {
        if self.before.as_ref().is_none_or(|(id, _)| *id != link.mount_id) {
            self.elsewhere = self.before.as_ref().map_or(0, |(_, epoch)| *epoch);
        }
        let epoch = if link.knows_sent_before { link.epoch } else { 0 };
        self.before = Some((link.mount_id.clone(), epoch));
        self.first.get_or_insert_with(|| link.mount_id.clone());
    }

    /// The attachment that they were sent over last, or are bound to.
    pub(crate) fn over(&self) -> Option<&str> {
        self.before.as_ref().map(|(id, _)| id.as_str())
    }

    /// Whether no other attachment knows of them.
    pub(crate) fn is_over(&self, link: &Link) -> bool {
        self.over().is_none_or(|id| id == link.mount_id)
    }

    /// Whether the process that got them last is gone, and with it whatever it has not done.
    pub(crate) fn is_of_other_start(&self, link: &Link) -> bool {
        self.before.as_ref().is_some_and(|(_, epoch)| *epoch != 0 && *epoch < link.epoch)
    }

    /// For the server, when they go over `link`.
    pub(crate) fn sent_before(&self, link: &Link) -> Option<api::SentBefore> {
        let mount_id = self.first.clone().filter(|first| *first != link.mount_id)?;
        Some(api::SentBefore { mount_id, epoch: self.elsewhere, revision: self.revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(mount_id: &str, epoch: u32) -> Link {
        Link::for_test(mount_id, epoch)
    }

    #[test]
    fn the_name_stays_that_of_the_first_attachment() {
        let mut way = Way::new(0, 41, None);
        let [a, b, c] = [link("a", 1), link("b", 2), link("c", 3)];
        way.begin_anew();
        way.go(&a);
        assert!(way.is_over(&a) && way.sent_before(&a).is_none());
        assert!(!way.is_over(&b) && way.is_of_other_start(&b));
        let sent = |epoch| Some(api::SentBefore { mount_id: "a".into(), epoch, revision: 41 });
        for _ in 0..2 {
            way.go(&b);
            assert_eq!(way.sent_before(&b), sent(1));
        }
        assert!(
            !way.is_of_other_start(&link("b2", 2)),
            "the same start has it, and may not have done it yet"
        );
        way.go(&c);
        assert_eq!((way.sent_before(&c), way.over()), (sent(2), Some("c")));
        way.begin_anew();
        assert!(way.is_over(&a), "nothing of it was done");
        way.go(&c);
        assert_eq!(way.sent_before(&c), None);
    }

    #[test]
    fn a_server_that_names_no_changes_says_nothing_to_the_next() {
        let (mut way, mut old) = (Way::new(0, 0, None), link("a", 1));
        old.knows_sent_before = false;
        way.go(&old);
        assert!(way.is_over(&old) && !way.is_of_other_start(&link("b", 2)));
    }

    #[test]
    fn what_is_bound_was_not_sent() {
        let mut way = Way::new(0, 0, Some("a".into()));
        way.begin_anew();
        assert!(way.is_over(&link("a", 1)));
        assert!(!way.is_over(&link("b", 2)) && !way.is_of_other_start(&link("b", 2)));
    }
}
