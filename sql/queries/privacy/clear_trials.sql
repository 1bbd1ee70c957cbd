-- Removes what tells the devices that tried a program before a customer bought it. Served by license_customer and
-- former_owner_customer.
-- :customer_id integer
update trials set fingerprint_digest = null
where license_id in (select license_id from licenses where customer_id = :customer_id
                     union
                     select license_id from former_owners where customer_id = :customer_id)
  and :customer_id = coalesce(
      (select f.customer_id from former_owners f
       where f.license_id = trials.license_id and f.until_ms > trials.started_at_ms order by f.until_ms limit 1),
      (select l.customer_id from licenses l where l.license_id = trials.license_id));
