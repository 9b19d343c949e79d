//! The token that tells Sentry who asks (`pkg/security/token/token.go`).
//!
//! 1. It is read anew for each request: Kubernetes rotates it.

use super::super::rpc::messages::TokenValidator;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the token is; which of these it is, the environment and the mode decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// Self-hosted, without a token: Sentry's default validator decides.
    None,
    /// `DAPR_SENTRY_TOKEN_FILE`; an empty path is a failure, as in daprd.
    File { path: PathBuf, kubernetes: bool },
    /// Kubernetes: the projected token, else the service account's.
    Kubernetes { path: PathBuf, legacy: PathBuf },
}

/// A token with the validator that is to judge it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub validator: TokenValidator,
}

impl TokenSource {
    /// Where Kubernetes puts tokens.
    pub fn kubernetes() -> Self {
        Self::Kubernetes {
            path: "/var/run/secrets/dapr.io/sentrytoken/token".into(),
            legacy: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
        }
    }

    /// On the blocking thread: a projected volume may stall.
    pub async fn read(&self) -> Result<Token, String> {
        let source = self.clone();
        tokio::task::spawn_blocking(move || source.read_blocking())
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
    }

    fn read_blocking(&self) -> Result<Token, String> {
        match self {
            Self::None => Ok(Token::none()),
            Self::File { path, .. } if path.as_os_str().is_empty() => {
                Err("environmental variable DAPR_SENTRY_TOKEN_FILE is set with an empty value"
                    .to_owned())
            }
            Self::File { path, kubernetes } => {
                let text = read_file(path)?;
                let validator =
                    if *kubernetes { TokenValidator::Kubernetes } else { TokenValidator::Jwks };
                Ok(Token { text, validator })
            }
            Self::Kubernetes { path, legacy } => Ok(read_kubernetes(path, legacy)),
        }
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) if text.is_empty() => Err(format!("token at path '{}' is empty", path.display())),
        Ok(text) => Ok(text),
        Err(error) => Err(format!("failed to read token at path '{}': {error}", path.display())),
    }
}

/// daprd goes on without a token when neither file gives one.
fn read_kubernetes(path: &Path, legacy: &Path) -> Token {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = fs::read_to_string(legacy).unwrap_or_default();
            if !text.is_empty() {
                tracing::warn!(
                    scope = super::SCOPE,
                    "Using the service account's own token towards Sentry, which gives access to \
                     Kubernetes: {} is missing, as with an old control plane",
                    path.display()
                );
            }
            text
        }
        other => other.unwrap_or_default(),
    };
    if text.is_empty() {
        return Token::none();
    }
    Token { text, validator: TokenValidator::Kubernetes }
}

impl Token {
    fn none() -> Self {
        Self { text: String::new(), validator: TokenValidator::Unknown }
    }
}

/// Tokens are secrets: no log may show one.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?}, {} octets)", self.validator, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is removed with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_named_file_must_hold_a_token() {
        let folder = Folder::new("ringside-token-file");
        let file = |path, kubernetes| TokenSource::File { path, kubernetes }.read_blocking();
        let good = folder.file("good", "a.b.c");
        let token = file(good.clone(), false).unwrap();
        assert_eq!((token.text.as_str(), token.validator), ("a.b.c", TokenValidator::Jwks));
        assert_eq!(file(good, true).unwrap().validator, TokenValidator::Kubernetes);
        let text = file(PathBuf::new(), false).unwrap_err();
        assert!(text.ends_with("DAPR_SENTRY_TOKEN_FILE is set with an empty value"), "{text}");
        let empty = folder.file("empty", "");
        assert!(file(empty, false).unwrap_err().ends_with("is empty"));
        assert!(file(folder.0.join("none"), false).unwrap_err().starts_with("failed to read"));
    }

    #[test]
    fn kubernetes_prefers_the_projected_token() {
        let folder = Folder::new("ringside-token-kubernetes");
        let (none, projected) = (folder.0.join("none"), folder.file("projected", "p"));
        let legacy = folder.file("legacy", "l");
        let read = |path: &PathBuf, legacy: &PathBuf| {
            let source = TokenSource::Kubernetes { path: path.clone(), legacy: legacy.clone() };
            source.read_blocking().unwrap()
        };
        assert_eq!(read(&projected, &legacy).text, "p");
        assert_eq!(read(&none, &legacy).text, "l");
        // An empty projected token is not replaced by the more powerful one.
        assert_eq!(read(&folder.file("empty", ""), &legacy), Token::none());
        assert_eq!(read(&none, &none), Token::none());
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token { text: "secret".to_owned(), validator: TokenValidator::Jwks };
        assert_eq!(format!("{token:?}"), "Token(Jwks, 6 octets)");
    }
}
