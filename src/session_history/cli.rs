//! Command line: `license-server session history`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{EndedSession, HistoryQuery, SessionDetails};
use crate::console::{Console, Extent, List};
use crate::error::Result;
use crate::licenses;
use crate::products::Slugs;

/// Maximum sessions listed.
const LIST_MAX: u32 = 100_000;
const HOUR: Duration = Duration::from_hours(1);

/// The head of the table; the last column only if there are several products.
const HEADER: &[&str] = &[
    "id",
    "license key",
    "customer",
    "device",
    "address",
    "version",
    "started",
    "ended",
    "reason",
    "sessions",
    "product",
];

/// Lists ended sessions.
pub fn history(console: &Console, hours: u32, license: Option<&str>) -> Result<()> {
    let since = console.now().wall.minus(HOUR * hours);
    let (mut ended, slugs) = console.db.read_blocking(|reader| {
        let license = license
            .map(|key| licenses::by_typed_key(reader, key))
            .transpose()?;
        let query = HistoryQuery {
            since,
            license_id: license.map(|license| license.id),
            limit: LIST_MAX + 1,
        };
        Ok((super::list(reader, &query)?, Slugs::read(reader)?))
    })?;
    let extent = Extent::truncate(&mut ended, LIST_MAX);
    let cells = |ended: &EndedSession| {
        let mut row = table_row(&ended.session);
        row.pop(); // the last heartbeat, which has no column here
        row.extend([
            ended.ended_at.rfc3339(),
            ended.reason.as_str().to_owned(),
            ended.session_count.to_string(),
        ]);
        row.extend(product_cell(&ended.session, &slugs));
        row
    };
    console.show_list(&List {
        product: None,
        name: "sessions",
        rows: &ended,
        document: &|ended| ended_to_json(ended, &slugs),
        head: slugs.table_head(HEADER),
        cells: &cells,
        cut: extent,
        advice: "narrow the list with --hours or --license",
    })
}

/// A running session in JSON output.
pub fn to_json(session: &SessionDetails, slugs: &Slugs) -> Value {
    json!({
        "id": session.id,
        "license_key": session.license_key,
        "product": slugs.of(session.product),
        "customer": session.customer,
        "hardware_id": session.hardware_id,
        "machine_id": session.machine_id,
        "address": session.address,
        "version": session.version,
        "started_at": session.started_at.rfc3339(),
        "last_heartbeat_at": session.last_heartbeat_at.rfc3339(),
    })
}

/// An ended session in JSON output.
pub fn ended_to_json(ended: &EndedSession, slugs: &Slugs) -> Value {
    let mut value = to_json(&ended.session, slugs);
    if let Some(map) = value.as_object_mut() {
        map.insert("ended_at".to_owned(), ended.ended_at.rfc3339().into());
        map.insert("end_reason".to_owned(), ended.reason.as_str().into());
        map.insert("sessions".to_owned(), ended.session_count.into());
    }
    value
}

/// The product of a session, for the end of its row; `None` if there is only one.
pub fn product_cell(session: &SessionDetails, slugs: &Slugs) -> Option<String> {
    let is_shown = slugs.are_several();
    is_shown.then(|| slugs.of(session.product).to_owned())
}

/// A session as a row of a table, with the last heartbeat at the end.
pub fn table_row(session: &SessionDetails) -> Vec<String> {
    vec![
        session.id.to_string(),
        session.license_key.formatted(),
        licenses::cli::customer_cell(&session.customer),
        session.machine_id.clone(),
        session.address.clone(),
        session.version.to_string(),
        session.started_at.rfc3339(),
        session.last_heartbeat_at.rfc3339(),
    ]
}
