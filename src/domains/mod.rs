//! The domains of licenses: a license may be bound to a domain, and be transferred to another one. How sites (software
//! on customers' websites) do that themselves is the subject of [`handshake`](crate::handshake).

pub mod cli;
pub mod panel;
mod rules;
mod store;

use std::time::Duration;

use serde_json::{Value, json};

pub use rules::Refusal;

use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::domain::Domain;
use crate::error::{Error, RefusalKind, Refused, Resource, Result};
use crate::id::{LicenseId, ProductId};
use crate::licenses::{self, License, LicenseState};
use crate::paging::{Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total};
use crate::revision::Revision;

/// The domains of a license.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainBinding {
    /// The domain that the license is bound to.
    pub domain: Option<Domain>,
    /// The transfer in progress.
    pub transfer: Option<Transfer>,
}

/// The transfer of a license to another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The new domain.
    pub domain: Domain,
    /// The end of the grace period; from then on only the new domain is served.
    pub until: UnixMs,
    /// When the new domain confirmed the transfer; `None` if it has not yet.
    pub confirmed_at: Option<UnixMs>,
}

/// How long both domains of a transfer are served.
#[derive(Clone, Copy, Debug)]
pub struct TransferGrace(Duration);

impl TransferGrace {
    /// A grace period of `days` days.
    pub const fn days(days: u32) -> Self {
        Self(Duration::from_hours(24).saturating_mul(days))
    }

    /// The end of a grace period that starts at `now`.
    pub fn end(self, now: UnixMs) -> UnixMs {
        now.plus(self.0)
    }

    /// The grace period in days.
    pub const fn as_days(self) -> u64 {
        self.0.as_secs() / 86_400
    }
}

/// A license that is bound to a domain.
#[derive(Clone, Debug)]
pub struct BoundLicense {
    /// The license.
    pub license: License,
    /// Its domains.
    pub binding: DomainBinding,
    /// When a handshake for the domain was last completed.
    pub last_handshake_at: Option<UnixMs>,
}

/// An administrator's change of the domain of a license.
#[derive(Clone, Debug)]
pub enum BindingChange {
    /// Binds a license that has no domain.
    Bind(Domain),
    /// Removes its domain and cancels a transfer in progress.
    Unbind,
    /// Starts a transfer.
    Transfer {
        /// The new domain.
        to: Domain,
        /// How long both domains are served.
        grace: TransferGrace,
    },
    /// Cancels the transfer in progress.
    CancelTransfer,
}

/// Whether a usable license is bound to `domain`, or is being transferred to it.
pub fn is_served(reader: &Reader<'_>, domain: &Domain, now: UnixMs) -> Result<bool> {
    store::is_served(reader, domain, now)
}

/// The stored binding of a license, which may contain a transfer whose grace period has passed.
fn stored_binding(reader: &Reader<'_>, id: LicenseId) -> Result<DomainBinding> {
    store::binding(reader, id)?.ok_or_else(|| Error::not_found(Resource::License, id))
}

/// The binding of a license at `now`: a transfer whose grace period has passed counts as completed, even if
/// [`end_transfers`] has not stored that yet.
///
/// # Errors
/// [`Error::NotFound`] if the license does not exist.
pub fn binding_at(reader: &Reader<'_>, id: LicenseId, now: UnixMs) -> Result<DomainBinding> {
    Ok(stored_binding(reader, id)?.at(now))
}

/// Which bound licenses to list.
#[derive(Clone, Debug)]
pub struct BoundQuery {
    /// Of this product only.
    pub product: Option<ProductId>,
    /// A part of a domain, customer or company; empty for any.
    pub search: String,
    /// The column by which they are sorted, and in which direction.
    pub order: (BoundColumn, Direction),
}

/// A column by which the bound licenses can be sorted. Only domains have an index: by another column, a list of at most
/// [`SORTED_MAX`] licenses is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundColumn {
    /// The domain.
    Domain,
    /// When a handshake for the domain was last completed.
    Verified,
    /// The customer's name.
    Customer,
}

impl BoundColumn {
    /// Every column.
    pub const ALL: [Self; 3] = [Self::Domain, Self::Verified, Self::Customer];
    /// The order if none is chosen.
    pub const DEFAULT: (Self, Direction) = (Self::Domain, Direction::Ascending);

