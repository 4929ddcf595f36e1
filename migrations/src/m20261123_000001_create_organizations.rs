//! The table of organizations.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    // An idempotent step needs no transaction, and distributed engines refuse one that mixes
    // DDL with the insert of the step's record.
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("organizations")
                    .if_not_exists()
                    // Assigned by the service: no sequence, which distributed engines make costly.
                    .col(big_integer("id").primary_key())
                    .col(text("name"))
                    .col(text_null("subscription_id"))
                    .col(text_null("handshake"))
                    // The version at which the handshake changed last, 0 before it had one: by it the
                    // change log tells that it changed without keeping its values.
                    .col(big_integer("handshake_version"))
                    // 1 when created, one more with each change; the etag on the wire.
                    .col(big_integer("version"))
                    .col(timestamp_with_time_zone("date_created"))
                    .col(timestamp_with_time_zone("date_modified"))
                    .to_owned(),
            )
            .await
    }
}
