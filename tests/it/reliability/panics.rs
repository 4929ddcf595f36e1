//! Promise 18: a panic is one answer, and no answer tells of our insides.
