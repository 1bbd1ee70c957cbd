-- Lists an erasure, with its first and its last time. Licenses that were revoked once stay so.
-- :customer_id integer, :created_at_ms, :erased_at_ms integer (Unix ms), :again_at_ms integer or null, :licenses text
insert into erased_customers (customer_id, created_at_ms, erased_at_ms, again_at_ms, licenses)
values (:customer_id, :created_at_ms, :erased_at_ms, :again_at_ms, :licenses)
on conflict do update
set erased_at_ms = min(erased_at_ms, excluded.erased_at_ms),
    again_at_ms = nullif(max(coalesce(again_at_ms, 0), coalesce(excluded.again_at_ms, 0)), 0),
    licenses = case when 'revoke' in (licenses, excluded.licenses) then 'revoke' else 'keep' end;
