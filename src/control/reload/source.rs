//! What files say, read and compiled: at the start and at each reload, by the same rules.
//!
//! Blocks: on the helper thread while calls are served.

use super::watch::Stamps;
use crate::config::Environment;
use crate::config::spec::{Configuration, File};
use crate::control::files;
use crate::control::stamp::Stamp;
use crate::policy::Policies;
use std::path::Path;
use std::sync::Arc;

/// Readings of files that change meanwhile.
const READINGS_MAX: usize = 3;

/// Which files, and how they are understood.
#[derive(Clone, Debug)]
pub struct Source {
    /// Of `--config`, in their order.
    pub configurations: Vec<String>,
    /// For the variables in them.
    pub env: Environment,
    /// Our app is said to speak HTTP.
    pub http: bool,
}

/// Everything that the files came to.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub configuration: Configuration,
    pub policies: Arc<Policies>,
    /// To be told at WARN, below `dapr.acl`.
    pub warning: Option<&'static str>,
}

/// What one reading gave.
#[derive(Debug)]
pub struct Reading {
    /// `None`: the files changed meanwhile, each time.
    pub stamps: Option<Stamps>,
    /// An error names file, place and reason where there is one.
    pub loaded: Result<Loaded, String>,
}

impl Source {
    /// There is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.configurations.is_empty()
    }

    /// For who is told of them all.
    pub fn names(&self) -> String {
        self.configurations.join(", ")
    }

    /// What an error is about: all files, unless it names one.
    pub fn what(&self, error: &str) -> String {
        match self.configurations.iter().any(|name| error.contains(name.as_str())) {
            true => "the Configuration".to_owned(),
            false => self.names(),
        }
    }

    pub fn stamps(&self) -> Stamps {
        let stamp = |name: &String| (name.into(), Stamp::of(Path::new(name)));
        self.configurations.iter().map(stamp).collect()
    }

    pub fn read(&self) -> Reading {
        for _ in 0..READINGS_MAX {
            let before = self.stamps();
            let files = files::configurations(&self.configurations, &self.env);
            if self.stamps() == before {
                let loaded = files.and_then(|files| self.compile(&files));
                return Reading { stamps: Some(before), loaded };
            }
        }
        Reading { stamps: None, loaded: Err("it changes while it is read".to_owned()) }
    }

    fn compile(&self, files: &[File]) -> Result<Loaded, String> {
        let configuration = Configuration::load(files).map_err(|error| error.to_string())?;
        let compiled = Policies::compile(&configuration, self.http);
        let (policies, warning) = compiled.map_err(|error| error.to_string())?;
        Ok(Loaded { configuration, policies: Arc::new(policies), warning })
    }
}
