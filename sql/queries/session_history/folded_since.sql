-- The folded rows, which stand for several sessions, whose last session ended after :after_ms. Served by
-- session_history_folded.
-- :product_id integer (null: any), :after_ms integer (Unix ms)
select h.started_at_ms, h.ended_at_ms, h.ran_ms
from session_history h indexed by session_history_folded
where h.sessions is not null and h.ended_at_ms > :after_ms and h.ran_ms is not null
  and (:product_id is null
       or exists (select 1 from licenses l where l.license_id = h.license_id and l.product_id = :product_id));
