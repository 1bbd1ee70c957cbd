-- Removes devices and addresses from the ended sessions of a customer; times and versions stay. Served by
-- session_history_license.
-- :customer_id integer
update session_history set hardware_id = '', machine_id = '', address = ''
where license_id in (select license_id from licenses where customer_id = :customer_id);
