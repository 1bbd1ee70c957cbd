//! The operations of the server that the shop uses, as its handlers call them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use license_server::activations::{self, ActivationRequest, DeactivationRequest};
use license_server::api_keys;
use license_server::audit::{self, Act, Actor};
use license_server::clock::UnixMs;
use license_server::customers::{self, CustomerData};
use license_server::db::Tx;
use license_server::devices::ClientIdentity;
use license_server::error::{Error, Result};
use license_server::flags::{self, FlagChange};
use license_server::id::{CustomerId, LicenseId, ProductId, SessionToken};
use license_server::licenses::{self, Buyer, EditedTerms, License, LicenseEdit, LicenseKey, Order};
use license_server::plans::{self, ApplyStep, PlanChange, PlanTerms};
use license_server::privacy::{self, ErasureRequest, LicensePolicy, ListFiles};
use license_server::products::{self, NewProduct, ProgramSettings};
use license_server::releases::{self, Release, ReleaseState};
use license_server::security::rate_limit::{Group, HourlyQuota, Quota, Source};
use license_server::session_history::EndReason;
use license_server::sessions::{self, Credentials, EndRequest, GivenKey, StartRequest};
use license_server::trials::{self, TrialRequest};
use license_server::version::Version;

use super::model::{Outcome, State};
use crate::in_process::{InProcess, actor, code_of, hardware_id, start_answer, token_of};

/// The server of the shop.
pub(super) struct Shop {
    pub(super) process: InProcess,
    /// Every API key that was ever issued.
    pub(super) keys: Vec<String>,
    backups: usize,
}

/// A call of a program, with the keys as they are sent.
#[derive(Clone, Debug)]
pub(super) struct SentCall {
    pub(super) api_key: String,
    pub(super) license_key: LicenseKey,
    pub(super) device: usize,
    pub(super) version: Version,
}

/// A license as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredLicense {
    pub(super) id: i64,
    pub(super) product: i64,
    pub(super) plan: Option<String>,
    pub(super) customer: Option<i64>,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) device_limit: usize,
    pub(super) valid_until: Option<i64>,
    pub(super) pending_days: Option<u32>,
    pub(super) features: String,
    pub(super) updates_until: Option<i64>,
    pub(super) devices: BTreeSet<String>,
}

impl Shop {
    pub(super) fn new() -> Self {
        let mut shop = Self {
            process: InProcess::new(),
            keys: Vec::new(),
            backups: 0,
        };
        shop.note_key(ProductId::FIRST);
        shop
    }

    pub(super) fn now(&self) -> UnixMs {
        self.process.now().wall
    }

    /// Runs an operation of an administrator.
    fn act<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Act<'_>) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let now = self.now();
        let done = self
            .process
            .write(move |tx: &Tx<'_>| work(&Act::new(tx, &actor(), now)));
        done.map_err(code_of)
    }

    /// Remembers the current API key of a product; returns its number.
    fn note_key(&mut self, product: ProductId) -> usize {
        let current = self
            .process
            .db()
            .read_blocking(|reader| api_keys::current(reader, product));
        self.keys.push(current.unwrap().key.reveal().clone());
        self.keys.len() - 1
    }

    pub(super) fn add_product(&mut self, name: &str) -> (ProductId, usize) {
        let new = NewProduct {
            name: name.to_owned(),
            slug: None,
        };
        let product = self.act(move |act| products::add(act, &new)).unwrap().id;
        (product, self.note_key(product))
    }

    pub(super) fn archive_product(&self, product: ProductId) -> Outcome<()> {
        self.act(move |act| products::archive(act, product).map(drop))
    }

    /// The number of the new key.
    pub(super) fn rotate(&mut self, product: ProductId, overlap_days: u32) -> Outcome<usize> {
        let overlap = Duration::from_hours(24) * overlap_days;
        self.act(move |act| api_keys::rotate(act, product, overlap))?;
        Ok(self.note_key(product))
    }

    pub(super) fn release(&self, product: ProductId, version: Version) -> Outcome<()> {
        let release = Release {
            version,
            channel: "stable".to_owned(),
            notes: String::new(),
            download_url: None,
            sha256: None,
            state: ReleaseState::Released,
            released_at: self.now(),
        };
        self.act(move |act| releases::add(act, product, &release).map(drop))
    }

