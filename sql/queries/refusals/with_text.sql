-- Rows of which device and domain together contain each of some texts, the newest first. Served by the index refusal_texts,
-- which finds candidates.
-- :match text (expression for the index), :parts text (JSON array), :limit integer
select f.rowid as refusal_id
from refusal_texts f
where f.refusal_texts match :match
  and not exists (select 1 from json_each(:parts) p where instr(f.name || f.fingerprint || f.domain, p.value) = 0)
order by f.rowid desc
limit :limit;
