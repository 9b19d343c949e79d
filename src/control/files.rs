//! Files that are read at the start and when they change: Configurations, resources.
//!
//! 1. A Configuration that cannot be read ends the start: it may hold what must be enforced.
//! 2. A resource that cannot be read is told and left out, as in daprd.
//! 3. Reading is bounded, and never waits for a writer: what is no file, but a pipe or a socket
//!    under a file's name, is refused.

use crate::config::resource::{self, Resource};
use crate::config::spec::File;
use crate::config::{Environment, yaml};
use rustix::fs::OFlags;
use std::fs::{self, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files of one folder that are looked at.
const FILES_MAX: usize = 4096;

/// Octets of all resource files together.
const FOLDERS_OCTETS_MAX: usize = 64 << 20;

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    /// It may be read later though nobody changes it: the system failed, not the file.
    pub passes: bool,
}

impl Failure {
    fn new(text: String, error: &io::Error) -> Self {
        // What is refused here has no number of the system's.
        Self { text, passes: error.raw_os_error().is_some() }
    }
}

/// The texts of the Configuration files, variables expanded.
pub fn configurations(names: &[String], env: &Environment) -> Result<Vec<File>, Failure> {
    let read = |name: &String| {
        let path = Path::new(name);
        let failed = |did, error| {
            let why = plain(&error);
            Failure::new(format!("error loading configuration: {did} {name}: {why}"), &error)
        };
        fs::metadata(path).map_err(|error| failed("stat", error))?;
        let text = read(path, yaml::FILE_MAX).map_err(|error| failed("read", error))?;
        Ok(File { name: name.clone(), text: env.expand(&text) })
    };
    names.iter().map(read).collect()
}

/// A resource file, and what is in it.
#[derive(Clone, Debug)]
pub struct Text {
    pub path: PathBuf,
    /// An error is why it could not be read.
    pub content: Result<String, Failure>,
}

impl Text {
    /// Of the file in its folder.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn is_blank(&self) -> bool {
        self.content.as_ref().is_ok_and(|content| content.trim().is_empty())
    }
}

/// The YAML files of all folders in their order; of a missing folder none.
pub fn yaml_files(folders: &[String]) -> Result<Vec<PathBuf>, String> {
    let mut all = Vec::new();
    for folder in folders {
        match files_in(folder) {
            Ok((yaml, _)) => all.extend(yaml),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(format!("cannot read resources folder {folder}: {}", plain(&error)));
            }
        }
    }
    Ok(all)
}

/// What is in them.
pub fn texts(files: Vec<PathBuf>) -> Vec<Text> {
    let mut left = FOLDERS_OCTETS_MAX;
    let read = |path: PathBuf| {
        let content = read(&path, yaml::FILE_MAX.min(left)).map_err(|error| {
            let text = match left {
                0..yaml::FILE_MAX if error.raw_os_error().is_none() => {
                    format!("all files are larger than {FOLDERS_OCTETS_MAX} octets")
                }
                _ => plain(&error),
            };
            Failure::new(text, &error)
        });
        left -= content.as_ref().map_or(0, String::len);
        Text { path, content }
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
            match read(&file, yaml::FILE_MAX)
                .map_err(|error| plain(&error))
                .and_then(|text| resource::read(&text))
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

/// The text of a file of `octets_max` at most.
pub fn read(path: &Path, octets_max: usize) -> io::Result<String> {
    // A pipe without a writer would be waited for.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check(file.metadata()?.file_type())?;
    let mut text = String::new();
    file.take(octets_max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > octets_max {
        return Err(io::Error::other(format!("larger than {octets_max} octets")));
    }
    Ok(text)
}

/// Files, and devices such as /dev/null.
fn check(kind: FileType) -> io::Result<()> {
    match kind.is_file() || kind.is_char_device() {
        true => Ok(()),
        false if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::Error::other("not a file")),
    }
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
        assert_eq!((missing.text.as_str(), missing.passes), (text, true));
        assert_eq!(configurations(&[], &env).unwrap().len(), 0);
    }

    /// What is no file is refused at once, with Go's words where Go has some.
    #[test]
    fn what_is_no_file_is_refused() {
        let folder = std::env::temp_dir().join(format!("ringside-files-{}", std::process::id()));
        fs::create_dir_all(folder.join("sub")).unwrap();
        let fifo = folder.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        fs::write(folder.join("large"), vec![b'#'; yaml::FILE_MAX + 1]).unwrap();
        fs::write(folder.join("binary"), [0xff, 0xfe, 0xfd]).unwrap();
        std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
        for (name, did, error) in [
            ("sub", "read", "is a directory"),
            ("fifo", "read", "not a file"),
            ("large", "read", "larger than 4194304 octets"),
            ("binary", "read", "stream did not contain valid utf-8"),
            ("loop", "stat", "too many levels of symbolic links"),
            ("large/x", "stat", "not a directory"),
        ] {
            let path = folder.join(name).display().to_string();
            let failure = configurations(std::slice::from_ref(&path), &Environment::default());
            let text = format!("error loading configuration: {did} {path}: {error}");
            assert_eq!(failure.unwrap_err(), Failure { text, passes: did == "stat" });
        }
        assert_eq!(read(Path::new("/dev/null"), 0).unwrap(), "");
        assert!(read(Path::new("/dev/zero"), 9).unwrap_err().to_string().contains("larger"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_folder_is_left_out() {
        tell_resources(&["/nowhere".to_owned()], "a");
        assert_eq!(yaml_files(&["/nowhere".to_owned()]), Ok(Vec::new()));
        let error = yaml_files(&["/dev/null".to_owned()]).unwrap_err();
        assert_eq!(error, "cannot read resources folder /dev/null: not a directory");
    }

    /// However many there are, and however large: one that would be too much is an error.
    #[test]
    fn folders_are_bounded() {
        let folder = std::env::temp_dir().join(format!("ringside-folder-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let large = "#".repeat(yaml::FILE_MAX);
        for n in 0..17 {
            fs::write(folder.join(format!("{n:02}.yaml")), &large).unwrap();
        }
        fs::write(folder.join("99.txt"), "no YAML").unwrap();
        let texts = texts(yaml_files(&[folder.display().to_string()]).unwrap());
        let whole: Vec<bool> = texts.iter().map(|text| text.content.is_ok()).collect();
        assert_eq!(whole, [vec![true; 16], vec![false]].concat());
        let error = texts[16].content.as_ref().unwrap_err();
        assert_eq!(error.text, "all files are larger than 67108864 octets");
        fs::remove_dir_all(&folder).unwrap();
    }
}
