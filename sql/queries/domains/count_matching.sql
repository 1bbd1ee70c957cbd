-- How many licenses are bound to a domain and match a search; see domains/bound_ascending. No more than :limit are
-- counted. Served by license_domain.
-- :product_id integer (null: any), :search text: case-folded, empty for all, :limit integer
-- scan ok: up to the limit
select count(*) from (
    select 1
    from licenses l left join customers c on c.customer_id = l.customer_id
    where l.domain is not null
      and (:product_id is null or l.product_id = :product_id)
      and (:search = '' or instr(folded(coalesce(c.name || ' ' || c.company, '')), :search) > 0
           or instr(spellings(l.domain) || ' ' || spellings(coalesce(l.transfer_domain, '')), :search) > 0)
    limit :limit);
