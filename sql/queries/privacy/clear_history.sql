-- Removes devices and addresses from the sessions that ended on licenses while they belonged to a customer; times and
-- versions stay. Several sessions in one row have the device of the last one. Served by session_history_license.
-- :customer_id integer
update session_history set hardware_id = '', machine_id = '', address = ''
where license_id in (select license_id from licenses where customer_id = :customer_id
                     union
                     select license_id from former_owners where customer_id = :customer_id)
  and :customer_id = coalesce(
      (select f.customer_id from former_owners f
       where f.license_id = session_history.license_id and f.until_ms >= session_history.ended_at_ms
       order by f.until_ms limit 1),
      (select l.customer_id from licenses l where l.license_id = session_history.license_id));
