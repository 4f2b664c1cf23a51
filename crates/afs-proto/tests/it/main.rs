//! The contract as clients see it: routes, errors and streams over a small real service, and the OpenAPI document.

mod fake;
mod openapi;
mod rest;
