//! Who may read which table.

use std::fmt::Debug;

use tonic::Status;

use crate::Scope;

/// Decides whether a picker may read a scope, by the bearer token it shows.
#[tonic::async_trait]
pub trait Authorizer: Debug + Send + Sync + 'static {
    /// Admits the picker, or says why not: `Unauthenticated` without a valid token, `PermissionDenied` for the scope of another,
    /// `Unavailable` when nobody can tell now.
    async fn admit(&self, token: Option<&str>, scope: &Scope) -> Result<(), Status>;
}

/// Admits whoever asks: for a pipe within a process, and for loopback.
#[derive(Debug)]
pub struct Anyone;

#[tonic::async_trait]
impl Authorizer for Anyone {
    async fn admit(&self, _token: Option<&str>, _scope: &Scope) -> Result<(), Status> {
        Ok(())
    }
}
