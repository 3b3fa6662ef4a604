//! Lists of items, each item in one list at most: which places a node has, which rows it leads.
//!
//! Walking a list is what the solver does most, and neighbours in a list are far apart as items; so
//! every list is a run of slots, not a chain of links. An item that leaves marks its slot as gone,
//! one that arrives takes the slot before the first; a run without room drops what is gone, or moves
//! to the end of the slots, with room to grow. What items and lists stand for is the business of whoever owns them.

use alloc::vec;
use alloc::vec::Vec;

/// A slot whose item has left, and "no item".
const GONE: u32 = u32::MAX;

/// The slots of one list: `head..end` are in use or gone, `base..head` are free.
#[derive(Clone, Copy, Debug)]
struct Run {
    base: u32,
    head: u32,
    end: u32,
}

/// Lists of items. New items come first.
#[derive(Debug)]
pub(super) struct Lists {
    runs: Vec<Run>,
    slots: Vec<u32>,
    /// The slot of every item; of no meaning for an item in no list.
    slot_of: Vec<u32>,
}

/// A place in a list that can be kept while items before it come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor(u32);

impl Cursor {
    /// Returns the item at the cursor, none at the end of the list.
    pub(super) fn item(self) -> Option<usize> {
        (self.0 != GONE).then_some(self.0 as usize)
    }
}

impl Lists {
    /// Returns empty lists, one for every number of items it can take before it has to move, for
    /// the items below `items`.
    pub(super) fn new(rooms: impl Iterator<Item = u32>, items: usize) -> Self {
        let mut base = 0;
        let runs: Vec<Run> = rooms
            .map(|room| {
                let end = base + room;
                let run = Run {
                    base,
                    head: end,
                    end,
                };
                base = end;
                run
            })
            .collect();
        Self {
            runs,
            slots: vec![GONE; base as usize],
            slot_of: vec![GONE; items],
        }
    }

    /// Puts an item that is in no list at the head of one.
    pub(super) fn link(&mut self, item: usize, list: usize) {
        if self.runs[list].head == self.runs[list].base {
            self.make_room(list);
        }
        let run = &mut self.runs[list];
        run.head -= 1;
        self.slots[run.head as usize] = item as u32;
        self.slot_of[item] = run.head;
    }

    /// Takes an item out of the list it is in.
    pub(super) fn unlink(&mut self, item: usize, list: usize) {
        let slot = self.slot_of[item];
        self.slots[slot as usize] = GONE;
        let run = &mut self.runs[list];
        if run.head == slot {
            run.head += 1;
        }
    }

    /// Drops the gone slots of a list, or moves it to where it has as much room again.
    fn make_room(&mut self, list: usize) {
        let Run { base, head, end } = self.runs[list];
        let items = self.slots[head as usize..end as usize].iter();
        let live = items.filter(|&&item| item != GONE).count() as u32;
        let (base, new_end) = match live < (end - base) / 2 {
            true => (base, end),
            false => {
                let base = self.slots.len() as u32;
                let new_end = base + 2 * live + 8;
                self.slots.resize(new_end as usize, GONE);
                (base, new_end)
            }
        };
        // From the back, so that within a run nothing is overwritten before it has moved.
        let mut to = new_end;
        for slot in (head..end).rev() {
            let item = self.slots[slot as usize];
            if item != GONE {
                to -= 1;
                self.slots[to as usize] = item;
                self.slot_of[item as usize] = to;
            }
        }
        self.runs[list] = Run {
            base,
            head: to,
            end: new_end,
        };
    }

    /// Returns the head of a list.
    pub(super) fn start(&self, list: usize) -> Cursor {
        let Run { head, end, .. } = self.runs[list];
        self.first_of(head, end)
    }

    /// Returns the heads of all lists.
    pub(super) fn starts(&self) -> Vec<Cursor> {
        (0..self.runs.len()).map(|list| self.start(list)).collect()
    }

    /// Returns what follows an item of a list.
    pub(super) fn after(&self, item: usize, list: usize) -> Cursor {
        self.first_of(self.slot_of[item] + 1, self.runs[list].end)
    }

    fn first_of(&self, from: u32, end: u32) -> Cursor {
        let slots = &self.slots[from as usize..end as usize];
        let found = slots.iter().copied().find(|&item| item != GONE);
        Cursor(found.unwrap_or(GONE))
    }

    /// Returns the items of a list in order.
    pub(super) fn items(&self, list: usize) -> impl Iterator<Item = usize> + '_ {
        let Run { head, end, .. } = self.runs[list];
        let slots = self.slots[head as usize..end as usize].iter();
        slots
            .filter(|&&item| item != GONE)
            .map(|&item| item as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(lists: &Lists, list: usize) -> Vec<usize> {
        let walked: Vec<usize> = lists.items(list).collect();
        let mut stepped = Vec::new();
        let mut cursor = lists.start(list);
        while let Some(item) = cursor.item() {
            stepped.push(item);
            cursor = lists.after(item, list);
        }
        assert_eq!(walked, stepped);
        walked
    }

    #[test]
    fn items_move_between_lists() {
        let mut lists = Lists::new([3, 0].into_iter(), 4);
        for item in [3, 1, 0] {
            lists.link(item, 0);
        }
        lists.link(2, 1);
        assert_eq!(items(&lists, 0), [0, 1, 3]);
        lists.unlink(1, 0);
        lists.link(1, 1);
        assert_eq!(items(&lists, 0), [0, 3]);
        assert_eq!(items(&lists, 1), [1, 2]);
        lists.unlink(0, 0);
        lists.unlink(2, 1);
        assert_eq!(items(&lists, 0), [3]);
        assert_eq!(items(&lists, 1), [1]);
        lists.unlink(3, 0);
        assert!(items(&lists, 0).is_empty());
    }

    #[test]
    fn a_list_that_keeps_changing_stays_small() {
        let mut lists = Lists::new([4, 4].into_iter(), 64);
        for item in (0..8).rev() {
            lists.link(item, item % 2);
        }
        for round in 0..10_000 {
            let item = round % 8;
            lists.unlink(item, item % 2);
            lists.link(item, item % 2);
        }
        // The last eight rounds put 0 to 7 at the heads in this order.
        assert_eq!(items(&lists, 0), [6, 4, 2, 0]);
        assert_eq!(items(&lists, 1), [7, 5, 3, 1]);
        // Each list has moved once, to 14 slots, and drops what is gone there ever after.
        assert_eq!(lists.slots.len(), 8 + 2 * 14);
    }
}
