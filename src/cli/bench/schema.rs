//! What the method takes: descriptors from `.proto` files, a descriptor set, or the service itself.
//!
//! 1. No protoc: `.proto` files are compiled here.
//! 2. What cannot be found is answered with what there is.

use super::BenchError;
use super::options::Source;
use super::reflection;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor, ServiceDescriptor};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Names in a message that lists what there is.
const LISTED_MAX: usize = 30;

/// The method to call.
#[derive(Clone, Debug)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: String,
    pub kind: Kind,
    pub input: MessageDescriptor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unary,
    ClientStream,
    ServerStream,
    Bidi,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ClientStream => "client streaming",
            Self::ServerStream => "server streaming",
            Self::Bidi => "bidirectional streaming",
        }
    }
}

/// `package.Service/Method` or `package.Service.Method`, as ghz takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub service: String,
    pub method: String,
}

impl Call {
    pub fn parse(text: &str) -> Result<Self, BenchError> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        let parts = bare.split_once('/').or_else(|| bare.rsplit_once('.'));
        match parts {
            Some((service, method)) if !service.is_empty() && !method.is_empty() => {
                Ok(Self { service: service.to_owned(), method: method.to_owned() })
            }
            _ => Err(BenchError::new(format!(
                "--call {text:?} is no method: package.Service/Method or package.Service.Method"
            ))),
        }
    }
}

/// Finds the method; asks the service at `address` when there is no other source.
pub async fn method(
    source: &Source,
    call: &Call,
    address: SocketAddr,
) -> Result<Method, BenchError> {
    let pool = match source {
        Source::Proto { file, imports } => compile(file, imports)?,
        Source::Protoset(file) => read_set(file)?,
        Source::Reflection { metadata } => {
            let metadata = super::data::metadata(metadata.as_slice(), None)?;
            reflection::ask(address, &call.service, &metadata).await?
        }
    };
    pick(&pool, call)
}

fn compile(file: &Path, imports: &[PathBuf]) -> Result<DescriptorPool, BenchError> {
    // ghz's rule: the working directory and the file's own are always searched.
    let own = match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let mut folders = imports.to_vec();
    folders.extend([PathBuf::from("."), own]);
    folders.retain(|folder| folder.is_dir());
    let failed = |error: String| BenchError::new(format!("--proto {}: {error}", file.display()));
    if !file.exists() {
        return Err(failed("there is no such file".to_owned()));
    }
    let mut compiler = protox::Compiler::new(folders).map_err(|error| failed(error.to_string()))?;
    let opened = compiler.include_imports(true).open_file(file);
    opened.map_err(|error| failed(complaint(&error)))?;
    Ok(compiler.descriptor_pool())
}

/// protox's own text, and what to do where that helps.
fn complaint(error: &protox::Error) -> String {
    let text = format!("{error:?}");
    let text = text.lines().next().unwrap_or_default().trim().to_owned();
    if error.is_file_not_found() {
        return format!("{text}; -i names the folders where imports are looked for");
    }
    text
}

fn read_set(file: &Path) -> Result<DescriptorPool, BenchError> {
    let failed = |error: String| BenchError::new(format!("--protoset {}: {error}", file.display()));
    let octets = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    DescriptorPool::decode(octets.as_slice()).map_err(|error| failed(error.to_string()))
}

fn pick(pool: &DescriptorPool, call: &Call) -> Result<Method, BenchError> {
    let Some(service) = pool.get_service_by_name(&call.service) else {
        let names = pool.services().map(|service| service.full_name().to_owned());
        return Err(BenchError::new(unknown_service(&call.service, names)));
    };
    let found = service.methods().find(|method| method.name() == call.method);
    let method = found.ok_or_else(|| {
        let names = service.methods().map(|method| describe(&service, &method));
        let Call { service, method } = call;
        BenchError::new(format!("{service} has no method {method}; it has {}", list(names)))
    })?;
    let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => Kind::Unary,
        (true, false) => Kind::ClientStream,
        (false, true) => Kind::ServerStream,
        (true, true) => Kind::Bidi,
    };
    let path = format!("/{}/{}", service.full_name(), method.name());
    Ok(Method { path, kind, input: method.input() })
}

