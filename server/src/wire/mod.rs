//! The Kafka wire format: bounded reading of requests, writing of replies, the table of APIs, error codes.
//!
//! A frame goes through [`header::read`], which finds the API in [`api::APIS`] and hands back a [`Reader`] that stands
//! on the body; [`Reader::body`] turns the body into a request. Replies leave through [`reply`]. Nothing here waits.

pub mod api;
pub mod error;
pub mod header;
pub mod reader;
pub mod reply;

pub use api::Api;
pub use error::ErrorCode;
pub use header::{HeaderError, RequestHeader};
pub use reader::{Decode, DecodeError, Reader};
