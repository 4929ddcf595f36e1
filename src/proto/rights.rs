//! The rights to fields as the proto declares them, for the OpenAPI document. A test holds them to the policy.

use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage};

use super::{FILE_DESCRIPTOR_SET, v1::Role};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRights {
    pub field: String,
    pub member: String,
    /// The roles that may name it in an update.
    pub write: Vec<Role>,
    /// The roles that find it in answers.
    pub read: Vec<Role>,
}

/// The declared rights to every field, in the order of the proto.
pub fn declared() -> Result<Vec<FieldRights>, DescriptorError> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
    let organization = pool.get_message_by_name("organization.v1.Organization");
    let option = pool.get_extension_by_name("organization.v1.rights");
    let (Some(organization), Some(option)) = (organization, option) else { return Ok(Vec::new()) };
    let rights = organization.fields().filter_map(|field| {
        let options = field.options();
        let rights = options.get_extension(&option);
        let rights = rights.as_message()?;
        Some(FieldRights {
            field: field.name().to_owned(),
            member: field.json_name().to_owned(),
            write: roles(rights, "write"),
            read: roles(rights, "read"),
        })
    });
    Ok(rights.collect())
}

fn roles(rights: &DynamicMessage, list: &str) -> Vec<Role> {
    let roles = rights.get_field_by_name(list);
    let roles = roles.as_ref().and_then(|roles| roles.as_list()).unwrap_or_default();
    let role = |value: &prost_reflect::Value| Role::try_from(value.as_enum_number()?).ok();
    roles.iter().filter_map(role).collect()
}
