-- Adds to the count of refusals of one product with one code in a quarter of an hour.
-- :product_id integer (0: not known), :at_ms integer (Unix ms, the start of the quarter), :code text, :count integer (above 0)
insert into activity_counts (kind, product_id, at_ms, code, count) values ('refusal', :product_id, :at_ms, :code, :count)
on conflict do update set count = count + excluded.count;