fn describe(service: &ServiceDescriptor, method: &MethodDescriptor) -> String {
    format!("{}/{}", service.full_name(), method.name())
}

/// "There is no service X; there are Y, Z."
pub fn unknown_service(wanted: &str, there: impl Iterator<Item = String>) -> String {
    format!("there is no service {wanted}; there is {}", list(there))
}

fn list(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(LISTED_MAX + 1).collect();
    names.sort();
    match names.len() {
        0 => "none".to_owned(),
        count if count > LISTED_MAX => {
            names.truncate(LISTED_MAX);
            format!("{}, ...", names.join(", "))
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: &str = "syntax = \"proto3\"; package a.b;
        import \"google/protobuf/timestamp.proto\";
        message M { string name = 1; google.protobuf.Timestamp at = 2; }
        service S {
            rpc One(M) returns (M);
            rpc Up(stream M) returns (M);
            rpc Down(M) returns (stream M);
            rpc Both(stream M) returns (stream M);
        }";

    struct Written(crate::demo::folder::Folder);

    fn written(text: &str) -> (Written, PathBuf) {
        let folder = crate::demo::folder::Folder::new().unwrap();
        let file = folder.file("s.proto", text).unwrap();
        (Written(folder), file)
    }

    fn said<T: std::fmt::Debug>(result: Result<T, BenchError>) -> String {
        result.expect_err("an error").to_string()
    }

    #[test]
    fn finds_methods_of_every_kind() {
        let (folder, file) = written(PROTO);
        let pool = compile(&file, &[]).unwrap();
        for (call, kind) in [
            ("a.b.S/One", Kind::Unary),
            ("a.b.S.Up", Kind::ClientStream),
            ("/a.b.S/Down", Kind::ServerStream),
            ("a.b.S/Both", Kind::Bidi),
        ] {
            let method = pick(&pool, &Call::parse(call).unwrap()).unwrap();
            assert_eq!(method.kind, kind, "{call}");
            assert!(method.path.starts_with("/a.b.S/"));
            assert_eq!(method.input.full_name(), "a.b.M");
        }
        // A set of the same, as protoc -o writes it.
        let set = folder.0.path().join("set");
        std::fs::write(&set, pool.encode_to_vec()).unwrap();
        assert!(read_set(&set).unwrap().get_service_by_name("a.b.S").is_some());
    }

    #[test]
    fn answers_with_what_there_is() {
        let (_folder, file) = written(PROTO);
        let pool = compile(&file, &[]).unwrap();
        let of = |call: &str| said(pick(&pool, &Call::parse(call).unwrap()));
        assert_eq!(of("a.b.T/One"), "there is no service a.b.T; there is a.b.S");
        let methods = "a.b.S/Both, a.b.S/Down, a.b.S/One, a.b.S/Up";
        assert_eq!(of("a.b.S/Two"), format!("a.b.S has no method Two; it has {methods}"));
        assert!(said(Call::parse("nothing")).contains("package.Service/Method"));
    }

    #[test]
    fn says_why_a_file_does_not_compile() {
        let (_folder, file) = written("syntax = \"proto3\"; message M { strin name = 1; }");
        let text = said(compile(&file, &[]));
        assert!(text.contains("s.proto") && text.contains("strin"), "{text}");
        let (_folder, file) = written("syntax = \"proto3\"; import \"missing.proto\";");
        let text = said(compile(&file, &[]));
        assert!(text.contains("missing.proto") && text.contains("-i names"), "{text}");
        assert!(said(compile(Path::new("/nowhere.proto"), &[])).contains("no such file"));
    }
}
