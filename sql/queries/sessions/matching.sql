-- The sessions that have not ended of some customers, licenses and devices, and those whose address has a text; at most
-- :limit of each. Licenses and sessions are looked up by their indexes; only addresses are read one after another.
-- :product_id integer (null: any), :customers, :licenses, :devices text (ids as JSON arrays), :address text (empty: none),
-- :limit integer
-- scan ok: of the running sessions, if a text may be part of an address
select s.session_id, s.license_id
from (
    select session_id, license_id from (
        select s.session_id, s.license_id
        from json_each(:customers) f
        cross join licenses l on l.customer_id = f.value
        cross join active_sessions s on s.license_id = l.license_id
        limit :limit)
    union
    select session_id, license_id from (
        select s.session_id, s.license_id
        from json_each(:licenses) f
        cross join active_sessions s on s.license_id = f.value
        limit :limit)
    union
    select session_id, license_id from (
        select s.session_id, s.license_id
        from json_each(:devices) f
        cross join devices d on d.device_id = f.value
        cross join active_sessions s on s.license_id = d.license_id and s.device_id = d.device_id
        limit :limit)
    union
    select session_id, license_id from (
        select s.session_id, s.license_id
        from active_sessions s
        where :address <> '' and instr(s.address, :address) > 0
        limit :limit)
) s
where :product_id is null
   or exists (select 1 from licenses l where l.license_id = s.license_id and l.product_id = :product_id);
