-- Ended sessions that precede a position of the list, the earliest end first; of few licenses. To avoid reading whole histories, only the
-- session nearest to the position is looked up for each license at first. All sessions of the page belong to the :limit
-- licenses with the nearest ones, so only those are read further. Each lookup is served by session_history_license.
-- :licenses text (ids as a JSON array), :reason text (null: any), :bound_ms integer (Unix ms), :at_ms, :id integer (end and id
-- of the session at the position), :limit integer
-- scan ok: of the rows of the page
with nearest as (
    select f.value as license_id, (
        select h.session_id from session_history h
        where h.license_id = f.value and (:reason is null or h.end_reason = :reason)
          and h.ended_at_ms <= :bound_ms and h.ended_at_ms >= :at_ms and (h.ended_at_ms > :at_ms or h.session_id > :id)
        order by h.ended_at_ms, h.session_id
        limit 1) as session_id
    from json_each(:licenses) f
), licenses_on_page as materialized (
    select n.license_id
    from nearest n cross join session_history h on h.session_id = n.session_id
    order by h.ended_at_ms, h.session_id
    limit :limit
), sessions_on_page as materialized (
    select h.session_id
    from licenses_on_page cross join session_history h on h.session_id in (
        select p.session_id from session_history p
        where p.license_id = licenses_on_page.license_id and (:reason is null or p.end_reason = :reason)
          and p.ended_at_ms <= :bound_ms and p.ended_at_ms >= :at_ms and (p.ended_at_ms > :at_ms or p.session_id > :id)
        order by p.ended_at_ms, p.session_id
        limit :limit)
    order by h.ended_at_ms, h.session_id
    limit :limit
)
select h.session_id, l.license_id, l.product_id, l.license_key, l.customer_id, coalesce(c.name, '') as customer,
       h.hardware_id, h.machine_id, h.client_version, h.address, h.started_at_ms, h.last_heartbeat_at_ms,
       h.ended_at_ms, h.end_reason, h.sessions
from sessions_on_page
cross join session_history h on h.session_id = sessions_on_page.session_id
join licenses l on l.license_id = h.license_id
left join customers c on c.customer_id = l.customer_id
order by h.ended_at_ms, h.session_id;
