//! The methods of the service, by the names that logs and metrics have for them.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

use crate::proto::{FILE_DESCRIPTOR_SET, v1::organization_service_server::SERVICE_NAME};

/// One of a closed set, whatever clients call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(&'static str);

impl Method {
    /// The method that a path of HTTP/2 names.
    pub(super) fn of_path(path: &str) -> Self {
        let name = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
        Self::named(name.and_then(|name| name.strip_prefix('/')).unwrap_or_default())
    }

    pub(super) fn named(name: &str) -> Self {
        static METHODS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
            let service = DescriptorPool::decode(FILE_DESCRIPTOR_SET)
                .ok()
                .and_then(|pool| pool.get_service_by_name(SERVICE_NAME));
            let methods = service.iter().flat_map(|service| service.methods().collect::<Vec<_>>());
            methods
                .map(|method| {
                    (method.name().to_owned(), format!("{SERVICE_NAME}/{}", method.name()))
                })
                .collect()
        });
        let found = METHODS.iter().find(|(method, _)| method == name);
        Self(found.map_or("_OTHER", |(_, name)| name))
    }

    /// With the name of its service.
    pub(super) fn name(self) -> &'static str {
        self.0
    }

    pub(super) fn is_change(self) -> bool {
        matches!(self.0.rsplit('/').next(), Some("Update" | "Create"))
    }

    /// Whether it costs no token of a principal's rate limit, unless its caller asks for it (`orgd-counted`).
    pub(super) fn is_free(self) -> bool {
        self.0.rsplit('/').next() == Some("WhoAmI")
    }
}
