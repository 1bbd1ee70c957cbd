-- Devices that were released, of which name and fingerprint together contain each of some texts, the last released one first.
-- Served by the index released_texts, which finds candidates.
-- :match text (expression for the index), :parts text (JSON array), :product_id integer (null: any product), :limit integer
select a.at_ms, coalesce(json_extract(a.before, '$.machine_id'), '') as machine_id,
       coalesce(json_extract(a.before, '$.hardware_id'), '') as hardware_id, l.license_id
from released_texts f
cross join audit_log a on a.audit_id = f.rowid
cross join licenses l on l.license_id = cast(a.subject as integer)
where f.released_texts match :match
  and not exists (select 1 from json_each(:parts) p where instr(f.name || f.fingerprint, p.value) = 0)
  and (:product_id is null or l.product_id = :product_id)
order by f.rowid desc
limit :limit;
