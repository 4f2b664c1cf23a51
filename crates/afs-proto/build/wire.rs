//! Emits the table of fields of every request message, which the gRPC codec looks requests over with, which messages
//! are requests, and the list of all methods.

use crate::AnyError;
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor, MethodDescriptor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const PACKAGE: &str = "aether.v1";

pub(crate) fn generate(pool: &DescriptorPool) -> Result<String, AnyError> {
    let services = pool.services().filter(|s| s.package_name() == PACKAGE);
    let methods: Vec<MethodDescriptor> = services.flat_map(|s| s.methods().collect::<Vec<_>>()).collect();
    let requests: Vec<MessageDescriptor> = methods.iter().map(MethodDescriptor::input).collect();
    let names: BTreeSet<&str> = requests.iter().map(MessageDescriptor::full_name).collect();
    let mut all = BTreeMap::new();
    requests.iter().for_each(|request| collect(request, &mut all));
    let mut out = String::new();
    for message in all.values() {
        table(&mut out, message)?;
    }
    for message in pool.all_messages().filter(|m| m.package_name() == PACKAGE && !m.is_map_entry()) {
        let wire = match names.contains(message.full_name()) {
            true => format!("Some(&{})", table_name(&message)),
            false => "None".to_owned(),
        };
        writeln!(out, "impl crate::wire::Checked for crate::v1::{} {{", message.name())?;
        writeln!(out, "    const WIRE: Option<&'static crate::wire::Wire> = {wire};\n}}")?;
    }
    writeln!(out, "/// Path and request of every method of every service.")?;
    writeln!(out, "pub static METHODS: &[(&str, &crate::wire::Wire)] = &[")?;
    for method in &methods {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        writeln!(out, "    ({path:?}, &{}),", table_name(&method.input()))?;
    }
    writeln!(out, "];")?;
    Ok(out)
}

fn collect(message: &MessageDescriptor, into: &mut BTreeMap<String, MessageDescriptor>) {
    if into.insert(message.full_name().to_owned(), message.clone()).is_some() {
        return;
    }
    for field in message.fields() {
        if let Kind::Message(child) = field.kind() {
            collect(&child, into);
        }
    }
}

fn table(out: &mut String, message: &MessageDescriptor) -> std::fmt::Result {
    writeln!(
        out,
        "static {}: crate::wire::Wire = crate::wire::Wire {{ name: {:?}, fields: &[",
        table_name(message),
        message.name()
    )?;
    for field in message.fields() {
        let child = match field.kind() {
            Kind::Message(child) => format!("Some(&{})", table_name(&child)),
            _ => "None".to_owned(),
        };
        writeln!(
            out,
            "    crate::wire::WireField {{ number: {}, name: {:?}, many: {}, message: {child} }},",
            field.number(),
            field.name(),
            field.is_list() || field.is_map(),
        )?;
    }
    writeln!(out, "] }};")
}

fn table_name(message: &MessageDescriptor) -> String {
    format!("WIRE_{}", message.full_name().replace('.', "_").to_uppercase())
}
