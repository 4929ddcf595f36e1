//! The methods of the service, by the names that logs and metrics have for them.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

use crate::proto::{FILE_DESCRIPTOR_SET, v1::organization_service_server::SERVICE_NAME};

static METHODS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let service = DescriptorPool::decode(FILE_DESCRIPTOR_SET)
        .ok()
        .and_then(|pool| pool.get_service_by_name(SERVICE_NAME));
    let methods = service.iter().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| format!("{SERVICE_NAME}/{}", method.name())).collect()
});

/// One of a closed set, whatever clients call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(&'static str);

impl Method {
    /// The method that a path of HTTP/2 names.
    pub(super) fn of_path(path: &str) -> Self {
        let name = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
        Self::named(name.and_then(|name| name.strip_prefix('/')).unwrap_or_default())
    }

    /// The method that the proto calls so.
    pub(super) fn named(name: &str) -> Self {
        let found = METHODS.iter().find(|method| Self(method).short() == name);
        Self(found.map_or("_OTHER", String::as_str))
    }

    /// With the name of its service.
    pub(super) fn name(self) -> &'static str {
        self.0
    }

    fn short(self) -> &'static str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn is_change(self) -> bool {
        matches!(self.short(), "Update" | "Create")
    }

    /// Whether it costs no token of a principal's rate limit, unless its caller asks for it (`orgd-counted`).
    pub(super) fn is_free(self) -> bool {
        self.short() == "WhoAmI"
    }
}

#[cfg(test)]
mod tests {
    use super::{METHODS, Method};

    const READING: [&str; 5] = ["Get", "List", "ListChanges", "Watch", "WhoAmI"];

    #[test]
    fn each_method_of_the_proto_is_known_to_read_or_to_change() {
        assert_eq!(METHODS.len(), READING.len() + 2);
        for method in METHODS.iter() {
            let method = Method(method);
            assert_ne!(method.is_change(), READING.contains(&method.short()), "{method:?}");
        }
    }

    #[test]
    fn a_path_names_a_method_of_the_service_or_another() {
        for (path, name, is_change, is_free) in [
            ("/organization.v1.OrganizationService/Update", "Update", true, false),
            ("/organization.v1.OrganizationService/Create", "Create", true, false),
            ("/organization.v1.OrganizationService/Get", "Get", false, false),
            ("/organization.v1.OrganizationService/WhoAmI", "WhoAmI", false, true),
        ] {
            let method = Method::of_path(path);
            assert_eq!(method, Method::named(name), "{path}");
            assert_eq!(method.name(), path.trim_start_matches('/'));
            assert_eq!((method.is_change(), method.is_free()), (is_change, is_free), "{path}");
        }
        for path in [
            "",
            "/",
            "Update",
            "/organization.v1.OrganizationService/",
            "/organization.v1.OrganizationService/update",
            "/organization.v1.OrganizationService/x/Update",
            "organization.v1.OrganizationService/Update",
            "/organization.v1.OrganizationServiceUpdate",
            "/organization.v2.OrganizationService/Update",
        ] {
            let method = Method::of_path(path);
            let is_special = method.is_change() || method.is_free();
            assert_eq!((method.name(), is_special), ("_OTHER", false), "{path}");
        }
    }
}
