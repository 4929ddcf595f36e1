//! The statements on organizations.

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, FromQueryResult, QueryFilter,
    QuerySelect, QueryTrait, SqlErr,
    sea_query::{Expr, InsertStatement, UpdateStatement},
};

use super::{Store, clock, credentials, entity::organizations, internal, only};
use crate::domain::{
    Change, Error, Etag, Field, Organization, OrganizationId, Patch, Principal, Result, Text,
};

/// How often an update is tried again that lost its row between its two statements, before the
/// caller is told to come back.
const UPDATE_ATTEMPTS_MAX: u32 = 5;
/// How often an id is chosen anew when another creation took it.
const CREATE_ATTEMPTS_MAX: u32 = 20;

/// An organization that is to be stored.
#[derive(Clone, Debug)]
pub struct NewOrganization {
    /// Its id; none: the next one.
    pub id: Option<OrganizationId>,
    /// Its name.
    pub name: Text,
    /// Its subscription, where it has one.
    pub subscription_id: Option<Text>,
}

impl Store {
    /// The organization with this id.
    pub async fn find_organization(&self, id: OrganizationId) -> Result<Option<Organization>> {
        // `.all()`: `.one()` binds a LIMIT, which halves SQLite's rate of reads by key.
        let rows = organizations::Entity::find_by_id(id.get()).all(&self.reader).await?;
        only(rows).map(Organization::try_from).transpose()
    }

    /// The organization with this id, or [`Error::NotFound`].
    pub async fn get_organization(&self, id: OrganizationId) -> Result<Organization> {
        self.find_organization(id).await?.ok_or(Error::NotFound(id))
    }

    /// Applies a patch in one statement, which names the changed columns alone, compares the
    /// version where an etag is given, leaves a row alone that would not change, and checks that
    /// the principal's credential still holds. Answers the organization as it is then.
    ///
    /// Only when no row is touched a second statement tells missing, stale and unchanged apart.
    pub async fn update_organization(
        &self,
        principal: &Principal,
        id: OrganizationId,
        patch: &Patch<Text>,
        etag: Option<Etag>,
    ) -> Result<Organization> {
        for _ in 0..UPDATE_ATTEMPTS_MAX {
            if !patch.is_empty() {
                let rows = self.write(&update_statement(principal, id, patch, etag)).await?;
                if let Some(row) = only(rows) {
                    return organizations::Model::from_query_result(&row, "")?.try_into();
                }
            }
            if self.find_principal(&principal.credential).await?.as_ref() != Some(principal) {
                return Err(Error::CredentialInvalid);
            }
            let current = self.get_organization(id).await?;
            if etag.is_some_and(|etag| etag != current.etag) {
                return Err(Error::EtagMismatch { current: current.etag });
            }
            if patch.apply(current.clone()) == current {
                return Ok(current);
            }
            // Changed, or created, by somebody else between the two statements: apply it to that.
        }
        Err(Error::Unavailable("an update lost its row to others too often".into()))
    }

    /// Stores a new organization; where it names no id, under the one after the largest.
    pub async fn create_organization(&self, new: &NewOrganization) -> Result<Organization> {
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let id = match new.id {
                Some(id) => id,
                None => self.next_organization_id().await?,
            };
            match self.write(&insert_statement(id, new)).await {
                Ok(rows) => {
                    let row = only(rows).ok_or_else(|| internal("an insert returned no row"))?;
                    return organizations::Model::from_query_result(&row, "")?.try_into();
                }
                Err(error) if is_taken(&error) && new.id.is_none() => {}
                Err(error) if is_taken(&error) => return Err(Error::AlreadyExists(id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable("a creation lost its id to others too often".into()))
    }

    async fn next_organization_id(&self) -> Result<OrganizationId> {
        let largest = organizations::Entity::find()
            .select_only()
            .column_as(organizations::Column::Id.max(), "id")
            .into_tuple::<Option<i64>>()
            .all(&self.reader)
            .await?;
        let next = only(largest).flatten().unwrap_or(0).saturating_add(1);
        OrganizationId::new(next).ok_or_else(|| internal("the largest organization id is taken"))
    }
}

fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

fn insert_statement(id: OrganizationId, new: &NewOrganization) -> InsertStatement {
    let now = clock::now();
    let row = organizations::ActiveModel {
        id: Set(id.get()),
        name: Set(new.name.as_str().to_owned()),
        subscription_id: Set(new.subscription_id.as_ref().map(|text| text.as_str().to_owned())),
        handshake: Set(None),
        version: Set(1),
        date_created: Set(now),
        date_modified: Set(now),
    };
    organizations::Entity::insert(row).into_query().returning_all().to_owned()
}

fn update_statement(
    principal: &Principal,
    id: OrganizationId,
    patch: &Patch<Text>,
    etag: Option<Etag>,
) -> UpdateStatement {
    // Destructured without `..`, so that a new field cannot be forgotten here.
    let Patch { name, subscription_id, handshake } = patch;
    let changes = [
        (Field::Name, name),
        (Field::SubscriptionId, subscription_id),
        (Field::Handshake, handshake),
    ];
    let mut update = organizations::Entity::update_many();
    let mut differs = Condition::any();
    for (field, change) in changes {
        let column = column(field);
        let value = match change {
            Change::Keep => continue,
            Change::Clear => {
                differs = differs.add(column.is_not_null());
                None
            }
            Change::Set(text) => {
                differs = differs.add(column.is_null()).add(column.ne(text.as_str()));
                Some(text.as_str())
            }
        };
        update = update.col_expr(column, Expr::value(value));
    }
    let version = organizations::Column::Version;
    update
        .col_expr(version, Expr::col(version).add(1))
        .col_expr(organizations::Column::DateModified, Expr::value(clock::now()))
        .filter(organizations::Column::Id.eq(id.get()))
        .filter(differs)
        .filter(credentials::still_proves(principal))
        .apply_if(etag, |update, etag| update.filter(version.eq(etag.version())))
        .into_query()
        .returning_all()
        .to_owned()
}

fn column(field: Field) -> organizations::Column {
    match field {
        Field::Name => organizations::Column::Name,
        Field::SubscriptionId => organizations::Column::SubscriptionId,
        Field::Handshake => organizations::Column::Handshake,
    }
}
