-- Devices of which name and fingerprint together contain each of some texts, the newest first. Served by the index
-- device_texts, which finds candidates.
-- :match text (expression for the index), :parts text (JSON array), :product_mark text (null: any product), :limit integer
select d.license_id, d.device_id, d.hardware_id, d.machine_id, d.client_version, d.activated_at_ms, d.last_seen_at_ms
from device_texts f cross join devices d on d.device_id = f.rowid
where f.device_texts match :match
  and (:product_mark is null or f.product = :product_mark)
  and not exists (select 1 from json_each(:parts) p where instr(f.name || f.fingerprint, p.value) = 0)
order by f.rowid desc
limit :limit;
