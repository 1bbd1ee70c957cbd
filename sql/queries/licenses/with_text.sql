-- Licenses whose note or domain contains each of some texts, or whose key contains another, the newest first. Served by
-- the index license_texts, which finds candidates.
-- :match text (expression for the index), :parts text (JSON array; empty: none), :key_part text (empty: none),
-- :product_mark text (null: any product), :limit integer
select f.rowid as license_id
from license_texts f
where f.license_texts match :match
  and (:product_mark is null or f.product = :product_mark)
  and (:parts <> '[]' and not exists (select 1 from json_each(:parts) p where instr(f.domain || f.note, p.value) = 0)
       or :key_part <> '' and instr(f.license_key, :key_part) > 0)
order by f.rowid desc
limit :limit;
