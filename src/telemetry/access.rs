//! Who asks over HTTP, and what they may do.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::http::Problem;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read everything.
    Look,
    /// Decide about accounts, and about what is delivered.
    Accounts,
    /// Decide about relays.
    Relays,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// As the audit names them.
    pub name: Arc<str>,
    rights: Vec<Right>,
}

impl Who {
    /// Whoever reaches the loopback address of this host.
    pub fn local() -> Self {
        Self { name: "local".into(), rights: vec![Right::Look, Right::Accounts, Right::Relays] }
    }

    /// Refuses what they may not do.
    ///
    /// # Errors
    /// Where they may not.
    pub(crate) fn require(&self, right: Right) -> Result<(), Problem> {
        if self.rights.contains(&right) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, format!("{} may not do this", self.name), "Ask with another token."))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(Self::local))
    }
}
