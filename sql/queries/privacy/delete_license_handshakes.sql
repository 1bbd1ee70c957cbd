-- Deletes the log of handshakes that named a license while it belonged to a customer, for whatever domain. Served by
-- handshake_license.
-- :customer_id integer
delete from handshakes
where license_id in (select license_id from licenses where customer_id = :customer_id
                     union
                     select license_id from former_owners where customer_id = :customer_id)
  and :customer_id = coalesce(
      (select f.customer_id from former_owners f
       where f.license_id = handshakes.license_id and f.until_ms > handshakes.at_ms order by f.until_ms limit 1),
      (select l.customer_id from licenses l where l.license_id = handshakes.license_id));
