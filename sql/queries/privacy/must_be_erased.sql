-- Whether a customer is there and not erased, or not again since. Served by the primary key; the time tells a later customer with
-- the same id.
-- :customer_id integer, :created_at_ms integer (Unix ms), :again_at_ms integer (Unix ms) or null
select exists (
    select 1 from customers c
    left join erased_customers e on e.customer_id = c.customer_id and e.created_at_ms = c.created_at_ms
    where c.customer_id = :customer_id and c.created_at_ms = :created_at_ms
      and (c.erased_at_ms is null or coalesce(e.again_at_ms, 0) < :again_at_ms));
