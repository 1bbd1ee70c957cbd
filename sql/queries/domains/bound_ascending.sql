-- Licenses that are bound to a domain, ordered by domain and id, from after a domain and id on; with the time of the
-- last completed handshake for the domain. Served by license_domain.
-- :product_id integer (null: any), :from_domain text, :from_id integer (null: from the first one on), :search text: case-folded, empty for all, :limit integer
select l.license_id, coalesce(c.name, '') as customer, l.domain, l.transfer_domain, l.transfer_until_ms, l.transfer_confirmed_at_ms,
       (select max(k.completed_at_ms) from known_sources k where k.domain = l.domain) as last_handshake_at_ms
from licenses l left join customers c on c.customer_id = l.customer_id
where l.domain is not null and (l.domain, l.license_id) > (coalesce(:from_domain, ''), coalesce(:from_id, 0))
  and (:product_id is null or l.product_id = :product_id)
  and (:search = '' or instr(folded(coalesce(c.name || ' ' || c.company, '')), :search) > 0
       or instr(spellings(l.domain) || ' ' || spellings(coalesce(l.transfer_domain, '')), :search) > 0)
order by l.domain, l.license_id
limit :limit;
