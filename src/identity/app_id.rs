//! App IDs, namespaces and targets: the text in `dapr-app-id`, judged.
//!
//! Source: `requestAppIDAndNamespace` in Dapr's `pkg/messaging/direct_messaging.go`.

use std::fmt;
use std::sync::Arc;

/// The ID of an app: never empty, without dots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(Arc<str>);

/// A namespace; may be empty (daprd with `NAMESPACE=""`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

/// Whom a call is for: what resolution, the pool and the SPIFFE check all key on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub app_id: AppId,
    pub namespace: Namespace,
}

/// Why a text names no target. `Display` gives daprd's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    Empty,
    Invalid(String),
}

impl AppId {
    /// Dots are for [`Target::parse`]; an `AppId` has none.
    pub fn new(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text.contains('.') {
            return Err(TargetError::Invalid(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Namespace {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Target {
    /// `id` or `id.namespace`; without a namespace, `own`.
    pub fn parse(text: &str, own: &Namespace) -> Result<Self, TargetError> {
        let (id, namespace) = Self::split(text)?;
        let app_id = AppId::new(id)?;
        let namespace = namespace.map_or_else(|| own.clone(), Namespace::new);
        Ok(Self { app_id, namespace })
    }

    /// `id` or `id.namespace`, cut and judged without making anything.
    pub fn split(text: &str) -> Result<(&str, Option<&str>), TargetError> {
        let mut parts = text.split('.');
        let id = parts.next().unwrap_or_default();
        let namespace = parts.next();
        if parts.next().is_some() {
            return Err(TargetError::Invalid(text.to_owned()));
        }
        if id.is_empty() {
            return Err(TargetError::Empty);
        }
        Ok((id, namespace))
    }

    /// Path of the SPIFFE ID that the callee's sidecar must show: `/ns/<namespace>/<app ID>`.
    pub fn spiffe_path(&self) -> String {
        format!("/ns/{}/{}", self.namespace, self.app_id)
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.app_id, self.namespace)
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("app id is empty"),
            Self::Invalid(text) => write!(f, "invalid app id {text}"),
        }
    }
}

impl std::error::Error for TargetError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_daprd() {
        let own = Namespace::new("default");
        let target = Target::parse("server", &own).unwrap();
        assert_eq!(target.spiffe_path(), "/ns/default/server");
        let target = Target::parse("server.production", &own).unwrap();
        assert_eq!(target.spiffe_path(), "/ns/production/server");
        assert_eq!(Target::parse("", &own).unwrap_err().to_string(), "app id is empty");
        assert_eq!(Target::parse("a.b.c", &own).unwrap_err().to_string(), "invalid app id a.b.c");
    }
}
