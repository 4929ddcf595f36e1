//! A page of a list.

/// How much a page has at most. It has one entry whatever its size, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    pub entries: usize,
    /// Bytes of the entries' texts.
    pub bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub entries: Vec<T>,
    pub has_more: bool,
}

impl<T> Page<T> {
    /// The page with other entries in place of its own.
    pub fn map<U>(self, entry: impl FnMut(T) -> U) -> Page<U> {
        let Self { entries, has_more } = self;
        Page { entries: entries.into_iter().map(entry).collect(), has_more }
    }
}
