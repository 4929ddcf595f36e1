//! New columns, for steps that alter several tables.

use sea_orm_migration::prelude::*;

/// Adds a column to a table that does not have it. A step may call this for one table after the other: if
/// it is cut between two, the next run leaves the first table alone and alters the second.
pub async fn add_column(
    manager: &SchemaManager<'_>,
    table: &'static str,
    column: ColumnDef,
) -> Result<(), DbErr> {
    // SQLite has no IF NOT EXISTS here. PostgreSQL would lock the table also where it has nothing to do, and
    // a step that waits for its second table asks again every second.
    if manager.has_column(table, column.get_column_name()).await? {
        return Ok(());
    }
    let alter = Table::alter().table(table).add_column_if_not_exists(column).to_owned();
    manager.alter_table(alter).await
}
