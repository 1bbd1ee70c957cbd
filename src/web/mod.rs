//! HTTP building blocks for all handlers: guards, bodies, forms and responses. Independent of licenses.

pub mod assets;
pub mod body;
pub mod chart;
pub mod connection;
pub mod cookies;
pub mod csv;
mod digests;
pub mod flash;
pub mod form;
pub mod formatting;
pub mod guards;
pub mod html;
pub mod merge;
pub mod not_served;
pub mod once;
pub mod page;
pub mod pager;
pub mod pending;
pub mod product_param;
pub mod query;
pub mod rate_limiting;
pub mod refusal;
pub mod reply;
pub mod span;
pub mod stash;
