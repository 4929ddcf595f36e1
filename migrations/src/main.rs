//! The migrations' own command line, as sea-orm-migration gives it:
//! `DATABASE_URL=… cargo run -p orgd-migrations -- up`.

#![forbid(unsafe_code)]

use orgd_migrations::Migrator;
use sea_orm_migration::cli;

#[tokio::main]
async fn main() {
    cli::run_cli(Migrator).await;
}
