//! `oci://host/repository` and `oci://host/prefix/`.

use std::fmt;

use crate::name::PackageName;

/// A repository, or the beginning of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciPlace {
    /// `host` or `host:port`.
    pub(super) registry: String,
    /// The repository; with `many` what stands before names, without a slash at its end.
    pub(super) path: String,
    many: bool,
}

impl OciPlace {
    /// What follows `oci://`.
    pub(crate) fn parse(address: &str) -> Result<Self, String> {
        let (registry, path) = address.split_once('/').unwrap_or((address, ""));
        let host = registry.bytes().all(|it| it.is_ascii_alphanumeric() || b".-:[]".contains(&it));
        if registry.is_empty() || !host {
            return Err("it names no host".into());
        }
        let many = path.is_empty() || path.ends_with('/');
        let path = path.trim_end_matches('/').to_string();
        let part = |it: &str| {
            let inside = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"._-".contains(&it);
            !it.is_empty() && it.bytes().all(inside) && it.starts_with(|it: char| it.is_ascii_alphanumeric())
        };
        if !(path.is_empty() || path.split('/').all(part)) {
            return Err(format!(
                "`{path}` is no repository: lower-case letters, digits, `.`, `_`, `-` between slashes"
            ));
        }
        Ok(Self { registry: registry.to_string(), path, many })
    }

    /// The repository of a package.
    pub(super) fn repository(&self, name: &PackageName) -> String {
        match (self.many, self.path.is_empty()) {
            (false, _) => self.path.clone(),
            (true, true) => name.to_string(),
            (true, false) => format!("{}/{name}", self.path),
        }
    }

    /// Whether the registry is this machine, the only one that is spoken to without TLS.
    pub(super) fn is_loopback(&self) -> bool {
        let host = match self.registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(""),
            None => self.registry.split(':').next().unwrap_or(""),
        };
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
    }
}

impl fmt::Display for OciPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.many && !self.path.is_empty() { "/" } else { "" };
        write!(f, "oci://{}{}{}{end}", self.registry, if self.path.is_empty() { "" } else { "/" }, self.path)
    }
}
