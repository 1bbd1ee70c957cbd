-- Customers of whom name, company, e-mail and note together contain each of some texts, the newest first. Served by the
-- index customer_texts, which finds candidates.
-- :match text (expression for the index), :parts text (JSON array), :limit integer
select f.rowid as customer_id
from customer_texts f
where f.customer_texts match :match
  and not exists (select 1 from json_each(:parts) p
                  where instr(f.name || f.company || f.email || f.note, p.value) = 0)
order by f.rowid desc
limit :limit;
