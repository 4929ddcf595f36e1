//! Promise 11: the accept loop in a simulated network with partitions and crashes.
