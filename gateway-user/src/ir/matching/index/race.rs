//! The lowest rule of a few lists that holds.

/// Lists that are walked together; more are walked in several goes.
const LISTS: usize = 16;

/// Finds the lowest number of several ascending lists for which a question is answered with yes, and asks for as few as
/// possible, each once: in one go, those up to the answer.
pub(super) struct Race<'i, F> {
    holds: F,
    lists: [&'i [usize]; LISTS],
    used: usize,
    first: Option<usize>,
}

impl<'i, F: FnMut(usize) -> bool> Race<'i, F> {
    /// A race without lists; `holds` answers for a number.
    pub(super) fn new(holds: F) -> Self {
        Self {
            holds,
            lists: [&[]; LISTS],
            used: 0,
            first: None,
        }
    }

    /// Takes a list part.
    pub(super) fn enter(&mut self, list: Option<&'i Vec<usize>>) {
        let Some(list) = list.filter(|list| list.first().is_some_and(|head| self.may_win(*head)))
        else {
            return;
        };
        if self.used == LISTS {
            self.run();
        }
        self.lists[self.used] = list;
        self.used += 1;
    }

    /// The lowest number that holds.
    pub(super) fn first(mut self) -> Option<usize> {
        self.run();
        self.first
    }

    fn run(&mut self) {
        let used = self.used;
        self.used = 0;
        loop {
            let heads = self.lists[..used].iter().filter_map(|list| list.first());
            let Some(next) = heads.min().copied().filter(|next| self.may_win(*next)) else {
                return;
            };
            if (self.holds)(next) {
                self.first = Some(next);
                return;
            }
            for list in &mut self.lists[..used] {
                if let [head, rest @ ..] = *list
                    && *head == next
                {
                    *list = rest;
                }
            }
        }
    }

    fn may_win(&self, number: usize) -> bool {
        self.first.is_none_or(|first| number < first)
    }
}
