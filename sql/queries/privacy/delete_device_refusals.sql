-- Deletes the refused calls that named no known license, of devices that used a license of a customer. Served by
-- refusal_without_license.
-- :customer_id integer
delete from refusals
where license_id is null and at_ms >= 0 and hardware_id in (
    select d.hardware_id from devices d
    join licenses l on l.license_id = d.license_id
    where l.customer_id = :customer_id
    union
    select h.hardware_id from session_history h
    where h.hardware_id <> ''
      and h.license_id in (select license_id from licenses where customer_id = :customer_id
                           union
                           select license_id from former_owners where customer_id = :customer_id)
      and :customer_id = coalesce(
          (select f.customer_id from former_owners f
           where f.license_id = h.license_id and f.until_ms >= h.ended_at_ms order by f.until_ms limit 1),
          (select l.customer_id from licenses l where l.license_id = h.license_id)));
