//! Promise 15: nothing is asked of PostgreSQL that distributed engines refuse.
