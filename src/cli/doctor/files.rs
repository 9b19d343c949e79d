//! Configurations and resources: are they there, do they say what can be done?

use super::finding::Finding;
use crate::config::resiliency::Document;
use crate::config::spec::Configuration;
use crate::config::{Environment, Flags, Settings};
use crate::control::files::{Text, texts, yaml_files};
use crate::control::reload::source::Source;
use crate::policy::resiliency::Builder;
use std::path::Path;

const WHAT: &str = "configuration";
const RESOURCES: &str = "resources";

/// With what they come to, if they can be.
pub fn configurations(
    settings: &Settings,
    flags: &Flags,
    env: &Environment,
) -> (Option<Configuration>, Vec<Finding>) {
    let grpc = ["grpc", "grpcs"].iter().any(|name| flags.app_protocol.eq_ignore_ascii_case(name));
    let configurations = settings.config_files.clone();
    let folders = Vec::new();
    let source = Source { configurations, env: env.clone(), folders, http: !grpc };
    let files = source.gather_configurations().held;
    let loaded = match files.and_then(|files| source.compile(&files)) {
        Ok(loaded) => loaded,
        Err(error) => {
            let advice = "correct the file: the text names it, and where it has one the line";
            return (None, vec![Finding::fail(WHAT, error, advice)]);
        }
    };
    let found = match settings.config_files.is_empty() {
        true => "none: the defaults hold".to_owned(),
        false => settings.config_files.join(", "),
    };
    let mut findings = vec![Finding::ok(WHAT, found)];
    if let Some(warning) = loaded.warning {
        findings.push(Finding::warn(WHAT, warning, "say defaultAction"));
    }
    let configuration = loaded.configuration;
    let unknown = configuration.unknown.iter();
    let unknown = unknown.map(|(field, file)| (field.as_str(), file, "is no Configuration's"));
    let idle = configuration.idle_rules.iter();
    let idle = idle.map(|(rule, file)| (rule.as_str(), file, "restricts nothing"));
    findings.extend(unknown.chain(idle).map(|(field, file, what)| {
        Finding::warn(WHAT, format!("{file}: {field} {what}"), "is it spelled right, and needed?")
    }));
    (Some(configuration), findings)
}

pub fn resources(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folders = &settings.resource_folders;
    for folder in folders.iter().filter(|folder| !Path::new(folder).is_dir()) {
        let advice = "make it, or leave it out of --resources-path";
        findings.push(Finding::warn(RESOURCES, format!("{folder} is no folder"), advice));
    }
    let (mut builder, mut right) = (Builder::default(), Vec::new());
    let files = yaml_files(folders).unwrap_or_else(|error| {
        findings.push(Finding::warn(RESOURCES, error, "let the sidecar's user read the folder"));
        Vec::new()
    });
    for text in texts(files) {
        match read(&text, settings.config.app_id.as_str(), &mut builder) {
            Ok(None) => {}
            Ok(Some(name)) => right.push(name),
            Err(error) => {
                let found = format!("{}: {error}", text.path.display());
                let advice = "correct the file: as it is, it is left out";
                findings.push(Finding::warn(RESOURCES, found, advice));
            }
        }
    }
    if !right.is_empty() {
        findings.push(Finding::ok(RESOURCES, format!("Resiliency {}", right.join(", "))));
    }
    findings
}

/// The name of a Resiliency for our app.
fn read(text: &Text, app_id: &str, builder: &mut Builder) -> Result<Option<String>, String> {
    let content = text.content.as_ref().map_err(|failure| failure.text.clone())?;
    let document = Document::read(content).map_err(|error| error.text(&text.name()))?;
    let Some(document) = document.filter(|document| document.is_for(app_id)) else {
        return Ok(None);
    };
    builder.add(document.decode()?)?;
    Ok(Some(document.name))
}
