//! Promise 3: a disk that is full, or fails, under SQLite.
