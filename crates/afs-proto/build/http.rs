//! Reads the `google.api.http` option of a method.

use crate::AnyError;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage as _, Value,
};

/// One rpc that is also an HTTP route.
pub(crate) struct Route {
    pub(crate) method: MethodDescriptor,
    /// Lowercase HTTP method.
    pub(crate) verb: String,
    /// Path template, as both axum and OpenAPI write it.
    pub(crate) path: String,
    /// The JSON body holds the fields that the path does not.
    pub(crate) body: bool,
}

impl Route {
    /// Names of the fields in the path.
    pub(crate) fn path_fields(&self) -> Vec<&str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
    }
}

/// All routes, in the order of services and methods.
pub(crate) fn routes(pool: &DescriptorPool) -> Result<Vec<Route>, AnyError> {
    let option = pool.get_extension_by_name("google.api.http").ok_or("google.api.http is not known")?;
    let mut routes = Vec::new();
    for service in pool.services() {
        for method in service.methods() {
            let options = method.options();
            if !options.has_extension(&option) {
                continue;
            }
            let Value::Message(rule) = options.get_extension(&option).into_owned() else {
                return Err(format!("{}: google.api.http is not a message", method.full_name()).into());
            };
            routes.push(route(method, &rule)?);
        }
    }
    Ok(routes)
}

fn route(method: MethodDescriptor, rule: &DynamicMessage) -> Result<Route, AnyError> {
    let name = method.full_name().to_owned();
    if method.is_client_streaming() {
        return Err(format!("{name}: a client stream cannot be an HTTP route").into());
    }
    let pattern = rule.descriptor().oneofs().next().and_then(|o| o.fields().find(|f| rule.has_field(f)));
    let pattern = pattern.ok_or_else(|| format!("{name}: no HTTP method"))?;
    let path = rule.get_field(&pattern).as_str().ok_or_else(|| format!("{name}: no path"))?.to_owned();
    let body = match rule.get_field_by_name("body").as_deref().and_then(Value::as_str) {
        Some("*") => true,
        Some("") | None => false,
        Some(other) => return Err(format!("{name}: body {other:?}: only \"*\" is supported").into()),
    };
    let route = Route { method, verb: pattern.name().to_owned(), path, body };
    check_path(&route, &route.method.input())?;
    Ok(route)
}

fn check_path(route: &Route, input: &MessageDescriptor) -> Result<(), AnyError> {
    for field in route.path_fields() {
        let known =
            input.get_field_by_name(field).is_some_and(|f| f.kind().as_message().is_none() && !f.is_list());
        if !known {
            return Err(
                format!("{}: {field} is in the path but no scalar field", route.method.full_name()).into()
            );
        }
    }
    Ok(())
}

/// The comment before a descriptor, as plain text.
pub(crate) fn comment(file: &prost_reflect::FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let found = info.and_then(|info| info.location.iter().find(|l| l.path == path));
    found
        .map(|l| l.leading_comments().lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned())
        .unwrap_or_default()
}
