//! The contract as clients see it: routes, errors and streams over a small real service, and the OpenAPI document.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod expressions;
mod fake;
mod openapi;
#[path = "../../build/openapi/patterns.rs"]
mod patterns;
mod rest;
