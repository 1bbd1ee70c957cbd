-- What is known of a person on a license that another customer has now, and in handshakes for a domain that no license has;
-- and an erasure that is repeated.

-- Who owned a license, and until when. What happened on it until then belongs to them: to the first of them also what
-- happened before, such as a trial.
create table former_owners (
    license_id  integer not null references licenses (license_id),
    customer_id integer not null references customers (customer_id),
    until_ms    integer not null
) strict;
create index former_owner_license on former_owners (license_id, until_ms, customer_id);
create index former_owner_customer on former_owners (customer_id, license_id);
-- Moves of earlier versions are known from the audit log only.
insert into former_owners (license_id, customer_id, until_ms)
select l.license_id, c.customer_id, a.at_ms
from (select audit_id, at_ms, cast(subject as integer) as license_id,
             case when json_valid(before) then json_extract(before, '$.customer') end as former,
             case when json_valid(after) then json_extract(after, '$.customer') end as present
      from audit_log where action = 'licenses.edit') a
join licenses l on l.license_id = a.license_id
join customers c on c.customer_id = a.former and c.created_at_ms <= a.at_ms
where a.former <> a.present
order by a.audit_id;
create trigger license_moves_without_devices before update of customer_id on licenses
when new.customer_id is not old.customer_id and old.customer_id is not null
     and exists (select 1 from devices where license_id = old.license_id)
begin
    select raise(abort, 'a license takes no devices to another customer');
end;

-- The license whose key the first message named; null: none. Its customer may have no license on the domain.
alter table handshakes add column license_id integer references licenses (license_id);
create index handshake_license on handshakes (license_id) where license_id is not null;

-- When a customer was erased for the last time; null: once. A license that was kept collects data again.
alter table erased_customers add column again_at_ms integer;
