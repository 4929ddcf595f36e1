//! The change log: what an organization was at each version, and who made it so.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("organization_changes")
                    .if_not_exists()
                    // No foreign key: a row is written only together with its organization's, and
                    // a check would lock that row a second time.
                    .col(big_integer("organization_id"))
                    .col(big_integer("version"))
                    .col(timestamp_with_time_zone("date"))
                    .col(text("subject"))
                    .col(text("role"))
                    .col(text("request_id"))
                    // The organization at this version; a change of a field is the difference to
                    // the version before.
                    .col(text("name"))
                    .col(text_null("subscription_id"))
                    .col(big_integer("handshake_version"))
                    // The caller's key for the request, and SHA-256 of what it asked.
                    .col(text_null("idempotency_key"))
                    .col(var_binary_null("request_digest", 32))
                    .primary_key(Index::create().col("organization_id").col("version"))
                    .to_owned(),
            )
            .await
    }
}