    pub(super) fn set_flag(&self, product: ProductId, name: String, enabled: bool) -> Outcome<()> {
        let change = FlagChange {
            enabled: Some(enabled),
            ..FlagChange::default()
        };
        self.act(move |act| flags::set(act, product, &name, &change))
    }

    pub(super) fn add_customer(&self, name: &str) -> CustomerId {
        let data = CustomerData {
            name: name.to_owned(),
            ..CustomerData::default()
        };
        self.act(move |act| customers::add(act, &data)).unwrap().id
    }

    pub(super) fn sell(&self, customer: CustomerId, order: Order) -> Outcome<License> {
        let buyer = Buyer::Known(customer);
        let sold = self.act(move |act| licenses::sell(act, &buyer, &order))?;
        Ok(sold.into_iter().next().unwrap())
    }

    pub(super) fn add_plan(
        &self,
        product: ProductId,
        code: String,
        terms: PlanTerms,
    ) -> Outcome<()> {
        self.act(move |act| plans::add(act, product, &code, &terms).map(drop))
    }

    pub(super) fn edit_plan(
        &self,
        product: ProductId,
        code: String,
        terms: PlanTerms,
    ) -> Outcome<()> {
        self.act(move |act| {
            let seen = plans::get(act.tx, product, &code)?.revision();
            plans::edit(act, product, &code, &PlanChange::replacing(terms, seen)).map(drop)
        })
    }

    pub(super) fn archive_plan(&self, product: ProductId, code: String) -> Outcome<()> {
        self.act(move |act| plans::archive(act, product, &code).map(drop))
    }

    /// The ids of the licenses that stay as they are.
    pub(super) fn apply_plan(&self, product: ProductId, code: String) -> Outcome<Vec<LicenseId>> {
        let applied = self.act(move |act| {
            let seen = plans::get(act.tx, product, &code)?.revision();
            plans::apply(act, product, &code, &ApplyStep::first(seen))
        })?;
        let skipped = applied.skipped.iter();
        Ok(skipped.map(|skipped| skipped.license.id).collect())
    }

    pub(super) fn offer_trials(&self, product: ProductId, code: String) -> Outcome<()> {
        let changes = [("trial_plan".to_owned(), code)];
        self.act(move |act| products::set(act, product, &changes, None).map(drop))
    }

    pub(super) fn sell_by_plan(
        &self,
        customer: CustomerId,
        product: ProductId,
        code: String,
    ) -> Outcome<License> {
        let buyer = Buyer::Known(customer);
        let sold = self.act(move |act| {
            let plan = plans::get(act.tx, product, &code)?;
            plan.check_for_sale()?;
            licenses::sell(act, &buyer, &plans::order(&plan, act.now))
        })?;
        Ok(sold.into_iter().next().unwrap())
    }

    pub(super) fn sell_trial(
        &self,
        license: LicenseId,
        customer: CustomerId,
        plan: Option<String>,
    ) -> Outcome<()> {
        let buyer = Buyer::Known(customer);
        self.act(move |act| trials::sell(act, license, &buyer, plan.as_deref()).map(drop))
    }

    pub(super) fn erase(&self, customer: CustomerId, keep_licenses: bool) -> Outcome<()> {
        let request = ErasureRequest {
            customer_id: customer,
            typed: None,
            licenses: if keep_licenses {
                LicensePolicy::Keep
            } else {
                LicensePolicy::Revoke
            },
        };
        let (live, now) = (self.process.live.clone(), self.process.now());
        let erased = self.act(move |act| privacy::erase(act, live.at(now), &request).map(drop));
        if erased.is_ok() {
            let db = self.process.db();
            ListFiles::of(db.path(), None).save(db).unwrap();
        }
        erased
    }

    /// Gives a license to a customer, with a note.
    pub(super) fn give(&self, id: LicenseId, customer: CustomerId, note: String) -> Outcome<()> {
        let edit = LicenseEdit {
            id,
            terms: EditedTerms {
                customer: Some(format!("#{customer}")),
                note: Some(note),
                ..EditedTerms::default()
            },
            seen: None,
        };
        let (live, now) = (self.process.live.clone(), self.process.now());
        self.act(move |act| activations::edit_license(act, live.at(now), &edit).map(drop))
    }

