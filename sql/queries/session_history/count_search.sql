-- How many rows of some licenses end in a span. No more than :limit are counted. Each lookup is served by
-- session_history_license.
-- :licenses text (ids as a JSON array), :reason text (null: any), :from_ms, :until_ms integer (Unix ms), :limit integer
select count(*) from (
    select 1
    from json_each(:licenses) f
    cross join session_history h on h.license_id = f.value and h.ended_at_ms between :from_ms and :until_ms
    where :reason is null or h.end_reason = :reason
    limit :limit);
