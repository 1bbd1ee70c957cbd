-- Deletes the refused calls of programs and websites that named a license while it belonged to a customer. Served by
-- refusal_license.
-- :customer_id integer
delete from refusals
where license_id in (select license_id from licenses where customer_id = :customer_id
                     union
                     select license_id from former_owners where customer_id = :customer_id)
  and :customer_id = coalesce(
      (select f.customer_id from former_owners f
       where f.license_id = refusals.license_id and f.until_ms > refusals.at_ms order by f.until_ms limit 1),
      (select l.customer_id from licenses l where l.license_id = refusals.license_id));
