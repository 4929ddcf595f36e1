//! One change for each key of a caller's.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_index(
                Index::create()
                    .name("organization_changes_idempotency")
                    .table("organization_changes")
                    .if_not_exists()
                    .unique()
                    .col("subject")
                    .col("idempotency_key")
                    // Most changes have no key and cost the index nothing.
                    .and_where(Expr::col("idempotency_key").is_not_null())
                    .to_owned(),
            )
            .await
    }
}
