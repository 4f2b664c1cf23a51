//! Emits one function per service that returns its axum routes, and the table of fields of every request message.

use crate::AnyError;
use crate::http::{Route, routes};
use prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub(crate) fn generate(pool: &DescriptorPool) -> Result<String, AnyError> {
    let routes = routes(pool)?;
    let mut out = String::new();
    let mut messages = BTreeMap::new();
    for service in pool.services() {
        let own: Vec<&Route> = routes.iter().filter(|r| r.method.parent_service() == &service).collect();
        if own.is_empty() {
            continue;
        }
        service_routes(&mut out, &service, &own)?;
        for route in own {
            collect(&route.method.input(), &mut messages);
        }
    }
    for message in messages.values() {
        shape(&mut out, message)?;
    }
    route_list(&mut out, &routes)?;
    Ok(out)
}

/// Every method and route, for tests that must cover them all.
fn route_list(out: &mut String, routes: &[Route]) -> std::fmt::Result {
    writeln!(
        out,
        "/// Every route: HTTP method, path template, full gRPC method, whether it takes a body, request fields."
    )?;
    writeln!(out, "pub static ROUTES: &[crate::rest::RouteInfo] = &[")?;
    for r in routes {
        writeln!(
            out,
            "    crate::rest::RouteInfo {{ verb: {:?}, path: {:?}, method: {:?}, body: {}, shape: &{} }},",
            r.verb.to_uppercase(),
            r.path,
            r.method.full_name(),
            r.body,
            shape_name(&r.method.input())
        )?;
    }
    writeln!(out, "];")
}

fn service_routes(out: &mut String, service: &ServiceDescriptor, routes: &[&Route]) -> std::fmt::Result {
    let (name, snake) = (service.name(), snake(service.name()));
    writeln!(out, "/// The HTTP routes of {name}, answered by `service` in process.")?;
    writeln!(out, "pub fn {snake}_routes<S>(service: std::sync::Arc<S>) -> axum::Router")?;
    writeln!(out, "where S: crate::v1::{snake}_server::{name} {{")?;
    writeln!(out, "    axum::Router::new()")?;
    for r in routes {
        let call = if r.method.is_server_streaming() { "stream" } else { "unary" };
        writeln!(
            out,
            "    .route({path:?}, axum::routing::{verb}({{ let service = service.clone(); move |request: axum::extract::Request| {{ let service = service.clone(); \
             crate::rest::{call}(request, {body}, &{shape}, move |request| async move {{ service.{method}(request).await }}) }} }}))",
            path = r.path,
            verb = r.verb,
            body = r.body,
            shape = shape_name(&r.method.input()),
            method = snake_method(r.method.name()),
        )?;
    }
    writeln!(out, "}}")
}

fn collect(message: &MessageDescriptor, into: &mut BTreeMap<String, MessageDescriptor>) {
    if is_well_known(message) || into.insert(message.full_name().to_owned(), message.clone()).is_some() {
        return;
    }
    for field in message.fields() {
        if let Kind::Message(child) = value_kind(&field) {
            collect(&child, into);
        }
    }
}

fn shape(out: &mut String, message: &MessageDescriptor) -> Result<(), AnyError> {
    writeln!(
        out,
        "static {}: crate::rest::Shape = crate::rest::Shape {{ name: {:?}, fields: &[",
        shape_name(message),
        message.name()
    )?;
    for field in message.fields() {
        let many = match field.cardinality() {
            _ if field.is_map() => "Map",
            Cardinality::Repeated => "List",
            _ => "One",
        };
        writeln!(
            out,
            "    crate::rest::Field {{ name: {:?}, json_name: {:?}, many: crate::rest::Many::{many}, kind: crate::rest::Kind::{}, oneof: {:?} }},",
            field.name(),
            field.json_name(),
            kind(&value_kind(&field))?,
            oneof(&field)
        )?;
    }
    writeln!(out, "] }};")?;
    Ok(())
}

/// The oneof that a field is a member of. An `optional` field alone in one of its own is in none.
fn oneof(field: &FieldDescriptor) -> Option<String> {
    let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
    oneof.map(|oneof| oneof.name().to_owned())
}

fn kind(kind: &Kind) -> Result<String, AnyError> {
    Ok(match kind {
        Kind::Bool => "Bool".into(),
        Kind::String => "String".into(),
        Kind::Bytes => "Bytes".into(),
        Kind::Uint32 | Kind::Fixed32 => "Uint32".into(),
        Kind::Uint64 | Kind::Fixed64 => "Uint64".into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "Int32".into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "Int64".into(),
        Kind::Double | Kind::Float => "Double".into(),
        Kind::Enum(e) => {
            let values: Vec<_> = e.values().map(|v| format!("({:?}, {})", v.name(), v.number())).collect();
            format!("Enum(&[{}])", values.join(", "))
        }
        Kind::Message(m) => match m.full_name() {
            "google.protobuf.Timestamp" => "Timestamp".into(),
            "google.protobuf.Duration" => "Duration".into(),
            "google.protobuf.FieldMask" => "FieldMask".into(),
            other if other.starts_with("google.") => {
                return Err(format!("{other} in a request is not supported").into());
            }
            _ => format!("Message(&{})", shape_name(m)),
        },
    })
}

/// The kind of one value: of a map, that of its values.
fn value_kind(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

fn is_well_known(message: &MessageDescriptor) -> bool {
    message.full_name().starts_with("google.protobuf.")
}

fn shape_name(message: &MessageDescriptor) -> String {
    format!("SHAPE_{}", snake(message.name()).to_uppercase())
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn snake_method(name: &str) -> String {
    snake(name)
}