    /// The license of a device's trial, whether it was issued now, and why the device cannot use it.
    pub(super) fn trial(&self, call: &SentCall) -> Outcome<(License, bool, Option<String>)> {
        let request = TrialRequest {
            product: self.product_of(&call.api_key)?,
            client: ClientIdentity {
                license_key: None,
                ..call.client()
            },
            idempotency_key: None,
            trial_quota: HourlyQuota::new(
                Arc::default(),
                (Group::Trials, Source::from_identifier(b"t")),
                0,
            ),
            quota: Quota::unlimited(),
            now: self.process.now(),
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        let outcome = self.act(move |act| {
            trials::start_once(act, &request, |trial| {
                sender.send(trial.clone()).unwrap();
                Ok(String::new())
            })
        })?;
        let trial = receiver.recv().unwrap();
        let obstacle = trial.obstacle.map(str::to_owned);
        Ok((trial.license, outcome.created, obstacle))
    }

    pub(super) fn set_state(&self, license: LicenseId, state: State) -> Outcome<()> {
        let set: fn(&Act<'_>, LicenseId) -> Result<License> = match state {
            State::Active => licenses::reinstate,
            State::Suspended => licenses::suspend,
            State::Revoked => licenses::revoke,
        };
        self.act(move |act| set(act, license).map(drop))
    }

    /// What the guard of every call does: the settings of the product of an API key.
    pub(super) fn admit(&self, api_key: &str) -> Outcome<Arc<ProgramSettings>> {
        let (process, now) = (&self.process, self.now());
        let admitted = async {
            let shared = process.current.shared(process.db()).await?;
            let product = shared.api_keys.product_of(api_key, now);
            let product = product.map_err(Error::from)?;
            process.current.get(process.db(), product).await
        };
        process.runtime.block_on(admitted).map_err(code_of)
    }

    fn product_of(&self, api_key: &str) -> Outcome<ProductId> {
        Ok(self.admit(api_key)?.config.product)
    }

    pub(super) fn activate(&self, call: &SentCall) -> Outcome<bool> {
        let request = ActivationRequest {
            product: self.product_of(&call.api_key)?,
            client: call.client(),
            idempotency_key: None,
            quota: Quota::unlimited(),
            now: self.process.now(),
        };
        let activated = self
            .process
            .write(move |tx| activations::activate(tx, &request));
        activated.map(|it| it.created).map_err(code_of)
    }

    pub(super) fn deactivate(&self, call: &SentCall) -> Outcome<()> {
        let request = DeactivationRequest {
            product: self.product_of(&call.api_key)?,
            key: Some(call.license_key),
            hardware_id: hardware_id(call.device),
        };
        let (live, now) = (self.process.live.clone(), self.process.now());
        let done = self.process.write(move |tx| {
            let act = Act::new(tx, &Actor::Program, now.wall);
            activations::deactivate(&act, live.at(now), &request)
        });
        done.map(drop).map_err(code_of)
    }

    pub(super) fn start(&self, call: &SentCall) -> Outcome<SessionToken> {
        let request = StartRequest {
            product: self.product_of(&call.api_key)?,
            client: call.client(),
            address: "192.0.2.1".to_owned(),
            idempotency_key: None,
            auto_activate: false,
            quota: Quota::unlimited(),
            settings: self.process.current.clone(),
        };
        let (live, now) = (self.process.live.clone(), self.process.now());
        let started = self
            .process
            .write(move |tx| sessions::start_once(tx, live.at(now), &request, start_answer));
        started.map(|answer| token_of(&answer)).map_err(code_of)
    }

    pub(super) fn heartbeat(&self, call: &SentCall, token: SessionToken) -> Outcome<()> {
        let settings = self.admit(&call.api_key)?;
        let credentials = Credentials {
            product: settings.config.product,
            token,
            key: call.license_key,
        };
        let process = &self.process;
        let live = process.live.at(process.now());
        let heartbeat = sessions::heartbeat(process.db(), live, &settings, credentials);
        let accepted = process.runtime.block_on(heartbeat);
        accepted.map(drop).map_err(code_of)
    }

    pub(super) fn end(
        &self,
        call: &SentCall,
        token: SessionToken,
        with_key: bool,
    ) -> Outcome<&'static str> {
        let request = EndRequest {
            product: self.product_of(&call.api_key)?,
            token,
            key: if with_key {
                GivenKey::Sent(Some(call.license_key))
            } else {
                GivenKey::NotSent
            },
        };
        let (live, now) = (self.process.live.clone(), self.process.now());
        let ended = self
            .process
            .write(move |tx| sessions::end(tx, live.at(now), &request));
        ended.map(EndReason::as_str).map_err(code_of)
    }

