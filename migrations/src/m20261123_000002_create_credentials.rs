//! The table of credentials: digests of secrets, never a secret.

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
                    .table("credentials")
                    .if_not_exists()
                    // SHA-256 of the secret.
                    .col(var_binary("digest", 32).primary_key())
                    .col(text("kind").check(Expr::col("kind").is_in(["bearer", "api-key"])))
                    .col(text("subject"))
                    .col(text("role").check(Expr::col("role").is_in([
                        "user",
                        "support",
                        "administrator",
                    ])))
                    .col(big_integer_null("organization_id"))
                    .col(timestamp_with_time_zone_null("expires_at"))
                    .col(timestamp_with_time_zone_null("revoked_at"))
                    .col(text_null("description"))
                    .col(timestamp_with_time_zone("created_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("credentials", "organization_id")
                            .to("organizations", "id"),
                    )
                    // A user belongs to one organization; the other roles to none.
                    .check(
                        Expr::col("role").eq("user").eq(Expr::col("organization_id").is_not_null()),
                    )
                    .to_owned(),
            )
            .await
    }
}
