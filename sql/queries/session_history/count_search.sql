-- The same for the licenses that match product, key and customer. Each lookup is served by session_history_license.
-- :product_id integer (null: any), :key_part text (upper case, no hyphens; empty: any), :customer text (empty: any),
-- :reason text (null: any), :from_ms, :until_ms integer (Unix ms), :limit integer
-- scan ok: of the licenses and customers, for a search for part of a text; of the history up to the limit
select count(*) from (
    select 1
    from licenses l
    cross join session_history h on h.license_id = l.license_id and h.ended_at_ms between :from_ms and :until_ms
    where l.product_id in (select product_id from products where :product_id is null or product_id = :product_id)
      and (:key_part = '' or instr(l.license_key, :key_part) > 0)
      and (:customer = '' or l.customer_id in (
          select c.customer_id from customers c
          where instr(folded(c.name || ' ' || c.company), folded(:customer)) > 0))
      and (:reason is null or h.end_reason = :reason)
    limit :limit);
