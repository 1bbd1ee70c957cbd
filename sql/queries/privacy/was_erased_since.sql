-- Whether a customer was erased at or after a time.
-- :at_ms integer (Unix ms)
-- scan ok: few customers are ever erased
select exists (select 1 from erased_customers where coalesce(again_at_ms, erased_at_ms) >= :at_ms);
