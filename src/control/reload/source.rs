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

/// What files hold, and how they looked; no stamps: they are to be read again, since they changed
/// meanwhile, or the system failed.
#[derive(Clone, Debug)]
pub struct Gathered<T, S = Stamps> {
    pub stamps: Option<S>,
    pub held: T,
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

    pub fn configuration_stamps(&self) -> Stamps {
        stamps(self.configurations.iter().map(PathBuf::from))
    }

    /// An error: a folder cannot be listed.
    pub fn resource_stamps(&self) -> Result<Stamps, String> {
        Ok(stamps(files::yaml_files(&self.folders)?.into_iter()))
    }

    pub fn gather_configurations(&self) -> Gathered<Result<Vec<File>, String>> {
        let read = || files::configurations(&self.configurations, &self.env);
        let Gathered { stamps, held } = gather(|| self.configuration_stamps(), read);
        let passes = held.as_ref().is_err_and(|failure| failure.passes);
        let held = match stamps {
            Some(_) => held.map_err(|failure| failure.text),
            None => Err(format!("{} changes while it is read", self.names())),
        };
        Gathered { stamps: stamps.filter(|_| !passes), held }
    }

    /// What is still written is there as it is, too; of a folder that cannot be listed nothing.
    pub fn gather_resources(&self) -> Gathered<Vec<Text>> {
        let read = || files::yaml_files(&self.folders).ok().map(files::texts);
        let Gathered { stamps, held } = gather(|| self.resource_stamps(), read);
        let stamps = stamps.and_then(Result::ok).filter(|_| held.is_some());
        Gathered { stamps, held: held.unwrap_or_default() }
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

fn stamps(files: impl Iterator<Item = PathBuf>) -> Stamps {
    files.map(|path| (path.clone(), Stamp::of(&path))).collect()
}

/// Reads until nothing changed meanwhile, [`READINGS_MAX`] times at most.
fn gather<S: PartialEq, T>(stamps: impl Fn() -> S, read: impl Fn() -> T) -> Gathered<T, S> {
    let mut before = stamps();
    for _ in 1..READINGS_MAX {
        let held = read();
        let after = stamps();
        if after == before {
            return Gathered { stamps: Some(after), held };
        }
        before = after;
    }
    let held = read();
    Gathered { stamps: Some(before).filter(|before| *before == stamps()), held }
}
