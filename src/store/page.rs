//! How a page is read: in pieces, so that others come between, and no further than the page has room.
//! Never more than a page and a piece is in memory.

use crate::domain::{Page, PageSize, Result};

/// Entries that one statement answers at most.
const PIECE_MAX: usize = 100;

/// Reads a page of what comes after a key. `piece` reads the entries after a key, so many at most, by
/// ascending key.
pub(super) async fn read<T, F: Future<Output = Result<Vec<T>>>>(
    size: PageSize,
    mut after: i64,
    piece: impl Fn(i64, usize) -> F,
    key: fn(&T) -> i64,
    bytes: fn(&T) -> usize,
) -> Result<Page<T>> {
    let mut page = Page { entries: Vec::new(), has_more: false };
    let mut bytes_left = size.bytes;
    loop {
        // One more than there is room for, by which it is known that there is another page.
        let left = size.entries.saturating_sub(page.entries.len());
        let wanted = left.saturating_add(1).min(PIECE_MAX);
        let found = piece(after, wanted).await?;
        let is_last = found.len() < wanted;
        for entry in found {
            let left = bytes_left.checked_sub(bytes(&entry));
            let has_room = page.entries.len() < size.entries;
            if !has_room || left.is_none() && !page.entries.is_empty() {
                page.has_more = true;
                return Ok(page);
            }
            bytes_left = left.unwrap_or(0);
            after = key(&entry);
            page.entries.push(entry);
        }
        if is_last {
            return Ok(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::ready};

    use futures_util::FutureExt;

    use super::{PIECE_MAX, read};
    use crate::domain::PageSize;

    /// A page of entries with these sizes and the keys 1, 2, …; and which pieces were read for it.
    fn page(sizes: &[usize], entries: usize, bytes: usize) -> (usize, bool, Vec<(i64, usize)>) {
        let pending = RefCell::new(Vec::new());
        let piece = |after: i64, count: usize| {
            pending.borrow_mut().push((after, count));
            let all = (1_i64..).zip(sizes.iter().copied());
            ready(Ok(all.filter(|(key, _)| *key > after).take(count).collect()))
        };
        let size = PageSize { entries, bytes };
        let read = read(size, 0, piece, |entry| entry.0, |entry| entry.1);
        let page = read.now_or_never().unwrap().unwrap();
        let keys: Vec<_> = page.entries.iter().map(|(key, _)| *key).collect();
        assert!(keys.into_iter().eq((1..).take(page.entries.len())));
        (page.entries.len(), page.has_more, pending.into_inner())
    }

    #[test]
    fn a_page_ends_with_its_entries_or_its_bytes_and_knows_whether_there_are_more() {
        for (sizes, entries, bytes, expected) in [
            (&[][..], 3, 10, (0, false)),
            (&[1, 1], 3, 10, (2, false)),
            (&[1, 1, 1], 3, 10, (3, false)),
            (&[1, 1, 1, 1], 3, 10, (3, true)),
            // By bytes: in the middle, exactly at the end of the list, and one short of it.
            (&[5, 5, 5], 3, 10, (2, true)),
            (&[5, 5], 3, 10, (2, false)),
            (&[5, 6], 3, 10, (1, true)),
            (&[0, 10, 0, 1], 9, 10, (3, true)),
            // One entry, whatever its size.
            (&[50], 3, 10, (1, false)),
            (&[50, 0], 3, 10, (2, false)),
            (&[50, 1], 3, 10, (1, true)),
            (&[9, 50], 3, 10, (1, true)),
        ] {
            let (count, has_more, pending) = page(sizes, entries, bytes);
            assert_eq!((count, has_more), expected, "{sizes:?}");
            assert_eq!(pending, [(0, entries + 1)]);
        }
    }

    #[test]
    fn a_page_is_read_in_pieces_and_no_further_than_it_has_room() {
        let ones = [1; 500];
        for (count, entries, bytes, expected, pending) in [
            (500, 150, 1000, (150, true), &[(0, PIECE_MAX), (100, 51)][..]),
            (150, 150, 1000, (150, false), &[(0, PIECE_MAX), (100, 51)]),
            (100, 100, 1000, (100, false), &[(0, PIECE_MAX), (100, 1)]),
            (500, 400, 99, (99, true), &[(0, PIECE_MAX)]),
            (500, 400, 100, (100, true), &[(0, PIECE_MAX), (100, PIECE_MAX)]),
            (200, 400, 200, (200, false), &[(0, PIECE_MAX), (100, PIECE_MAX), (200, PIECE_MAX)]),
        ] {
            let sizes = ones.get(..count).unwrap();
            let read = page(sizes, entries, bytes);
            assert_eq!((read.0, read.1), expected);
            assert_eq!(read.2, pending);
        }
    }
}