    /// The word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Verified => "verified",
            Self::Customer => "customer",
        }
    }

    /// The column for a word; `None` if unknown.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == word)
    }
}

impl BoundLicense {
    /// Its position in the list of transfers.
    pub fn position_of_transfer(&self) -> SortPosition {
        let until = self
            .binding
            .transfer
            .as_ref()
            .map_or(0, |transfer| transfer.until.0);
        SortPosition::number(until, self.license.id.0)
    }

    /// Its position in a list that is sorted by `column`. Several licenses may be bound to one domain.
    pub fn position(&self, column: BoundColumn) -> SortPosition {
        let id = self.license.id;
        position(
            &self.binding,
            self.last_handshake_at,
            &self.license.customer,
            (column, id),
        )
    }
}

fn position(
    binding: &DomainBinding,
    last_handshake_at: Option<UnixMs>,
    customer: &str,
    (column, id): (BoundColumn, LicenseId),
) -> SortPosition {
    match column {
        BoundColumn::Domain => {
            let domain = binding.domain.as_ref();
            SortPosition {
                value: domain.map_or_else(String::new, |domain| domain.as_str().to_owned()),
                id: id.0,
            }
        }
        BoundColumn::Verified => {
            let at = last_handshake_at.map_or(0, |at| at.0);
            SortPosition::number(at, id.0)
        }
        BoundColumn::Customer => SortPosition::text(customer, id.0),
    }
}

/// A page of a list of bound licenses.
#[derive(Clone, Debug)]
pub struct BoundPage {
    /// Its rows.
    pub page: Page<BoundLicense>,
    /// How many licenses the list has.
    pub total: Total,
    /// Its order, which is not the one that was asked for if the list has too many licenses for that.
    pub order: (BoundColumn, Direction),
}

/// A page of the licenses that are bound to a domain.
pub fn bound_licenses(
    reader: &Reader<'_>,
    query: &BoundQuery,
    request: PageRequest<SortPosition>,
) -> Result<BoundPage> {
    let count = store::count_matching(reader, query, Total::ROWS_TO_COUNT)?;
    let total = Total::counted(count);
    let order = total.order(query.order, BoundColumn::DEFAULT);
    let page = read_page(reader, query, order, &request.in_order(query.order, order))?;
    Ok(BoundPage {
        page: Page {
            rows: with_licenses(reader, page.rows)?,
            has_previous: page.has_previous,
            has_next: page.has_next,
        },
        total,
        order,
    })
}

fn read_page(
    reader: &Reader<'_>,
    query: &BoundQuery,
    (column, direction): (BoundColumn, Direction),
    request: &PageRequest<SortPosition>,
) -> Result<Page<store::BindingRow>> {
    if column == BoundColumn::Domain {
        let (from, direction) = request.start(direction);
        let range = store::BoundRange {
            from,
            direction,
            limit: request.rows_to_read(),
        };
        return Ok(request.page(store::bound_licenses(reader, query, &range)?));
    }
    let all = store::BoundRange {
        from: None,
        direction,
        limit: SORTED_MAX,
    };
    let all = store::bound_licenses(reader, query, &all)?;
    Ok(request.cut(all, direction, |row| {
        position(
            &row.binding,
            row.last_handshake_at,
            &row.customer,
            (column, row.id),
        )
    }))
}

/// A page of the licenses with a transfer in progress, of one product or (`None`) of all products, the next end of a grace
/// period first, and how many there are.
///
/// # Errors
/// [`Error::Invalid`] if the position is no time.
pub fn transfers_in_progress(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    request: &PageRequest<SortPosition>,
) -> Result<(Page<BoundLicense>, Total)> {
    let (from, direction) = request.start(Direction::Ascending);
    let from = match from {
        Some(position) => (position.as_number()?, position.id),
        None => (0, 0),
    };
    let limit = request.rows_to_read();
    let rows = store::transfers_in_progress(reader, product, (from, direction), limit)?;
    let count = store::count_transfers(reader, product, Total::ROWS_TO_COUNT)?;
    Ok((
        request.page(with_licenses(reader, rows)?),
        Total::counted(count),
    ))
}

