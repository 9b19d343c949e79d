//! Files that are read at the start: Configurations, resources.
//!
//! 1. A Configuration that cannot be read ends the start: it may hold what must be enforced.
//! 2. A resource that cannot be read is told and left out, as in daprd.

use crate::config::resource::{self, Resource};
use crate::config::spec::File;
use crate::config::{Environment, yaml};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Files of one folder that are looked at.
const FILES_MAX: usize = 4096;

/// The texts of the Configuration files, variables expanded.
pub fn configurations(names: &[String], env: &Environment) -> Result<Vec<File>, String> {
    let read = |name: &String| {
        let text = read(Path::new(name)).map_err(|error| {
            format!("error loading configuration: stat {name}: {}", plain(&error))
        })?;
        Ok(File { name: name.clone(), text: env.expand(&text) })
    };
    names.iter().map(read).collect()
}

/// Names and texts of a folder's YAML files in their order, without a word; none if it is missing.
pub fn yaml_files(folder: &str) -> Vec<(String, Result<String, String>)> {
    let files = files_in(folder).map(|(yaml, _)| yaml).unwrap_or_default();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, read(&path).map_err(|error| plain(&error)))
    };
    files.into_iter().map(read).collect()
}

/// Logs a line for every resource of the folders that has no effect here.
pub fn tell_resources(folders: &[String], app_id: &str) {
    for folder in folders {
        let files = match files_in(folder) {
            Ok((files, others)) => {
                for name in others {
                    tracing::warn!(
                        "A non-YAML Component file {name} was detected, it will not be loaded"
                    );
                }
                files
            }
            Err(error) => {
                tracing::warn!("cannot read resources folder {folder}: {}", plain(&error));
                continue;
            }
        };
        for file in files {
            match read(&file).map_err(|error| plain(&error)).and_then(|text| resource::read(&text))
            {
                Ok(resources) => {
                    for (place, resource) in resources.iter().enumerate() {
                        if resource.is_for(app_id) {
                            tell(resource, place, &file);
                        }
                    }
                }
                Err(error) => tracing::error!("cannot read {}: {error}", file.display()),
            }
        }
    }
}

fn tell(resource: &Resource, place: usize, file: &Path) {
    let (name, file) = (&resource.name, file.display());
    match resource.kind.as_str() {
        // `resiliency` has told of it.
        "Resiliency" if place == 0 => {}
        "Resiliency" => tracing::warn!(
            "Resiliency {name} ({file}) has no effect: it is not the first document of its file, \
             and Dapr reads no other"
        ),
        "Component" => tracing::warn!(
            "Component {name} ({}, {file}) is not served by ringside, which carries gRPC service \
             invocation only",
            resource.component_type
        ),
        kind => tracing::info!("{kind} {name} ({file}) has no effect in ringside"),
    }
}

/// The YAML files of a folder in their order, and the names of the others.
fn files_in(folder: &str) -> io::Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)?.take(FILES_MAX) {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match resource::is_yaml(&name) {
            true => files.push(path),
            false => others.push(name),
        }
    }
    files.sort();
    Ok((files, others))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(yaml::FILE_MAX as u64 + 1).read_to_string(&mut text)?;
    if text.len() > yaml::FILE_MAX {
        return Err(io::Error::other(format!("larger than {} octets", yaml::FILE_MAX)));
    }
    Ok(text)
}

fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_configuration_is_told_in_gos_words() {
        let env: Environment = [("X", "1")].into_iter().collect();
        let missing = configurations(&["/nowhere.yaml".to_owned()], &env).unwrap_err();
        let text = "error loading configuration: stat /nowhere.yaml: no such file or directory";
        assert_eq!(missing, text);
        assert_eq!(configurations(&[], &env).unwrap().len(), 0);
    }

    #[test]
    fn a_missing_folder_is_left_out() {
        tell_resources(&["/nowhere".to_owned()], "a");
        assert!(yaml_files("/nowhere").is_empty());
    }
}
