//! Promise 5: of many who change the same version, one wins.
