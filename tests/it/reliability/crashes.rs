//! Promises 1 and 2: what was acknowledged survives kill -9, of the service and of the database.