/// The number of licenses that are bound to a domain, of one product or (`None`) of all products.
pub fn count_bound(reader: &Reader<'_>, product: Option<ProductId>) -> Result<u32> {
    store::count_bound(reader, product)
}

/// Adds the license to each row.
fn with_licenses(reader: &Reader<'_>, rows: Vec<store::BindingRow>) -> Result<Vec<BoundLicense>> {
    rows.into_iter()
        .map(|row| {
            Ok(BoundLicense {
                license: licenses::find(reader, row.id)?,
                binding: row.binding,
                last_handshake_at: row.last_handshake_at,
            })
        })
        .collect()
}

/// Changes the domain of a license. A revoked license can be unbound, but not bound or transferred. If `base` is given,
/// the change is refused unless the binding still has this [revision](DomainBinding::revision).
///
/// # Errors
/// A [`Refusal`], `license_revoked`, `changed_meanwhile`, or [`Error::NotFound`] if the license does not exist.
pub fn change(
    act: &Act<'_>,
    id: LicenseId,
    change: &BindingChange,
    base: Option<&Revision>,
) -> Result<DomainBinding> {
    let binding = binding_at(act.tx, id, act.now)?;
    if let Some(base) = base {
        base.check(&binding.revision())?;
    }
    if change.gives_domain() && licenses::find(act.tx, id)?.state == LicenseState::Revoked {
        return Err(Refused::new(RefusalKind::Conflict, "license_revoked").into());
    }
    let new = change.apply(binding, act.now)?;
    set_binding(act, id, &new, change.audit_action())?;
    Ok(new)
}

/// The product with this slug, or else that of the oldest license, among the products in use of the usable licenses that
/// are bound to `domain`.
pub fn product(
    reader: &Reader<'_>,
    domain: &Domain,
    slug: Option<&str>,
    now: UnixMs,
) -> Result<Option<ProductId>> {
    store::product(reader, domain, slug, now)
}

/// Licenses with a transfer whose grace period has passed, at most 1000 of them.
pub fn ended_transfers(reader: &Reader<'_>, now: UnixMs) -> Result<Vec<LicenseId>> {
    store::ended_transfers(reader, now)
}

/// Completes transfers whose grace period has passed, at most 1000 of them; the others are left for the next call.
pub fn end_transfers(act: &Act<'_>) -> Result<()> {
    for id in store::ended_transfers(act.tx, act.now)? {
        let binding = binding_at(act.tx, id, act.now)?;
        set_binding(act, id, &binding, "handshake.end_transfer")?;
    }
    Ok(())
}

/// Stores the new binding of a license and adds an audit entry with this action, even if nothing has changed.
pub fn set_binding(
    act: &Act<'_>,
    id: LicenseId,
    new: &DomainBinding,
    action: &'static str,
) -> Result<()> {
    let (old, subject) = (stored_binding(act.tx, id)?, id.to_string());
    let mut entry = Change {
        action,
        subject: &subject,
        before: Value::Null,
        after: audit_facts(new),
    };
    if old == *new {
        return act.note(&entry);
    }
    store::set_binding(act.tx, id, new)?;
    entry.before = audit_facts(&old);
    act.changed(&entry)
}

/// A binding for the audit log. Each fact is a separate member, so that an audit entry shows only what changed.
fn audit_facts(binding: &DomainBinding) -> Value {
    let transfer = binding.transfer.as_ref();
    json!({
        "domain": binding.domain,
        "moves_to": transfer.map(|transfer| &transfer.domain),
        "until": transfer.map(|transfer| transfer.until.rfc3339()),
        "confirmed_at": transfer.and_then(|transfer| transfer.confirmed_at.map(UnixMs::rfc3339)),
    })
}

impl DomainBinding {
    /// The revision of a binding, which forms send back.
    pub fn revision(&self) -> Revision {
        Revision::of(&audit_facts(self))
    }
}

impl Transfer {
    /// A transfer in JSON, for sites and for scripts that use `--json`.
    pub fn to_json(&self) -> Value {
        json!({ "target": self.domain, "until": self.until.rfc3339() })
    }
}

#[cfg(test)]
pub(crate) use rules::tests::{confirmed_binding, example_binding, example_domain};
