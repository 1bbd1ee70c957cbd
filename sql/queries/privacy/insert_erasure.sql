-- Lists an erasure, with its first time.
-- :customer_id integer, :created_at_ms, :erased_at_ms integer (Unix ms), :licenses text
insert into erased_customers (customer_id, created_at_ms, erased_at_ms, licenses)
values (:customer_id, :created_at_ms, :erased_at_ms, :licenses)
on conflict do update set erased_at_ms = min(erased_at_ms, excluded.erased_at_ms);
