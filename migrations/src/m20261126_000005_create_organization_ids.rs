//! The row that counts the ids of organizations.

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
                    .table("organization_ids")
                    .if_not_exists()
                    // There is one row at most, which the first creation stores.
                    .col(integer("id").primary_key().check(Expr::col("id").eq(1)))
                    .col(big_integer("next_id"))
                    .to_owned(),
            )
            .await
    }
}
