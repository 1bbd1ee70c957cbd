-- How many rows of licenses that match product and key end in a span. No more than :limit are counted. Served by
-- session_history_ended.
-- :product_id integer (null: any), :key_part text (upper case, no hyphens; empty: any), :reason text (null: any),
-- :from_ms, :until_ms integer (Unix ms), :limit integer
select count(*) from (
    select 1
    from session_history h
    cross join licenses l on l.license_id = h.license_id
    where h.ended_at_ms between :from_ms and :until_ms
      and (:reason is null or h.end_reason = :reason)
      and (:product_id is null or l.product_id = :product_id)
      and (:key_part = '' or instr(l.license_key, :key_part) > 0)
    limit :limit);
