//! Promise 13: many start at once, and a release runs beside the one before.
