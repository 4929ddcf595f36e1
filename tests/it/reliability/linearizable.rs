//! Promise 6: what callers saw under faults has an order in which each saw the truth.
