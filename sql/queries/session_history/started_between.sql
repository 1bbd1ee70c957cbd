-- How many of the ended sessions with a row of their own started in a time span: all rows, counted in
-- session_history_started alone unless a product is given, minus the few folded ones.
-- :product_id integer (null: any), :after_ms, :until_ms integer (Unix ms; excluded, included)
select (select count(*) from session_history h
        where h.started_at_ms > :after_ms and h.started_at_ms <= :until_ms
          and (:product_id is null
               or exists (select 1 from licenses l
                          where l.license_id = h.license_id and l.product_id = :product_id)))
     - (select count(*) from session_history h indexed by session_history_folded
        where h.sessions is not null and h.ended_at_ms > :after_ms
          and h.started_at_ms > :after_ms and h.started_at_ms <= :until_ms
          and (:product_id is null
               or exists (select 1 from licenses l
                          where l.license_id = h.license_id and l.product_id = :product_id)));
