//! When a credential was used last, to about a minute.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite has no `ADD COLUMN IF NOT EXISTS`.
        if manager.has_column("credentials", "last_used_time").await? {
            return Ok(());
        }
        let column = timestamp_with_time_zone_null("last_used_time");
        let alter = Table::alter().table("credentials").add_column(column).to_owned();
        manager.alter_table(alter).await
    }
}