    /// The code of a verification, and whether a session is active.
    pub(super) fn verify(&self, call: &SentCall) -> Outcome<(String, bool)> {
        let settings = self.admit(&call.api_key)?;
        let (client, now) = (call.client(), self.process.now());
        let verified = self.process.verify_with(&settings, client, now);
        let verified = verified.map_err(code_of)?;
        let code = verified.refusal.map_or("valid", |refused| refused.code);
        Ok((code.to_owned(), verified.session_active))
    }

    pub(super) fn back_up(&mut self) -> PathBuf {
        self.backups += 1;
        self.process
            .back_up(&format!("backup-{}.sqlite3", self.backups))
    }

    /// The licenses as they are stored, the first one first.
    pub(super) fn stored_licenses(&self) -> Vec<StoredLicense> {
        let read = self.process.db().read_blocking(|reader| {
            let mut devices: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
            let sql = "select license_id, hardware_id from devices";
            for (license, device) in reader.list(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))? {
                devices.entry(license).or_default().insert(device);
            }
            let sql = "select * from license_details order by license_id";
            reader.list(sql, [], |row| {
                let id = row.get("license_id")?;
                Ok(StoredLicense {
                    id,
                    product: row.get("product_id")?,
                    plan: row.get("plan")?,
                    customer: row.get("customer_id")?,
                    kind: row.get("kind")?,
                    state: row.get("state")?,
                    device_limit: row.get::<_, u32>("device_limit")? as usize,
                    valid_until: row.get("valid_until_ms")?,
                    pending_days: row.get("pending_days")?,
                    features: row.get("features")?,
                    updates_until: row.get("updates_until_ms")?,
                    devices: devices.get(&id).cloned().unwrap_or_default(),
                })
            })
        });
        read.unwrap()
    }

    /// The names of the customers, the first one first.
    pub(super) fn stored_customers(&self) -> Vec<(i64, String)> {
        let read = self.process.db().read_blocking(|reader| {
            let sql = "select customer_id, name from customers order by customer_id";
            reader.list(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        });
        read.unwrap()
    }

    /// The tables that hold a text.
    pub(super) fn tables_with(&self, text: &str) -> Vec<String> {
        let conn = self.process.connect();
        let sql = "select name from sqlite_schema where type = 'table' and name not like 'sqlite%'";
        let mut tables = conn.prepare(sql).unwrap();
        let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let mut found = Vec::new();
        for table in tables.map(Result::unwrap) {
            let mut rows = conn.prepare(&format!("select * from {table}")).unwrap();
            let columns = rows.column_count();
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let holds = |at| {
                    row.get_ref(at)
                        .unwrap()
                        .as_str()
                        .is_ok_and(|it| it.contains(text))
                };
                if (0..columns).any(holds) {
                    found.push(table.clone());
                }
            }
        }
        found
    }

    /// What is wrong with the file or with the chain of the audit log; empty if nothing is.
    pub(super) fn damage(&self) -> Vec<String> {
        let read = self.process.db().read_blocking(|reader| {
            let mut found = reader.integrity()?;
            if let Some(entry) = audit::verify(reader)?.first_altered {
                found.push(format!("entry {entry} of the audit log was altered"));
            }
            let counts = license_server::figures::wrong_counts(reader)?;
            found.extend(
                counts
                    .into_iter()
                    .map(|name| format!("{name} is not what it counts")),
            );
            Ok(found)
        });
        read.unwrap()
    }
}

impl SentCall {
    fn client(&self) -> ClientIdentity {
        ClientIdentity {
            license_key: Some(self.license_key),
            machine_id: format!("machine {}", self.device),
            hardware_id: hardware_id(self.device),
            version: self.version,
        }
    }
}
