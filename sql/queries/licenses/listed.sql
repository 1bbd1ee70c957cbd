-- One license as a row of a list.
-- :license_id integer, :now_ms integer (Unix ms)
select l.license_id, l.license_key, l.product_id, l.plan, l.customer_id, l.customer, l.kind, l.state, l.device_limit,
       l.valid_from_ms, l.valid_until_ms, l.pending_days, l.features, l.updates_until_ms, l.domain, l.note,
       l.created_at_ms, l.company,
       l.taken,
       (select s.session_id from running_sessions s
        where s.license_id = l.license_id
          and s.runs_until_ms > :now_ms) as session_id
from license_details l
where l.license_id = :license_id;
