//! Tests of the shipped image as hosts with addresses of their own; see `main.rs`.
