//! Settings that contradict each other, each of them right by itself: told before anything is opened.

use super::output::{Failed, WRONG_WORDS};
use crate::{
    config::{PoolArgs, ServingArgs},
    store::STATEMENT_TIMEOUT_MAX,
};

pub(super) fn of_serving(serving: &ServingArgs) -> Result<(), Failed> {
    refuse_if(
        serving.proxies.proxy_protocol && serving.proxies.trusted_proxies.is_empty(),
        "--proxy-protocol needs --trusted-proxies: nobody else could connect",
    )
}

pub(super) fn of_pool(pool: &PoolArgs, serving: &ServingArgs) -> Result<(), Failed> {
    let statement_timeout = pool.database_statement_timeout.0;
    refuse_if(
        statement_timeout >= serving.limits.request_deadline.0,
        "--database-statement-timeout must be shorter than --request-deadline: a statement would be \
         applied after its caller was told that its time is over",
    )?;
    refuse_if(
        statement_timeout > STATEMENT_TIMEOUT_MAX,
        &format!(
            "--database-statement-timeout must be {STATEMENT_TIMEOUT_MAX:?} at most: a revocation \
             waits until every statement that began before it is over"
        ),
    )
}

fn refuse_if(contradicts: bool, sentence: &str) -> Result<(), Failed> {
    if contradicts { Err(Failed::new(WRONG_WORDS, sentence)) } else { Ok(()) }
}
