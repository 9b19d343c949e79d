//! What files say, gathered and compiled: at the start and at each reload, by the same rules.
//!
//! Blocks: on the helper thread while calls are served.

use super::watch::Stamps;
use crate::config::Environment;
use crate::config::spec::{Configuration, File};
use crate::control::files::{self, Text};
use crate::control::stamp::Stamp;
use crate::policy::Policies;
use std::path::PathBuf;
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
    /// Of `--resources-path`: Resiliency resources are looked for there.
    pub folders: Vec<String>,
    /// Our app is said to speak HTTP.
    pub http: bool,
}

/// What all files hold, at one moment.
#[derive(Debug)]
pub struct Gathered {
    pub stamps: Stamps,
    pub configurations: Result<Vec<File>, String>,
    pub resources: Vec<Text>,
}

/// What the Configurations came to.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub configuration: Configuration,
    pub policies: Arc<Policies>,
    /// To be told at WARN, below `dapr.acl`.
    pub warning: Option<&'static str>,
}

impl Source {
    /// There is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.configurations.is_empty() && self.folders.is_empty()
    }

    /// For who is told of all Configurations.
    pub fn names(&self) -> String {
        self.configurations.join(", ")
    }

    /// All places that are looked at.
    pub fn places(&self) -> String {
        [&self.configurations[..], &self.folders[..]].concat().join(", ")
    }

    /// What an error is about: all Configurations, unless it names one.
    pub fn what(&self, error: &str) -> String {
        match self.configurations.iter().any(|name| error.contains(name.as_str())) {
            true => "the Configuration".to_owned(),
            false => self.places(),
        }
    }

    pub fn stamps(&self) -> Stamps {
        self.stamps_with(&files::yaml_files(&self.folders))
    }

    fn stamps_with(&self, resources: &[PathBuf]) -> Stamps {
        let configurations = self.configurations.iter().map(PathBuf::from);
        let files = configurations.chain(resources.iter().cloned());
        files.map(|path| (path.clone(), Stamp::of(&path))).collect()
    }

    /// An error: the files changed meanwhile, each time.
    pub fn gather(&self) -> Result<Gathered, String> {
        for _ in 0..READINGS_MAX {
            let resources = files::yaml_files(&self.folders);
            let before = self.stamps_with(&resources);
            let configurations = files::configurations(&self.configurations, &self.env);
            let resources = files::texts(resources);
            if self.stamps() == before {
                return Ok(Gathered { stamps: before, configurations, resources });
            }
        }
        Err("files change while they are read".to_owned())
    }

    /// An error names file, place and reason where there is one.
    pub fn compile(&self, files: &[File]) -> Result<Loaded, String> {
        let mut configuration = Configuration::load(files).map_err(|error| error.to_string())?;
        let tracing = &mut configuration.tracing;
        tracing
            .set_from_env(&self.env)
            .map_err(|error| format!("error setting tracing spec from env: {error}"))?;
        // Told now, not when a restart is under way for it.
        tracing
            .exporters("", &self.env)
            .map_err(|error| format!("failed to setup tracing: {error}"))?;
        let compiled = Policies::compile(&configuration, self.http);
        let (policies, warning) = compiled.map_err(|error| error.to_string())?;
        Ok(Loaded { configuration, policies: Arc::new(policies), warning })
    }
}
