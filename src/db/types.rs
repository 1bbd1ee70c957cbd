//! Conversions between the crate's types and columns.

use rusqlite::Result;
use rusqlite::types::{
    FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, Value, ValueRef,
};

use crate::clock::UnixMs;
use crate::domain::Domain;
use crate::id::{
    AdminId, AdminSessionId, CustomerId, DeviceId, LicenseId, PlanId, ProductId, ReleaseId,
    SessionId, SessionToken,
};
use crate::version::Version;

/// The failure to read a column: it contains an unknown `what`, such as an unknown license key.
pub fn unknown_value(what: &str) -> rusqlite::Error {
    let cause = FromSqlError::Other(format!("an unknown {what}").into());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
}

/// Ids as the JSON array that a query reads with `json_each`.
pub fn id_list(ids: &[impl serde::Serialize]) -> String {
    serde_json::json!(ids).to_string()
}

macro_rules! integer_column {
    ($($name:ident),+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok(self.0.into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_i64().map(Self)
            }
        }
    )+};
}

integer_column!(
    UnixMs,
    CustomerId,
    LicenseId,
    PlanId,
    ProductId,
    DeviceId,
    SessionId,
    ReleaseId,
    AdminId,
    AdminSessionId
);

impl ToSql for Version {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Text(self.to_string())))
    }
}

impl FromSql for Version {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value
            .as_str()?
            .parse()
            .map_err(|problem: &str| FromSqlError::Other(problem.into()))
    }
}

impl ToSql for Domain {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(
            self.as_str().as_bytes(),
        )))
    }
}

impl FromSql for Domain {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(Self::from_stored)
    }
}

impl ToSql for SessionToken {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for SessionToken {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 16]>::column_result(value).map(Self::from_bytes)
    }
}
