//! What registries answer, in words a person can act on, and who asks them.

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;

use crate::error::{RegistryError, Result};

/// The address that was asked.
pub(crate) struct Asked(pub(crate) String);

impl Asked {
    pub(crate) fn refused(&self, reason: &str, hint: &str) -> RegistryError {
        RegistryError::Registry { place: self.0.clone(), reason: reason.to_string(), hint: hint.to_string() }
    }

    pub(crate) fn failed(&self, error: &OciDistributionError) -> RegistryError {
        let hint = match error {
            _ if is_missing(error) => {
                "`fthost plugin search` lists what is there, where the registry offers it"
            }
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => {
                "log in with `docker login`: its credential file is read"
            }
            OciDistributionError::RegistryError { envelope, .. }
                if envelope
                    .errors
                    .iter()
                    .any(|it| matches!(it.code, OciErrorCode::Unauthorized | OciErrorCode::Denied)) =>
            {
                "log in with `docker login`: its credential file is read"
            }
            OciDistributionError::RequestError(_) => "is the address right, and is the registry up?",
            _ => "ask whoever runs the registry",
        };
        self.refused(&reason(error), hint)
    }
}

/// The innermost cause, in one line.
pub(crate) fn reason(error: &OciDistributionError) -> String {
    if is_missing(error) {
        return "there is no such thing".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().lines().next().unwrap_or_default().to_string()
}

/// Whether the registry says that it does not have it, rather than that something is wrong.
pub(crate) fn is_missing(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|it| {
            matches!(
                it.code,
                OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::BlobUnknown
            )
        }),
        _ => false,
    }
}

/// Who asks `registry`: what Docker's credential file says (`DOCKER_CONFIG`, else `.docker` of the home), or nobody.
pub(crate) fn credential(registry: &str) -> Result<RegistryAuth> {
    match docker_credential::get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(name, password)) => Ok(RegistryAuth::Basic(name, password)),
        Ok(DockerCredential::IdentityToken(_)) => Err(RegistryError::Registry {
            place: format!("credentials for `{registry}`"),
            reason: "they are an identity token, which is not supported".into(),
            hint: "`docker login` with a user's name and an access token".into(),
        }),
        Err(CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound) => {
            Ok(RegistryAuth::Anonymous)
        }
        // The crate says this of a file that is not there, too.
        Err(CredentialRetrievalError::ConfigReadError) if !has_docker_config() => Ok(RegistryAuth::Anonymous),
        Err(error) => Err(RegistryError::Registry {
            place: format!("credentials for `{registry}`"),
            reason: error.to_string().lines().next().unwrap_or_default().to_string(),
            hint: "`docker logout` and `docker login` write them anew".into(),
        }),
    }
}

fn has_docker_config() -> bool {
    let folder = std::env::var_os("DOCKER_CONFIG").map(std::path::PathBuf::from);
    let folder = folder.or_else(|| std::env::home_dir().map(|it| it.join(".docker")));
    folder.is_some_and(|it| std::fs::symlink_metadata(it.join("config.json")).is_ok())
}
